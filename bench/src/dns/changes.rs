//! Memory, start and changes of a server that follows an API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use switchyard_tests::testbed::wait_for;

use super::api::{Editor, write_kubeconfig};
use super::client::{Client, Reply};
use super::cluster::{self, Service};
use super::relay::Relay;
use super::subject::{Program, Sources, Subject};
use super::workload::{Query, Workload};
use super::{Bed, mebibytes};

/// New Services, one after the other, whose median and worst are reported.
const NEW_SERVICES: usize = 50;
/// Pause before each: changes come one by one, not as a batch.
const BEFORE_NEW_SERVICE: Duration = Duration::from_millis(40);
/// A change that takes longer has failed.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// From the start until it says that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(120);
const POLL_READY: Duration = Duration::from_millis(2);
/// After the start, before memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// Changes a second, while latency is looked at.
const CHANGES_PER_S: u32 = 1000;
/// How long latency is looked at.
const PROBING: Duration = Duration::from_secs(5);
/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Numbers of Services that the bench adds; the cluster's own are below.
const FIRST_NEW: usize = 50_001;

/// Measures one program from its start; the table as Markdown.
pub(super) fn measure(bed: &Bed<'_>, program: &Program) -> Result<String> {
    println!("{}: start and changes", program.name);
    let relay = Relay::start(bed.cpus, bed.api()?.address())?;
    let kubeconfig = write_kubeconfig(bed.work, "kubeconfig-relayed", relay.address)?;
    let sources = Sources {
        kubeconfig: &kubeconfig,
        outside: bed.outside.address,
        silent: None,
    };
    let mut subject = Subject::start(bed.cpus, program, bed.work, sources)?;
    let last = bed.last_query()?;
    let mut client = Client::new(subject.server.address, PROBE_TIMEOUT)?;
    wait_for("ready, and an answer", READY_LIMIT, POLL_READY, || {
        subject.server.check()?;
        Ok(subject.is_ready() && client.ask(&last)?.is_some_and(Reply::has_answer))
    })?;
    let ready = Instant::now();
    let (arrived, bytes) = relay.list_arrived().context("no list came")?;
    std::thread::sleep(SETTLE);
    let process = subject.server.process();
    let (rss, peak) = (process.rss_kib()?, process.peak_rss_kib()?);
    let new = new_services(bed, subject.server.address)?;
    let latency = under_changes(bed, subject.server.address)?;
    let rows = [
        (
            "from its start to ready",
            ms(ready - subject.server.started()),
        ),
        (
            "from the list's arrival to ready",
            ms(ready.saturating_duration_since(arrived)),
        ),
        ("the list", format!("{} KiB", bytes / 1024)),
        ("RSS once ready", format!("{} MiB", mebibytes(rss))),
        ("the most until then", format!("{} MiB", mebibytes(peak))),
        (
            "a new Service answered, from its POST: median",
            ms(new.median),
        ),
        (
            "the same, from the answer to the POST: median",
            ms(new.after_median),
        ),
        (
            "a new Service answered, from its POST: worst",
            ms(new.worst),
        ),
        (
            "p50 / p99 / worst latency, nothing changes",
            latency.idle.shown(),
        ),
        (
            "the same, of a socket that echoes",
            latency.idle_echo.shown(),
        ),
        (
            "p50 / p99 / worst latency while endpoints change",
            latency.busy.shown(),
        ),
        (
            "the same, of a socket that echoes",
            latency.busy_echo.shown(),
        ),
        (
            "changes made then",
            format!("{:.0} a second", latency.changes_per_s),
        ),
        (
            "RSS after them",
            format!("{} MiB", mebibytes(process.rss_kib()?)),
        ),
        (
            "the most until then",
            format!("{} MiB", mebibytes(process.peak_rss_kib()?)),
        ),
    ];
    let mut table = format!("| start and changes | {} |\n|---|---:|\n", program.name);
    for (name, value) in rows {
        table += &format!("| {name} | {value} |\n");
    }
    Ok(table)
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

struct New {
    median: Duration,
    after_median: Duration,
    worst: Duration,
}

/// Adds Services, asks for each until it is answered, and removes them.
fn new_services(bed: &Bed<'_>, server: SocketAddr) -> Result<New> {
    let mut editor = Editor::connect(bed.api()?.address())?;
    let mut client = Client::new(server, PROBE_TIMEOUT)?;
    let (mut took, mut after) = (Vec::new(), Vec::new());
    for number in (FIRST_NEW..)
        .filter(|number| number % 10 != 9)
        .take(NEW_SERVICES)
    {
        std::thread::sleep(BEFORE_NEW_SERVICE);
        let service = cluster::service(number, Vec::new())?;
        let query = Query {
            name: service.domain(),
            rtype: "A",
        };
        if client.ask(&query)?.is_none_or(|reply| reply.rcode != 3) {
            bail!("{} is answered before it is there", query.name);
        }
        let path = format!("/api/v1/namespaces/{}/services", service.namespace);
        let start = Instant::now();
        editor.send("POST", &path, &service.object())?;
        let posted = start.elapsed();
        while client.ask(&query)?.is_none_or(|reply| !reply.has_answer()) {
            if start.elapsed() > CHANGE_LIMIT {
                bail!("{} was not answered after {CHANGE_LIMIT:?}", query.name);
            }
        }
        took.push(start.elapsed());
        after.push(start.elapsed().saturating_sub(posted));
        editor.send(
            "DELETE",
            &format!("{path}/{}", service.name),
            &serde_json::json!({}),
        )?;
    }
    took.sort();
    after.sort();
    Ok(New {
        median: at(&took, 50),
        after_median: at(&after, 50),
        worst: at(&took, 100),
    })
}

/// A percentile of sorted durations.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

/// Percentiles of latency.
struct Latency {
    p50: Duration,
    p99: Duration,
    worst: Duration,
}

impl Latency {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        Self {
            p50: at(&all, 50),
            p99: at(&all, 99),
            worst: at(&all, 100),
        }
    }

    fn shown(&self) -> String {
        format!("{} / {} / {}", ms(self.p50), ms(self.p99), ms(self.worst))
    }
}

