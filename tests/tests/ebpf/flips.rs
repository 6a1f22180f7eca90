//! Readers that hammer one Service while its whole endpoint set flips.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use switchyard_tests::cases::{ServiceSpec, expand_service, node_objects};
use switchyard_tests::testbed::{
    Api, Family, Outcome, Place, Probe, Protocol, Proxy, Testbed, wait_for,
};

use super::clients::{ask_tcp, ask_udp, is_destroyed, spawn_in};
use super::stage::{ANSWER_TIMEOUT, POLL, SOON, Stage, VIP, cluster_ip_service, marker};

const SETS: [[&str; 2]; 2] = [
    ["10.244.1.31", "10.244.2.51"],
    ["10.244.1.32", "10.244.2.52"],
];
const FLIPS: usize = 10_000;
/// After so many the proxy is waited for. Odd, so that each set has its turn.
const CONFIRM_EVERY: usize = 25;
/// Between two changes, so that most of them are written one by one.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a confirmed set stands, so that readers have something to say about it.
const STANDS: Duration = Duration::from_millis(10);
const READERS_OF_EACH: usize = 2;
const MAX_FAULTS_KEPT: usize = 10;
/// Readers nobody stops end by themselves.
const MAX_DURATION: Duration = Duration::from_secs(300);
const SYNCS: &str = "kubeproxy_sync_proxy_rules_duration_seconds_count";

/// Which set alone is in the kernel, as far as is known: 4 x a serial number, plus 0 while it
/// changes, 1 for the first set, 2 for the second. So no two times look alike.
#[derive(Default)]
struct Epoch(AtomicUsize);

