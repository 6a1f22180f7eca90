//! Durations as Go writes them.

use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    // "ms" before "m", so that the longer one is taken.
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Digits after the point that count; the rest are below a nanosecond even in hours.
const FRACTION_DIGITS: usize = 15;

/// Reads a duration: numbers, each perhaps with a fraction and always with a unit, or `0`.
/// The error completes a sentence that begins with the text.
pub(super) fn parse(text: &str) -> Result<Duration, &'static str> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if let Some(negative) = unsigned.strip_prefix('-') {
        return if negative == "0" {
            Ok(Duration::ZERO)
        } else {
            Err("is negative")
        };
    }
    if unsigned.is_empty() {
        return Err("is empty");
    }
    let mut rest = unsigned;
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let (part, after) = part(rest)?;
        nanoseconds = nanoseconds.checked_add(part).ok_or("is too long")?;
        rest = after;
    }
    // Go's durations end at 2^63 nanoseconds, and so do ours.
    i64::try_from(nanoseconds).map_err(|_| "is too long")?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads one number with its unit; gives nanoseconds and the rest.
fn part(text: &str) -> Result<(u64, &str), &'static str> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err("has a part without a number");
    }
    let unit = UNITS.iter().find_map(|&(unit, nanoseconds)| {
        let rest = rest.strip_prefix(unit)?;
        // "m" must not take the first letter of "months".
        let ends = rest
            .chars()
            .next()
            .is_none_or(|c| c.is_ascii_digit() || c == '.');
        ends.then_some((nanoseconds, rest))
    });
    let Some((unit, rest)) = unit else {
        let what = if rest.is_empty() {
            "has no unit"
        } else {
            "has an unknown unit"
        };
        return Err(what);
    };
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| "is too long")?
    };
    let whole = whole.checked_mul(unit).ok_or("is too long")?;
    let nanoseconds = whole
        .checked_add(fraction_of(fraction, unit)?)
        .ok_or("is too long")?;
    Ok((nanoseconds, rest))
}

/// The nanoseconds of the digits after a point.
fn fraction_of(digits: &str, unit: u64) -> Result<u64, &'static str> {
    let digits = digits.get(..FRACTION_DIGITS).unwrap_or(digits);
    let Ok(power) = u32::try_from(digits.len()) else {
        return Err("is too long");
    };
    let number: u128 = if digits.is_empty() {
        0
    } else {
        digits.parse().map_err(|_| "is too long")?
    };
    u64::try_from(number * u128::from(unit) / 10_u128.pow(power)).map_err(|_| "is too long")
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("2.5s", 2_500_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1h15m30.918273645s", 4_530_918_273_645),
            ("10us", 10_000),
            ("10\u{b5}s", 10_000),
            ("12\u{3bc}s", 12_000),
            ("7ns", 7),
            ("30s1h", 3_630_000_000_000),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        let cases = [
            ("", "is empty"),
            ("3", "has no unit"),
            ("-5s", "is negative"),
            ("s", "has a part without a number"),
            (".s", "has a part without a number"),
            ("-", "is negative"),
            ("+", "is empty"),
            ("1months", "has an unknown unit"),
            ("1d", "has an unknown unit"),
            ("5 s", "has an unknown unit"),
            ("1m 30s", "has an unknown unit"),
            ("9223372036854775808ns", "is too long"),
            ("99999999999999999999h", "is too long"),
            ("3000000h", "is too long"),
        ];
        for (text, problem) in cases {
            assert_eq!(parse(text), Err(problem), "{text}");
        }
    }
}
