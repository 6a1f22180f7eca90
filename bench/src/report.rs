//! Results as a table.

use std::fmt::Write;
use std::time::Duration;

use crate::cluster::Size;
use crate::proxy::Measured;

/// One quantity: what it is called, its value, and how that is written.
struct Row {
    name: &'static str,
    value: fn(&Measured) -> f64,
    unit: Unit,
}

#[derive(Clone, Copy)]
enum Unit {
    Milliseconds,
    MiB,
    Count,
}

const ROWS: [Row; 10] = [
    Row {
        name: "first sync, until in the kernel",
        value: |m| milliseconds(m.first_sync),
        unit: Unit::Milliseconds,
    },
    Row {
        name: "one endpoint change, until new connections follow it: mean",
        value: |m| milliseconds(m.change_mean),
        unit: Unit::Milliseconds,
    },
    Row {
        name: "the same: worst",
        value: |m| milliseconds(m.change_worst),
        unit: Unit::Milliseconds,
    },
    Row {
        name: "CPU of a change, children included",
        value: |m| milliseconds(m.cpu_per_change),
        unit: Unit::Milliseconds,
    },
    Row {
        name: "resident memory",
        value: |m| mebibytes(m.rss_kib),
        unit: Unit::MiB,
    },
    Row {
        name: "resident memory, most",
        value: |m| mebibytes(m.peak_rss_kib),
        unit: Unit::MiB,
    },
    Row {
        name: "resident memory of a child in the first sync, most",
        value: |m| mebibytes(m.child_peak_rss_kib),
        unit: Unit::MiB,
    },
    Row {
        name: "CPU in 10 idle seconds",
        value: |m| milliseconds(m.idle_cpu),
        unit: Unit::Milliseconds,
    },
    Row {
        name: "wake-ups in 10 idle seconds",
        value: |m| count(m.idle_wakeups),
        unit: Unit::Count,
    },
    Row {
        name: "IPv4 rules at the end",
        value: |m| {
            m.rules.map_or(f64::NAN, |rules| {
                count(u64::try_from(rules).unwrap_or(u64::MAX))
            })
        },
        unit: Unit::Count,
    },
];

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn mebibytes(kib: u64) -> f64 {
    count(kib) / 1024.0
}

fn count(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            _ if value.is_nan() => "–".to_owned(),
            Self::Milliseconds if value >= 1000.0 => format!("{:.2} s", value / 1000.0),
            Self::Milliseconds if value < 10.0 => format!("{value:.1} ms"),
            Self::Milliseconds => format!("{value:.0} ms"),
            Self::MiB => format!("{value:.1} MiB"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

/// A Markdown table of all subjects; where there are two, with the ratio of the second to
/// the first.
#[must_use]
pub fn markdown(size: Size, tool: &str, subjects: &[(String, Measured)]) -> String {
    let mut table = format!(
        "### {} Services, {} endpoints, {tool}\n\n| |",
        size.services, size.endpoints
    );
    // Writing to a String can't fail.
    for (name, _) in subjects {
        let _ = write!(table, " {name} |");
    }
    let ratio = |row: &Row| match subjects {
        [(_, first), (_, second)] => Some((row.value)(second) / (row.value)(first)),
        _ => None,
    };
    let has_ratio = subjects.len() == 2;
    table.push_str(if has_ratio { " ratio |\n" } else { "\n" });
    let columns = subjects.len() + usize::from(has_ratio);
    let _ = writeln!(table, "|---|{}", "---:|".repeat(columns));
    for row in &ROWS {
        let _ = write!(table, "| {} |", row.name);
        for (_, measured) in subjects {
            let _ = write!(table, " {} |", row.unit.write((row.value)(measured)));
        }
        match ratio(row) {
            Some(ratio) if ratio.is_finite() => {
                let _ = write!(table, " {ratio:.2} |");
            }
            Some(_) => table.push_str(" – |"),
            None => {}
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ms: u64) -> Measured {
        Measured {
            first_sync: Duration::from_millis(ms),
            change_mean: Duration::from_millis(ms),
            change_worst: Duration::from_millis(ms),
            cpu_per_change: Duration::from_millis(ms),
            rss_kib: ms * 1024,
            peak_rss_kib: ms * 1024,
            child_peak_rss_kib: 0,
            idle_cpu: Duration::ZERO,
            idle_wakeups: 0,
            rules: Some(47_532),
        }
    }

    #[test]
    fn two_subjects_are_compared() {
        let size = Size {
            services: 10,
            endpoints: 25,
        };
        let subjects = [
            ("ours".to_owned(), measured(40)),
            ("theirs".to_owned(), measured(1400)),
        ];
        let table = markdown(size, "iptables-nft", &subjects);
        assert!(table.contains("| | ours | theirs | ratio |\n|---|---:|---:|---:|\n"));
        assert!(table.contains("| first sync, until in the kernel | 40 ms | 1.40 s | 35.00 |\n"));
        assert!(table.contains("| CPU in 10 idle seconds | 0.0 ms | 0.0 ms | – |\n"));
    }

    #[test]
    fn one_subject_stands_alone() {
        let size = Size {
            services: 10,
            endpoints: 25,
        };
        let table = markdown(size, "iptables-nft", &[("ours".to_owned(), measured(40))]);
        assert!(table.contains("| | ours |\n|---|---:|\n"));
        assert!(table.contains("| IPv4 rules at the end | 47532 |\n"));
    }
}