impl Epoch {
    fn next(&self, set: Option<usize>) {
        let serial = self.now() / 4 + 1;
        let state = set.map_or(0, |set| set + 1);
        self.0.store(serial * 4 + state, Ordering::SeqCst);
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn set(now: usize) -> Option<usize> {
        (now % 4).checked_sub(1)
    }
}

/// What one reader saw.
#[derive(Default)]
struct Seen {
    answers: usize,
    /// Answers to requests that began and ended while one set alone stood.
    judged_by_set: usize,
    destroyed: usize,
    by: BTreeMap<IpAddr, usize>,
    faults: Vec<String>,
}

impl Seen {
    fn note(&mut self, what: &str, epochs: [usize; 2], answer: io::Result<SocketAddr>) {
        let by = match answer {
            Ok(by) => by.ip(),
            Err(error) if what == "udp" && is_destroyed(&error) => {
                self.destroyed += 1;
                return;
            }
            Err(error) => return self.fault(format!("{what}: {error}")),
        };
        self.answers += 1;
        *self.by.entry(by).or_default() += 1;
        let set = SETS
            .iter()
            .position(|set| set.iter().any(|own| own.parse() == Ok(by)));
        let Some(set) = set else {
            return self.fault(format!("{what}: {by} is in neither set"));
        };
        let [before, after] = epochs;
        if let Some(alone) = Epoch::set(before)
            && before == after
        {
            self.judged_by_set += 1;
            if alone != set {
                self.fault(format!("{what}: {by} of the old set after the flip"));
            }
        }
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < MAX_FAULTS_KEPT {
            self.faults.push(fault);
        }
    }
}

struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Readers {
    fn start(bed: &Testbed, epoch: &Arc<Epoch>) -> Result<Self> {
        let mut readers = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        type Ask = fn(SocketAddr) -> io::Result<SocketAddr>;
        let kinds: [(&'static str, u16, Ask); 2] = [("tcp", 80, ask_tcp), ("udp", 53, ask_udp)];
        for (what, port, ask) in kinds.into_iter().cycle().take(2 * READERS_OF_EACH) {
            let to = SocketAddr::new(VIP.parse()?, port);
            let (stop, epoch) = (readers.stop.clone(), epoch.clone());
            let began = Instant::now();
            readers.threads.push(spawn_in(bed, Place::Pod12, move || {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) && began.elapsed() < MAX_DURATION {
                    let before = epoch.now();
                    let answer = ask(to);
                    seen.note(what, [before, epoch.now()], answer);
                }
                seen
            })?);
        }
        Ok(readers)
    }

    fn stop(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads.drain(..) {
            let seen = thread.join().map_err(|_| anyhow!("a reader panicked"))?;
            all.answers += seen.answers;
            all.judged_by_set += seen.judged_by_set;
            all.destroyed += seen.destroyed;
            all.faults.extend(seen.faults);
            for (by, count) in seen.by {
                *all.by.entry(by).or_default() += count;
            }
        }
        Ok(all)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// New TCP and UDP sockets see only what stands in whole sets: every answer comes from one of them, none is
/// lost or refused, and once a flip is known to be done nobody meets the old set again.
#[test]
fn readers_see_only_whole_sets_while_endpoints_flip() -> Result<()> {
    let stage = Stage::new()?;
    for set in SETS {
        stage.serve(&set)?;
    }
    // Thousands of short connections to four addresses: their ports must be free again soon.
    stage.bed.in_place(Place::Pod12, || {
        std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")
    })??;
    let api = Api::start(&stage.bed, Place::Node1)?;
    api.set(node_objects())?;
    api.set(expand_service("main", &service(1)?, &[Family::IPv4])?)?;
    api.set(marker(0)?)?;
    let mut options = stage.options()?;
    api.serves(&mut options);
    let proxy = Proxy::start(&stage.bed, options)?;
    stage.wait_for_generation(0)?;
    let syncs_before = syncs(&proxy.metrics(&stage.bed)?);
    let epoch = Arc::new(Epoch::default());
    let readers = Readers::start(&stage.bed, &epoch)?;
    let mut generation = 0;
    for flip in 0..FLIPS {
        let set = flip % 2;
        epoch.next(None);
        api.set(slice_of(&service(set)?)?)?;
        if flip % CONFIRM_EVERY != CONFIRM_EVERY - 1 {
            std::thread::sleep(PAUSE);
            continue;
        }
        // What is in the kernel together with this marker is the last flip.
        generation += 1;
        api.set(marker(generation)?)?;
        stage
            .wait_for_generation(generation)
            .and_then(|()| wait_for_set(&stage, set))
            .with_context(|| format!("flip {flip}; log:\n{}", proxy.log_tail(20)))?;
        epoch.next(Some(set));
        std::thread::sleep(STANDS);
    }
    let seen = readers.stop()?;
    let syncs = syncs(&proxy.metrics(&stage.bed)?) - syncs_before;
    let log = proxy.log_tail(20);
    drop(proxy);
    api.stop()?;
    println!(
        "{FLIPS} flips asked for, {generation} waited for, {syncs} syncs; {} answers, {} of them while one \
         set stood alone, {} UDP sockets destroyed, by endpoint: {:?}",
        seen.answers, seen.judged_by_set, seen.destroyed, seen.by
    );
    ensure!(
        seen.faults.is_empty(),
        "{}\nlog:\n{}",
        seen.faults.join("\n"),
        log
    );
    ensure!(
        seen.judged_by_set > generation,
        "the readers saw too little"
    );
    ensure!(
        seen.by.len() == 4,
        "not every endpoint answered: {:?}",
        seen.by
    );
    Ok(())
}

fn service(set: usize) -> Result<ServiceSpec> {
    cluster_ip_service(VIP, &SETS[set])
}

/// The slice alone: one change flips TCP and UDP.
fn slice_of(spec: &ServiceSpec) -> Result<Vec<Value>> {
    let mut objects = expand_service("main", spec, &[Family::IPv4])?;
    objects.retain(|object| object["kind"] == "EndpointSlice");
    Ok(objects)
}

/// Waits until new TCP and UDP sockets meet this set.
fn wait_for_set(stage: &Stage, set: usize) -> Result<()> {
    let probes = [(Protocol::Tcp, 80), (Protocol::Udp, 53)]
        .into_iter()
        .map(|(protocol, port)| {
            let to = SocketAddr::new(VIP.parse()?, port);
            Ok(Probe::new(Place::Pod12, protocol, to).timeout(ANSWER_TIMEOUT))
        })
        .collect::<Result<Vec<Probe>>>()?;
    let mut last = Vec::new();
    wait_for("the flip", SOON, POLL, || {
        last = stage.bed.probe_all(&probes)?;
        Ok(last.iter().all(|outcome| {
            matches!(outcome, Outcome::Answered(answer)
                if SETS[set].iter().any(|own| own.parse() == Ok(answer.by.ip())))
        }))
    })
    .with_context(|| format!("{last:?}"))
}

/// How often the proxy has written to the kernel, over both families.
fn syncs(metrics: &str) -> f64 {
    metrics
        .lines()
        .filter(|line| line.starts_with(SYNCS))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
