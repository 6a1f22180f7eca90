//! Rounds in which every server is asked the same, one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::client::Client;
use super::cluster::Service;
use super::cpus::Cpus;
use super::dnsperf::{self, Count, Pace};
use super::workload::{Query, Workload, dnsperf_lines, queries};
use crate::process::Process;

/// Queries of each list whose answers are compared before anything is measured.
const COMPARED: usize = 100;
const COMPARE_TIMEOUT: Duration = Duration::from_secs(2);
/// More lost than this, per thousand, at a steady pace is said loudly.
const NOTABLE_LOSS_PER_MILLE: u64 = 1;

/// A server that takes part.
#[derive(Clone, Copy)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) process: Process,
    /// Names of the cluster.
    pub(super) cluster: bool,
    /// Names outside.
    pub(super) outside: bool,
    /// Whether it answers at all, rather than echoes.
    pub(super) answers: bool,
}

impl Contender {
    const fn takes(&self, workload: Workload) -> bool {
        match workload {
            Workload::Outside => self.outside,
            // One list is as good as another to who does not look.
            Workload::ClusterA => self.cluster,
            _ if !self.answers => false,
            _ => self.cluster,
        }
    }
}

/// One run of dnsperf, and what it cost the server.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) count: Count,
    pub(super) cpu_per_query: Duration,
}

/// What is measured, of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) pace: Pace,
    pub(super) workload: Workload,
    pub(super) name: &'static str,
}

/// All samples of all rounds.
pub(super) type Samples = BTreeMap<Key, Vec<Sample>>;

/// How much is measured.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    pub(super) rounds: usize,
    pub(super) time: Duration,
}

/// The lists of queries, as data and as dnsperf's files.
pub(super) struct Lists(Vec<(Workload, Vec<Query>, PathBuf)>);

impl Lists {
    pub(super) fn write(work: &Path, services: &[Service]) -> Result<Self> {
        let mut all = Vec::new();
        for (number, workload) in Workload::ALL.into_iter().enumerate() {
            let list = queries(workload, services);
            let path = work.join(format!("queries-{number}"));
            fs::write(&path, dnsperf_lines(&list))?;
            all.push((workload, list, path));
        }
        Ok(Self(all))
    }

    /// The queries of one workload.
    pub(super) fn of(&self, workload: Workload) -> Result<&[Query]> {
        let found = self.0.iter().find(|(of, _, _)| *of == workload);
        Ok(&found.context("no such list")?.1)
    }

    /// dnsperf's file of one workload.
    pub(super) fn file(&self, workload: Workload) -> Result<&Path> {
        let found = self.0.iter().find(|(of, _, _)| *of == workload);
        Ok(&found.context("no such list")?.2)
    }
}

/// Fails where two servers do not answer the same: then their costs can't be compared.
///
/// # Errors
/// The first question that is answered differently.
pub(super) fn compare(contenders: &[Contender], lists: &Lists) -> Result<()> {
    for workload in Workload::ALL {
        let all: Vec<&Contender> = contenders
            .iter()
            .filter(|contender| contender.answers && contender.takes(workload))
            .collect();
        for query in lists.of(workload)?.iter().take(COMPARED) {
            let mut first = None;
            for contender in &all {
                let mut client = Client::new(contender.address, COMPARE_TIMEOUT)?;
                let reply = client.ask(query)?;
                let reply = reply.map(|reply| (reply.rcode, reply.answers));
                let (by, expected) = *first.get_or_insert((contender.name, reply));
                if reply.is_none() || reply != expected {
                    bail!(
                        "{} {} ({workload}): {by} says {expected:?}, {} says {reply:?} \
                         (response code, answers)",
                        query.name,
                        query.rtype,
                        contender.name
                    );
                }
            }
        }
    }
    Ok(())
}

/// Measures everything, in interleaved rounds.
///
/// # Errors
/// dnsperf fails, or a server answers with a code it must not.
pub(super) fn run(
    cpus: Cpus,
    contenders: &[Contender],
    lists: &Lists,
    paces: &[Pace],
    effort: Effort,
) -> Result<Samples> {
    let mut samples = Samples::new();
    for round in 0..effort.rounds {
        println!("round {} of {}", round + 1, effort.rounds);
        for contender in contenders.iter().filter(|contender| contender.outside) {
            // Caches forget within a round.
            let outside = lists.file(Workload::Outside)?;
            dnsperf::ask_once(cpus, contender.address, outside)
                .with_context(|| format!("{}: outside names", contender.name))?;
        }
        for (workload, pace) in pairs(paces) {
            let mut taking_part: Vec<&Contender> = contenders
                .iter()
                .filter(|contender| contender.takes(workload))
                .collect();
            // Nobody is always first.
            let turn = round.checked_rem(taking_part.len()).unwrap_or(0);
            taking_part.rotate_left(turn);
            for contender in taking_part {
                let file = lists.file(workload)?;
                let sample = measure(cpus, contender, workload, file, pace, effort.time)
                    .with_context(|| format!("{}: {workload}", contender.name))?;
                let key = Key {
                    pace,
                    workload,
                    name: contender.name,
                };
                samples.entry(key).or_default().push(sample);
            }
        }
    }
    Ok(samples)
}

fn pairs(paces: &[Pace]) -> impl Iterator<Item = (Workload, Pace)> {
    Workload::ALL
        .into_iter()
        .flat_map(move |workload| paces.iter().map(move |&pace| (workload, pace)))
}

fn measure(
    cpus: Cpus,
    contender: &Contender,
    workload: Workload,
    file: &Path,
    pace: Pace,
    time: Duration,
) -> Result<Sample> {
    let before = contender.process.cpu_exact()?;
    let count = dnsperf::ask(cpus, contender.address, file, pace, time)?;
    let cpu = contender.process.cpu_exact()?.saturating_sub(before);
    if let Some(expected) = workload.rcode()
        && let Some((other, number)) = count.rcodes.iter().find(|(code, _)| code != expected)
    {
        bail!("{number} answers were {other}, not {expected}");
    }
    if pace != Pace::Full && count.lost * 1000 > count.sent * NOTABLE_LOSS_PER_MILLE {
        println!(
            "  {}: {workload}: {} of {} lost at a steady pace",
            contender.name, count.lost, count.sent
        );
    }
    let completed = u32::try_from(count.completed)?;
    Ok(Sample {
        cpu_per_query: cpu.checked_div(completed).context("nothing answered")?,
        count,
    })
}
