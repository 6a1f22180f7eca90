use std::time::Duration;

/// A duration as Go prints it: `5m0s`, `1.5s`, `250ms`.
pub(super) fn text(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    for (unit, size) in [("ns", 1_000), ("\u{b5}s", 1_000_000), ("ms", 1_000_000_000)] {
        if nanoseconds < size && nanoseconds > 0 {
            return decimal(nanoseconds, size / 1_000) + unit;
        }
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let rest = nanoseconds % 60_000_000_000;
    let rest = decimal(rest, 1_000_000_000) + "s";
    match (hours, minutes) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

/// `number / unit` without zeros at the end of the fraction.
fn decimal(number: u128, unit: u128) -> String {
    let digits = unit.checked_ilog10().unwrap_or_default();
    let digits = usize::try_from(digits).unwrap_or_default();
    let (whole, fraction) = (number / unit, number % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{fraction:0digits$}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (3_300_000_000, "3.3s"),
            (30_000_000_000, "30s"),
            (300_000_000_000, "5m0s"),
            (245_001_000_000, "4m5.001s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanoseconds, expected) in cases {
            assert_eq!(text(Duration::from_nanos(nanoseconds)), expected);
        }
    }
}
