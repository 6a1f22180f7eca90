//! The DNS bench's tables.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::OURS;
use super::dnsperf::Pace;
use super::rounds::{Key, Sample, Samples};
use super::workload::Workload;

/// A quantity of a run, of which the median over all rounds is shown.
#[derive(Clone, Copy)]
struct Quantity {
    name: &'static str,
    value: fn(&Sample) -> f64,
    decimals: usize,
    /// Whether the ratio to ours is shown.
    ratio: bool,
}

const CPU: Quantity = Quantity {
    name: "CPU time of the server per query, µs",
    value: |sample| micros(sample.cpu_per_query),
    decimals: 2,
    ratio: true,
};

const FULL: [Quantity; 2] = [
    CPU,
    Quantity {
        name: "queries a second",
        value: |sample| sample.count.per_second,
        decimals: 0,
        ratio: false,
    },
];

const STEADY: [Quantity; 3] = [
    CPU,
    Quantity {
        name: "mean latency, µs",
        value: |sample| micros(sample.count.mean_latency),
        decimals: 0,
        ratio: false,
    },
    Quantity {
        name: "worst latency, µs",
        value: |sample| micros(sample.count.worst_latency),
        decimals: 0,
        ratio: false,
    },
];

pub(super) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// All tables, and what the goals say of them.
pub(super) fn markdown(samples: &Samples) -> String {
    let mut text = String::new();
    let paces: BTreeSet<Pace> = samples.keys().map(|key| key.pace).collect();
    for pace in paces {
        let (title, quantities) = match pace {
            Pace::Full => ("as fast as dnsperf asks".to_owned(), FULL.as_slice()),
            Pace::Steady(rate) => (format!("at a steady {rate} a second"), STEADY.as_slice()),
        };
        for quantity in quantities {
            // Writing to a String can't fail.
            let _ = writeln!(text, "#### {}, {title}\n", quantity.name);
            text.push_str(&table(samples, pace, *quantity));
            text.push('\n');
        }
        text.push_str(&losses(samples, pace));
    }
    text.push_str(&goals(samples));
    text
}

fn table(samples: &Samples, pace: Pace, quantity: Quantity) -> String {
    let names = names(samples);
    let mut table = format!("| | {} |\n|---|", names.join(" | "));
    table.push_str(&"---:|".repeat(names.len()));
    table.push('\n');
    for workload in Workload::ALL {
        let value = |name| median(samples, pace, workload, name, quantity.value);
        let ours = value(OURS);
        if names.iter().all(|name| value(name).is_none()) {
            continue;
        }
        let _ = write!(table, "| {workload} |");
        for &name in &names {
            let Some(theirs) = value(name) else {
                table.push_str(" – |");
                continue;
            };
            let _ = write!(table, " {theirs:.*}", quantity.decimals);
            if let Some(ours) = ours.filter(|_| quantity.ratio && name != OURS) {
                let _ = write!(table, " ({:.2}x)", theirs / ours);
            }
            table.push_str(" |");
        }
        table.push('\n');
    }
    table
}

/// The names of all servers, ours first.
fn names(samples: &Samples) -> Vec<&'static str> {
    let all: BTreeSet<&str> = samples.keys().map(|key| key.name).collect();
    let ours = all.iter().copied().filter(|name| *name == OURS);
    let others = all.iter().copied().filter(|name| *name != OURS);
    ours.chain(others).collect()
}

