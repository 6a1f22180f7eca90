//! Sending a step's packets and judging what comes back.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::backend::Backend;
use super::differences::{Differences, Leeway, Situation};
use super::expect::{Expect, judge, wrong_source};
use super::format::PacketSpec;
use crate::testbed::{Connection, Family, Outcome, Probe, Protocol, Testbed};

const POLL_EVERY: Duration = Duration::from_millis(15);
/// Packets sent at once for one expectation, and how often again until every endpoint was seen.
const PACKETS_A_ROUND: usize = 6;
const MAX_ROUNDS: usize = 40;
/// Packets for an expectation that costs its whole time-out.
const PACKETS_IN_VAIN: usize = 2;
/// "Dropped" must outlast the first retry of a TCP client, at which a refusal would show.
const DROP_TIMEOUT_TCP: Duration = Duration::from_millis(1300);
const DROP_TIMEOUT_UDP: Duration = Duration::from_millis(600);

/// The sender of one case's packets. It remembers flows and endpoints from step to step.
pub(super) struct Sender<'a> {
    bed: &'a Testbed,
    backend: Backend,
    differences: &'a Differences,
    flows: Mutex<HashMap<(String, Family), Connection>>,
    /// Endpoints, each with the address at which it was met.
    remembered: Mutex<HashMap<(String, Family), (SocketAddr, SocketAddr)>>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(bed: &'a Testbed, backend: Backend, differences: &'a Differences) -> Self {
        Self {
            bed,
            backend,
            differences,
            flows: Mutex::new(HashMap::new()),
            remembered: Mutex::new(HashMap::new()),
        }
    }

    /// Sends all packets at the same time; returns a line for each kind that did not meet what it must.
    pub(super) fn check(
        &self,
        packets: &[PacketSpec],
        families: &[Family],
        situation: Situation<'_>,
    ) -> Vec<String> {
        let wrong = Mutex::new(Vec::new());
        let note = |line: String| {
            wrong
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        };
        std::thread::scope(|scope| {
            for packet in packets {
                if packet
                    .only
                    .as_ref()
                    .is_some_and(|words| !words.iter().any(|word| word.is(self.backend)))
                {
                    continue;
                }
                let leeway = self.differences.leeway(packet, situation);
                for family in packet.families.as_deref().unwrap_or(families) {
                    let note = &note;
                    scope.spawn(move || {
                        if let Err(error) = self.check_one(packet, *family, leeway) {
                            note(format!(
                                "{} {family} {} {} -> {}: expected {}{}; got: {error:#}",
                                packet.id,
                                packet.proto,
                                packet.from,
                                family.twin_socket(packet.to),
                                packet.expect,
                                match packet.masq {
                                    Some(true) => ", masqueraded",
                                    Some(false) => ", not masqueraded",
                                    None => "",
                                }
                            ));
                        }
                    });
                }
            }
        });
        let mut wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        wrong.sort();
        wrong
    }

    /// Tries until the expectation holds or its time is up.
    fn check_one(&self, packet: &PacketSpec, family: Family, leeway: Leeway) -> Result<()> {
        let deadline = Instant::now() + packet.within;
        loop {
            let result = self.try_once(packet, family, leeway);
            if result.is_ok() || Instant::now() >= deadline {
                return result;
            }
            std::thread::sleep(POLL_EVERY.max(packet.every));
        }
    }

    fn try_once(&self, packet: &PacketSpec, family: Family, leeway: Leeway) -> Result<()> {
        let probe = probe_of(packet, family);
        let remembered = match &packet.expect {
            Expect::Same(name) | Expect::OtherThan(name) => {
                let remembered = self
                    .remembered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                remembered.get(&(name.clone(), family)).copied()
            }
            _ => None,
        };
        let elsewhere = remembered.is_some_and(|(_, at)| at != probe.to);
        let remembered = remembered.map(|(by, _)| by);
        let means_nothing = match packet.expect {
            Expect::Same(_) => leeway.affinity_by_address && elsewhere,
            Expect::OtherThan(_) => leeway.longer_affinity,
            _ => false,
        };
        if means_nothing || leeway.ended_flow {
            return Ok(());
        }
        let masquerade = packet.masq.filter(|_| !leeway.any_source);
        let mut outcomes = Vec::new();
        for round in 0..MAX_ROUNDS {
            let sent = if packet.flow.is_some() {
                vec![self.send_on_flow(packet, &probe, family, leeway)?]
            } else {
                self.send(packet, &probe, round)?
            };
            outcomes.extend(sent.into_iter().map(|outcome| leeway.taken(outcome)));
            let enough = judge(&packet.expect, &outcomes, probe.to, remembered)
                .map_err(anyhow::Error::msg)?;
            for outcome in &outcomes {
                if let Outcome::Answered(answer) = outcome {
                    if let Some(wrong) = wrong_source(answer, masquerade, packet.flow.is_some()) {
                        bail!(wrong);
                    }
                    if answer.bytes != probe.bytes {
                        bail!("{} of {} bytes arrived", answer.bytes, probe.bytes);
                    }
                }
            }
            let enough = enough || leeway.fewer_endpoints;
            let alone = matches!(packet.expect, Expect::OneOf { .. }) && round == 0;
            if enough && !alone {
                if let (
                    Expect::OneOf {
                        remember: Some(name),
                        ..
                    },
                    Some(Outcome::Answered(answer)),
                ) = (&packet.expect, outcomes.first())
                {
                    let mut remembered = self
                        .remembered
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    remembered.insert((name.clone(), family), (answer.by, probe.to));
                }
                return Ok(());
            }
        }
        let hit: BTreeSet<String> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Answered(answer) => Some(answer.by.to_string()),
                _ => None,
            })
            .collect();
        bail!("after {} packets only {hit:?} answered", outcomes.len())
    }

    fn send(&self, packet: &PacketSpec, probe: &Probe, round: usize) -> Result<Vec<Outcome>> {
        let count = match packet.expect {
            Expect::Drop | Expect::Reject => PACKETS_IN_VAIN,
            // The first decides where the others must go; it may not race with them.
            Expect::OneOf { .. } if round == 0 => 1,
            Expect::OtherThan(_) => 1,
            _ => PACKETS_A_ROUND,
        };
        self.bed.probe_all(&vec![probe.clone(); count])
    }

    fn send_on_flow(
        &self,
        packet: &PacketSpec,
        probe: &Probe,
        family: Family,
        leeway: Leeway,
    ) -> Result<Outcome> {
        let flows = || self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (packet.flow.clone().unwrap_or_default(), family);
        let known = flows().remove(&key);
        let had_one = known.is_some();
        let mut connection = match known {
            Some(connection) => connection,
            None => match self.bed.try_connect(probe)? {
                Ok(connection) => connection,
                Err(outcome) => return Ok(outcome),
            },
        };
        let mut outcome = connection.ask(self.bed, probe.timeout)?;
        if outcome == Outcome::Destroyed && leeway.new_socket && had_one {
            // The kernel chooses the new socket's port: a client that connects anew does so too.
            drop(connection);
            connection = match self.bed.try_connect(probe)? {
                Ok(connection) => connection,
                Err(outcome) => return Ok(outcome),
            };
            outcome = connection.ask(self.bed, probe.timeout)?;
        }
        flows().insert(key, connection);
        Ok(outcome)
    }
}

fn probe_of(packet: &PacketSpec, family: Family) -> Probe {
    let mut probe = Probe::new(packet.from, packet.proto, family.twin_socket(packet.to));
    probe.source = packet
        .source
        .map(|address| SocketAddr::new(family.twin(address), 0));
    probe.bytes = packet.bytes;
    match (&packet.expect, packet.proto) {
        (Expect::Drop, Protocol::Tcp) => probe.timeout = DROP_TIMEOUT_TCP,
        (_, Protocol::Udp) => probe.timeout = DROP_TIMEOUT_UDP,
        _ => {}
    }
    probe
}
