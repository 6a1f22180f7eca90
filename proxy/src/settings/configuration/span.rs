use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a text that is no length of time should have been.
pub(super) const EXPECTED: &str = "a duration such as 30s, 1h0m0s or 500ms";

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
/// Of a unit, the text Go has for it.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", MICROSECOND),
    ("µs", MICROSECOND),
    ("μs", MICROSECOND),
    ("ms", MILLISECOND),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// A length of time as Go has it: nanoseconds, at most 292 years, and maybe less than none. Read
/// and written as Go does: `1h0m0s`, `1.5s`, `500ms`, `0s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(i64);

impl Span {
    /// None.
    pub const ZERO: Self = Self(0);

    /// So many seconds; as many as there can be, if they are more.
    #[must_use]
    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(SECOND))
    }

    /// As the standard library has it; `None` if it is less than none.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }

    /// Whether it is none.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Not a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct NotASpan;

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(NotASpan);
        }
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let (part, after) = part(rest).ok_or(NotASpan)?;
            total = total.checked_add(part).ok_or(NotASpan)?;
            rest = after;
        }
        Ok(Self(if negative { -total } else { total }))
    }
}

/// The first number with its unit, in nanoseconds, and what comes after it.
fn part(text: &str) -> Option<(i64, &str)> {
    let digits_end = |text: &str| text.find(|c: char| !c.is_ascii_digit());
    let (whole, rest) = text.split_at(digits_end(text)?);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits_end(rest)?),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let (unit, rest) = rest.split_at(rest.find(is_number).unwrap_or(rest.len()));
    let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanoseconds = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars().filter_map(|c| c.to_digit(10)) {
        place /= 10;
        nanoseconds = nanoseconds.checked_add(i64::from(digit) * place)?;
    }
    Some((nanoseconds, rest))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let second = SECOND.unsigned_abs();
        let all = self.0.unsigned_abs();
        if all == 0 {
            return f.write_str("0s");
        }
        if all < second {
            let small = [("ms", MILLISECOND), ("µs", MICROSECOND), ("ns", 1)];
            let fits = |(_, unit): &(&str, i64)| all >= unit.unsigned_abs();
            let (name, unit) = small.into_iter().find(fits).unwrap_or(("ns", 1));
            return write_decimal(f, all, unit.unsigned_abs(), name);
        }
        let (minutes, rest) = (all / second / 60, all % (60 * second));
        match (minutes / 60, minutes % 60) {
            (0, 0) => {}
            (0, minutes) => write!(f, "{minutes}m")?,
            (hours, minutes) => write!(f, "{hours}h{minutes}m")?,
        }
        write_decimal(f, rest, second, "s")
    }
}

fn write_decimal(f: &mut fmt::Formatter<'_>, all: u64, unit: u64, name: &str) -> fmt::Result {
    let (whole, rest) = (all / unit, all % unit);
    if rest == 0 {
        return write!(f, "{whole}{name}");
    }
    let width = unit.to_string().len() - 1;
    let fraction = format!("{rest:0width$}");
    write!(f, "{whole}.{}{name}", fraction.trim_end_matches('0'))
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        of_text(&String::deserialize(from)?)
    }
}

fn of_text<E: serde::de::Error>(text: &str) -> Result<Span, E> {
    text.parse()
        .map_err(|NotASpan| E::invalid_value(Unexpected::Str(text), &EXPECTED))
}

/// As the reference reads `logging.flushFrequency`, which once was a number.
pub(super) fn nanoseconds_or_text<'de, D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Nanoseconds(i64),
        Text(String),
    }
    let wrong = |_| D::Error::custom(format!("invalid type, expected {EXPECTED}"));
    match Given::deserialize(from).map_err(wrong)? {
        Given::Nanoseconds(nanoseconds) => Ok(Span(nanoseconds)),
        Given::Text(text) => of_text(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_written_as_go_does() {
        for (text, nanoseconds, written) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("15m", 900 * SECOND, "15m0s"),
            ("24h", 86_400 * SECOND, "24h0m0s"),
            ("1h0m30s", 3_630 * SECOND, "1h0m30s"),
            ("90s", 90 * SECOND, "1m30s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            (".5m", 30 * SECOND, "30s"),
            ("250ms", 250_000_000, "250ms"),
            ("2.25ms", 2_250_000, "2.25ms"),
            ("17us", 17_000, "17µs"),
            ("3ns", 3, "3ns"),
            ("-1h", -3_600 * SECOND, "-1h0m0s"),
            ("+2s", 2 * SECOND, "2s"),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.0, nanoseconds, "{text}");
            assert_eq!(span.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(span), "{text}");
        }
    }

    #[test]
    fn all_else_is_no_length_of_time() {
        for text in [
            "", "-", "5", "1d", "s", ".s", "1 h", "1h30", "300y", "3000000h",
        ] {
            assert_eq!(text.parse::<Span>(), Err(NotASpan), "{text}");
        }
    }
}
