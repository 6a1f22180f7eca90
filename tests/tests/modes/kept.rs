//! Connections that are open while the mode changes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use switchyard_tests::testbed::{Connection, Family, Outcome, Place, Probe, Protocol, Testbed};

use super::Mode;

/// Longer than TCP needs to send anew what was lost.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// The former mode is taken away meanwhile.
const ASK_FOR: Duration = Duration::from_secs(3);
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Who talks to what: new connections all the time, and one that stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) from: Place,
    pub(super) protocol: Protocol,
    /// The IPv4 address; the twin where the family is IPv6.
    pub(super) to: &'static str,
    pub(super) family: Family,
}

const fn way(name: &'static str, from: Place, to: &'static str) -> Way {
    Way {
        name,
        from,
        protocol: Protocol::Tcp,
        to,
        family: Family::IPv4,
    }
}

/// All of the recorded Services.
pub(super) const WAYS: [Way; 8] = [
    way("pod to ClusterIP", Place::Pod12, "10.96.1.1:80"),
    Way {
        family: Family::IPv6,
        ..way("pod to ClusterIP, IPv6", Place::Pod12, "10.96.1.15:80")
    },
    way("node to ClusterIP", Place::Node1, "10.96.1.1:80"),
    way(
        "outside to node port",
        Place::Client,
        "192.168.100.11:30006",
    ),
    Way {
        family: Family::IPv6,
        ..way(
            "outside to node port, IPv6",
            Place::Client,
            "192.168.100.11:30015",
        )
    },
    // Not masqueraded.
    way(
        "outside to node port, policy Local",
        Place::Client,
        "192.168.100.11:30007",
    ),
    way(
        "outside to LoadBalancer IP",
        Place::Client,
        "203.0.113.20:80",
    ),
    Way {
        protocol: Protocol::Udp,
        ..way("pod to ClusterIP, UDP", Place::Pod11, "10.96.1.3:53")
    },
];

/// From where open connections may end with a switch. IPVS keeps its connections itself, until its
/// services go, a moment after the new mode is complete: see docs/modes.md.
const MAY_END: [Mode; 1] = [Mode::Ipvs];

impl Way {
    pub(super) fn probe(&self) -> Result<Probe> {
        let to = self.family.twin_socket(self.to.parse()?);
        Ok(Probe::new(self.from, self.protocol, to).timeout(ANSWER))
    }
}

/// Open connections, with who answers on them.
pub(super) struct Open(Vec<(Way, Connection, Outcome)>);

impl Open {
    pub(super) fn all(bed: &Testbed) -> Result<Self> {
        let mut open = Vec::new();
        for way in WAYS {
            let connection = bed.connect(&way.probe()?).context(way.name)?;
            let first = connection.ask(bed, ANSWER)?;
            ensure!(
                matches!(first, Outcome::Answered(_)),
                "{}: {first}",
                way.name
            );
            open.push((way, connection, first));
        }
        Ok(Self(open))
    }

    /// Fails unless each is answered by whom it was, or is a known exception.
    pub(super) fn check(&self, bed: &Testbed, from: Mode, to: Mode) -> Result<()> {
        if MAY_END.contains(&from) && from != to {
            return Ok(());
        }
        let mut wrong = Vec::new();
        let until = Instant::now() + ASK_FOR;
        while wrong.is_empty() && Instant::now() < until {
            wrong = self.ask(bed)?;
            std::thread::sleep(ASK_EVERY);
        }
        ensure!(
            wrong.is_empty(),
            "open connections:\n  {}",
            wrong.join("\n  ")
        );
        Ok(())
    }

    fn ask(&self, bed: &Testbed) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (way, connection, first) in &self.0 {
            let outcome = connection.ask(bed, ANSWER)?;
            // Another socket's question may go elsewhere, and one that is answered has lost nothing.
            let is_kept = match (way.protocol, &outcome, first) {
                (Protocol::Udp, Outcome::Answered(_), _) => true,
                (_, Outcome::Answered(now), Outcome::Answered(before)) => now.by == before.by,
                _ => false,
            };
            if !is_kept {
                wrong.push(format!("{}: {outcome}", way.name));
            }
        }
        Ok(wrong)
    }
}