fn median(
    samples: &Samples,
    pace: Pace,
    workload: Workload,
    name: &'static str,
    value: fn(&Sample) -> f64,
) -> Option<f64> {
    let key = Key {
        pace,
        workload,
        name,
    };
    let mut values: Vec<f64> = samples.get(&key)?.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// A line for each server that lost queries.
fn losses(samples: &Samples, pace: Pace) -> String {
    let mut text = String::new();
    for name in names(samples) {
        let of = samples
            .iter()
            .filter(|(key, _)| key.name == name && key.pace == pace);
        let counts = of
            .flat_map(|(_, samples)| samples)
            .map(|sample| &sample.count);
        let (lost, sent) = counts.fold((0, 0), |(lost, sent), count| {
            (lost + count.lost, sent + count.sent)
        });
        if lost > 0 {
            let _ = writeln!(text, "{name} lost {lost} of {sent} queries.\n");
        }
    }
    text
}

/// Of ours, the most CPU time per query that is allowed, as a share of another server's.
struct Goal {
    than: &'static str,
    share: f64,
    outside: bool,
}

const GOALS: [Goal; 5] = [
    Goal {
        than: "nsd",
        share: 1.0,
        outside: false,
    },
    Goal {
        than: "knot",
        share: 1.0,
        outside: false,
    },
    Goal {
        than: "coredns",
        share: 0.2,
        outside: false,
    },
    Goal {
        than: "unbound",
        share: 1.0,
        outside: true,
    },
    Goal {
        than: "coredns",
        share: 0.25,
        outside: true,
    },
];

/// Whether each goal is met, where both were measured.
fn goals(samples: &Samples) -> String {
    let mut text = String::new();
    let paces: BTreeSet<Pace> = samples.keys().map(|key| key.pace).collect();
    for goal in &GOALS {
        for &pace in &paces {
            let workloads = Workload::ALL
                .into_iter()
                .filter(|workload| (*workload == Workload::Outside) == goal.outside);
            let mut missed = Vec::new();
            let mut seen = 0;
            for workload in workloads {
                let value = |name| median(samples, pace, workload, name, CPU.value);
                let (Some(ours), Some(theirs)) = (value(OURS), value(goal.than)) else {
                    continue;
                };
                seen += 1;
                if ours > theirs * goal.share {
                    missed.push(format!("{workload} ({:.2} of it)", ours / theirs));
                }
            }
            if seen == 0 {
                continue;
            }
            let verdict = if missed.is_empty() {
                "met".to_owned()
            } else {
                format!("NOT met by {}", missed.join(", "))
            };
            let pace = match pace {
                Pace::Full => "at full speed".to_owned(),
                Pace::Steady(rate) => format!("at {rate} a second"),
            };
            let names = if goal.outside { "outside" } else { "cluster" };
            let _ = writeln!(
                text,
                "- {names} names, {pace}: at most {} of {}'s CPU per query: {verdict}",
                goal.share, goal.than
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::dnsperf::Count;
    use super::*;

    fn samples(of: &[(&'static str, &[u64])]) -> Samples {
        let mut all = Samples::new();
        for &(name, cpus) in of {
            let key = Key {
                pace: Pace::Full,
                workload: Workload::ClusterA,
                name,
            };
            let samples = cpus.iter().map(|&cpu| Sample {
                count: Count::default(),
                cpu_per_query: Duration::from_micros(cpu),
            });
            all.insert(key, samples.collect());
        }
        all
    }

    #[test]
    fn medians_stand_beside_each_other_with_their_ratio_to_ours() {
        let all = samples(&[(OURS, &[9, 4, 5]), ("nsd", &[8, 12])]);
        let text = markdown(&all);
        assert!(
            text.contains("| | switchyard-dns | nsd |\n|---|---:|---:|\n"),
            "{text}"
        );
        assert!(text.contains("| A | 5.00 | 10.00 (2.00x) |\n"), "{text}");
        assert!(text.contains("nsd's CPU per query: met"), "{text}");
        assert!(!text.contains("knot"), "{text}");
    }

    #[test]
    fn a_goal_that_is_missed_is_named() {
        let text = markdown(&samples(&[(OURS, &[5]), ("coredns", &[20])]));
        assert!(text.contains("at most 0.2 of coredns's CPU per query: NOT met by A (0.25 of it)"));
    }

    #[test]
    fn peers_alone_are_shown_too() {
        let text = markdown(&samples(&[("knot", &[5]), ("nsd", &[6])]));
        assert!(text.contains("| A | 5.00 | 6.00 |\n"), "{text}");
    }
}
