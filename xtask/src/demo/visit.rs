//! Sends requests to the demo's Services and prints who answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Result, bail};
use switchyard_tests::testbed::{Outcome, Place, Probe, Protocol, Testbed};

/// Requests of each row: with three endpoints, one stays unseen in 1 of 3 million rows.
const REQUESTS: usize = 40;

/// One row: who asks what, and what must come of it.
struct Visit {
    what: &'static str,
    from: Place,
    to: &'static str,
    must: Must,
}

/// What must come of a row's requests.
#[derive(Clone, Copy)]
enum Must {
    /// Answers from each of these endpoints, and no others.
    Each(&'static [&'static str]),
    /// One of these endpoints answers all of them.
    One(&'static [&'static str]),
    /// As `Each`, and the endpoint sees the client's own address.
    SourceKept(&'static [&'static str]),
}

const PODS: [&str; 4] = ["pod11", "pod12", "pod21", "pod22"];

const VISITS: [Visit; 13] = [
    Visit {
        what: "ClusterIP hello, from a pod",
        from: Place::Pod12,
        to: "10.96.2.1:80",
        must: Must::SourceKept(&["pod11", "pod21", "pod22"]),
    },
    Visit {
        what: "ClusterIP hello, from a pod, IPv6",
        from: Place::Pod12,
        to: "[fd00:96::201]:80",
        must: Must::SourceKept(&["pod11", "pod21", "pod22"]),
    },
    Visit {
        what: "ClusterIP hello, from a node",
        from: Place::Node2,
        to: "10.96.2.1:80",
        must: Must::Each(&["pod11", "pod21", "pod22"]),
    },
    Visit {
        what: "NodePort web at node1, from outside",
        from: Place::Client,
        to: "192.168.100.11:30080",
        must: Must::Each(&["pod12", "pod21"]),
    },
    Visit {
        what: "NodePort web at node2, from outside",
        from: Place::Client,
        to: "192.168.100.12:30080",
        must: Must::Each(&["pod12", "pod21"]),
    },
    Visit {
        what: "NodePort web at node1, from outside, IPv6",
        from: Place::Client,
        to: "[fd00:100::11]:30080",
        must: Must::Each(&["pod12", "pod21"]),
    },
    Visit {
        what: "NodePort web at localhost",
        from: Place::Node1,
        to: "127.0.0.1:30080",
        must: Must::Each(&["pod12", "pod21"]),
    },
    Visit {
        what: "NodePort web at localhost, IPv6",
        from: Place::Node1,
        to: "[::1]:30080",
        must: Must::Each(&["pod12", "pod21"]),
    },
    Visit {
        what: "sticky Service, from one pod",
        from: Place::Pod11,
        to: "10.96.2.3:80",
        must: Must::One(&PODS),
    },
    Visit {
        what: "sticky Service, from another pod",
        from: Place::Pod12,
        to: "10.96.2.3:80",
        must: Must::One(&PODS),
    },
    Visit {
        what: "sticky Service, from one pod, IPv6",
        from: Place::Pod11,
        to: "[fd00:96::203]:80",
        must: Must::One(&PODS),
    },
    Visit {
        what: "load balancer edge, Local policy, node1",
        from: Place::Client,
        to: "203.0.113.10:80",
        must: Must::SourceKept(&["pod11"]),
    },
    Visit {
        what: "load balancer edge, Local policy, IPv6",
        from: Place::Client,
        to: "[2001:db8:113::10]:80",
        must: Must::SourceKept(&["pod11"]),
    },
];

/// Makes every visit and prints the table.
///
/// # Errors
/// A row that did not come out as it must; the table names it.
pub(super) fn run(bed: &Testbed) -> Result<()> {
    let mut table =
        vec![["request", "from", "to", "answered by", "source seen", ""].map(str::to_owned)];
    let mut wrong = 0_usize;
    for visit in &VISITS {
        let to: SocketAddr = visit.to.parse()?;
        let probes = vec![Probe::new(visit.from, Protocol::Tcp, to); REQUESTS];
        let seen = Seen::of(&bed.probe_all(&probes)?);
        let verdict = match seen.judge(visit.must) {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                wrong += 1;
                format!("WRONG: {error:#}")
            }
        };
        table.push([
            visit.what.to_owned(),
            visit.from.to_string(),
            visit.to.to_owned(),
            seen.by
                .iter()
                .map(|(by, count)| format!("{by} {count}x"))
                .collect::<Vec<_>>()
                .join(", "),
            seen.sources.iter().cloned().collect::<Vec<_>>().join(" "),
            verdict,
        ]);
    }
    println!("\n{}", aligned(&table));
    if wrong > 0 {
        bail!("{wrong} of {} rows are not as they must be", VISITS.len());
    }
    Ok(())
}

/// What came of a row's requests.
#[derive(Default)]
struct Seen {
    /// How often each place answered; refusals and the like under their own words.
    by: BTreeMap<String, usize>,
    failures: usize,
    sources: BTreeSet<String>,
    source_kept: bool,
}

impl Seen {
    fn of(outcomes: &[Outcome]) -> Self {
        let mut seen = Self {
            source_kept: true,
            ..Self::default()
        };
        for outcome in outcomes {
            if let Outcome::Answered(answer) = outcome {
                *seen.by.entry(answer.place.clone()).or_default() += 1;
                seen.sources.insert(answer.seen.ip().to_string());
                seen.source_kept &= answer.seen.ip() == answer.own.ip();
            } else {
                *seen.by.entry(outcome.to_string()).or_default() += 1;
                seen.failures += 1;
            }
        }
        seen
    }

    fn judge(&self, must: Must) -> Result<()> {
        if self.failures > 0 {
            bail!("{} requests not answered", self.failures);
        }
        let answered: BTreeSet<&str> = self.by.keys().map(String::as_str).collect();
        match must {
            Must::One(of) => {
                if answered.len() != 1 || !answered.iter().all(|by| of.contains(by)) {
                    bail!("expected one of {} for all", of.join(", "));
                }
            }
            Must::Each(of) | Must::SourceKept(of) => {
                if answered != of.iter().copied().collect() {
                    bail!("expected each of {}", of.join(", "));
                }
            }
        }
        if matches!(must, Must::SourceKept(_)) && !self.source_kept {
            bail!("the client's own address was to be kept");
        }
        Ok(())
    }
}

fn aligned(table: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    table
        .iter()
        .map(|row| {
            let cells = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(by: &[(&str, usize)], source_kept: bool) -> Seen {
        Seen {
            by: by
                .iter()
                .map(|&(by, count)| (by.to_owned(), count))
                .collect(),
            source_kept,
            ..Seen::default()
        }
    }

    #[test]
    fn rows_are_judged() {
        let two = seen(&[("pod11", 3), ("pod21", 4)], false);
        assert!(two.judge(Must::Each(&["pod21", "pod11"])).is_ok());
        assert!(
            two.judge(Must::Each(&["pod11"])).is_err(),
            "a stranger answered"
        );
        assert!(
            two.judge(Must::Each(&["pod11", "pod21", "pod22"])).is_err(),
            "one is missing"
        );
        assert!(two.judge(Must::One(&PODS)).is_err());
        assert!(two.judge(Must::SourceKept(&["pod11", "pod21"])).is_err());
        assert!(seen(&[("pod22", 9)], false).judge(Must::One(&PODS)).is_ok());
        assert!(
            seen(&[("fabric", 9)], true)
                .judge(Must::One(&PODS))
                .is_err()
        );
    }
}