struct UnderChanges {
    idle: Latency,
    idle_echo: Latency,
    busy: Latency,
    busy_echo: Latency,
    changes_per_s: f64,
}

/// Latency while nothing happens, and while endpoints change. A socket that echoes, beside the
/// server on its CPU, tells how much of it is the machine's.
fn under_changes(bed: &Bed<'_>, server: SocketAddr) -> Result<UnderChanges> {
    let queries = bed.lists.of(Workload::ClusterA)?;
    let echo = bed.start_echo()?;
    let (idle, idle_echo) = probe(server, echo.address, queries)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut editor = Editor::connect(bed.api()?.address())?;
    let headless = bed.services.iter().filter(|service| service.is_headless());
    let headless: Vec<Service> = headless.cloned().collect();
    let changer = std::thread::spawn(move || change(&mut editor, &headless, &stopped));
    let probed = probe(server, echo.address, queries);
    stop.store(true, Ordering::Relaxed);
    let changed = changer.join();
    let (busy, busy_echo) = probed?;
    let Ok(changed) = changed else {
        bail!("the thread that makes changes failed");
    };
    Ok(UnderChanges {
        idle,
        idle_echo,
        busy,
        busy_echo,
        changes_per_s: changed?,
    })
}

/// Changes endpoints of headless Services at [`CHANGES_PER_S`]; returns how many a second.
fn change(editor: &mut Editor, headless: &[Service], stop: &AtomicBool) -> Result<f64> {
    let start = Instant::now();
    let mut made = 0;
    let mut targets = headless.iter().cycle();
    while !stop.load(Ordering::Relaxed) {
        let service = targets.next().context("no headless Service")?;
        let mut endpoints = service.endpoints.clone();
        // Another address in each turn.
        if let Some(first) = endpoints.first_mut() {
            *first = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 250, 0, 0)) + (made & 0xffff));
        }
        let object = service.slice(0, endpoints.get(..endpoints.len().min(100)).unwrap_or(&[]));
        editor.send("PUT", &service.slice_path(0), &object)?;
        made += 1;
        let due = start + Duration::from_secs(1) / CHANGES_PER_S * made;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(f64::from(made) / start.elapsed().as_secs_f64())
}

/// Asks the server and the echo in turn, each at its time; latency is counted from that time,
/// so that a pause of the server costs all queries that fall into it.
fn probe(server: SocketAddr, echo: SocketAddr, queries: &[Query]) -> Result<(Latency, Latency)> {
    let mut clients = [
        Client::new(server, PROBE_TIMEOUT)?,
        Client::new(echo, PROBE_TIMEOUT)?,
    ];
    let mut took = [Vec::new(), Vec::new()];
    let start = Instant::now();
    let mut due = start;
    for query in queries.iter().cycle() {
        for (client, took) in clients.iter_mut().zip(&mut took) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if client.ask(query)?.is_none() {
                bail!("no answer within {PROBE_TIMEOUT:?}: {}", query.name);
            }
            took.push(due.elapsed());
            due += PROBE_EVERY;
        }
        if start.elapsed() > PROBING {
            break;
        }
    }
    let [server, echo] = took;
    Ok((Latency::of(server), Latency::of(echo)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_values_exist() {
        let all: Vec<Duration> = (1..=50).map(Duration::from_millis).collect();
        assert_eq!(at(&all, 50), Duration::from_millis(26));
        assert_eq!(at(&all, 100), Duration::from_millis(50));
        assert_eq!(at(&all[..1], 99), Duration::from_millis(1));
        assert_eq!(at(&[], 99), Duration::ZERO);
    }
}
