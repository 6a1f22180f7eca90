//! SIGKILL at each step of what the proxy does to the kernel's BPF, then a restart: it converges,
//! no connection is lost, and what was programmed goes on in between.
//!
//! Steps are system calls. What is written through memory (blocks of Services, and the words that
//! say which is in force) stands between two of them: a kill before the second finds it done.
//! Devices are attached to by links here; filters of traffic control (Linux before 6.6) are set by
//! netlink, which is no step.
//!
//! Of starts, restarts and growth, which have some hundred steps, only some of each kind are tried,
//! unless `SWITCHYARD_EVERY_STEP` is in the environment.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use switchyard_tests::cases::{IngressSpec, ServiceSpec, expand_service, node_objects};
use switchyard_tests::testbed::{
    Connection, Family, Outcome, Place, Probe, Protocol, Proxy, wait_for,
};

use super::contents::Contents;
use super::stage::{
    ANSWER_TIMEOUT, ENDPOINTS, FAMILIES, POLL, SOON, Stage, TCP_NODE_PORT, TCP_TARGET, VIP,
    main_service, marker,
};
use super::steps::{Fault, Follower, Step, all, chosen, run_until_killed, spawn};

pub(super) const CLIENTS: [Place; 3] = [Place::Pod12, Place::Node1, Place::Client];
/// What a changed main Service has in place of [`ENDPOINTS`].
const OTHER: &str = "10.244.2.52";
/// So long nothing happens after a change: what follows it (housekeeping) is over.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// More source ranges than maps of the usual size have room for.
const MANY_RANGES: u32 = 600;

/// What the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cluster {
    /// One Service.
    Usual,
    /// It has another endpoint, and there is a further Service.
    Changed,
    /// There is a further Service for which the maps are too small.
    Large,
}

impl Cluster {
    const fn generation(self) -> usize {
        match self {
            Self::Usual => 0,
            Self::Changed | Self::Large => 1,
        }
    }

    pub(super) fn endpoints(self) -> &'static [&'static str] {
        match self {
            Self::Changed => &[OTHER],
            Self::Usual | Self::Large => &ENDPOINTS,
        }
    }

    /// Lays it down for the proxy.
    pub(super) fn put(self, stage: &Stage) -> Result<()> {
        let mut objects = node_objects();
        let (name, spec) = main_service(self.endpoints())?;
        objects.extend(expand_service(&name, &spec, &FAMILIES)?);
        objects.extend(marker(self.generation())?);
        match self {
            Self::Usual => {}
            Self::Changed => objects.extend(with_ranges(2)?),
            Self::Large => objects.extend(with_ranges(MANY_RANGES)?),
        }
        stage.manifests.replace(&objects)
    }

    /// Waits until the programs know it.
    pub(super) fn wait_for(self, stage: &Stage) -> Result<()> {
        stage.wait_for_generation(self.generation())
    }

    /// Lays it down again for a proxy that serves `now`, and waits until the programs know it.
    pub(super) fn come_back(self, stage: &Stage, mut proxy: Proxy, now: Self) -> Result<Proxy> {
        self.put(stage)?;
        if now == Self::Large {
            // Maps that have grown stay large.
            proxy.kill()?;
            return stage.start();
        }
        self.wait_for(stage)?;
        Ok(proxy)
    }

    /// What the maps hold after a start from nothing, which is then taken away again.
    pub(super) fn contents(self, stage: &Stage) -> Result<Contents> {
        self.put(stage)?;
        let mut proxy = stage.start()?;
        let contents = Contents::read(stage)?;
        proxy.kill()?;
        stage.cleanup()?;
        Ok(contents)
    }

    /// Fails unless a proxy that runs serves this cluster, by maps that hold what `contents` says.
    pub(super) fn expect(self, stage: &Stage, contents: &Contents) -> Result<()> {
        stage.expect_answers(&CLIENTS, self.endpoints())?;
        let now = Contents::read(stage)?;
        ensure!(
            now == *contents,
            "the maps hold\n{now:#?}\nand after a start from nothing\n{contents:#?}"
        );
        Ok(())
    }
}

/// A Service with all kinds of addresses, and so many source ranges.
fn with_ranges(count: u32) -> Result<Vec<Value>> {
    let range = |number: u32| format!("198.51.{}.{}/32", number / 250, number % 250);
    let spec = ServiceSpec {
        kind: Some("LoadBalancer".to_owned()),
        cluster_ip: Some("10.96.5.9".to_owned()),
        ports: vec![format!("80->{TCP_TARGET} node=30509").parse()?],
        load_balancer: vec![IngressSpec::Address("203.0.113.9".parse()?)],
        source_ranges: (0..count).map(range).collect(),
        endpoints: Some(vec![OTHER.parse()?]),
        ..ServiceSpec::default()
    };
    expand_service("further", &spec, &[Family::IPv4])
}

/// Connections that were opened once, and are to live on.
pub(super) struct Open(Vec<(Probe, Connection)>);

impl Open {
    /// From a pod by the socket, from outside by the devices; in both families.
    pub(super) fn new(stage: &Stage) -> Result<Self> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let vip = SocketAddr::new(family.twin(VIP.parse()?), 80);
            let node_port = SocketAddr::new(Place::Node1.address(family), TCP_NODE_PORT);
            for (place, to) in [(Place::Pod12, vip), (Place::Client, node_port)] {
                let probe = Probe::new(place, Protocol::Tcp, to).timeout(ANSWER_TIMEOUT);
                let connection = stage.bed.connect(&probe)?;
                all.push((probe, connection));
            }
        }
        Ok(Self(all))
    }

    /// Fails unless all of them answer, and new ones like them too.
    pub(super) fn expect(&self, stage: &Stage) -> Result<()> {
        for (probe, connection) in &self.0 {
            let outcomes = [
                ("open", connection.ask(&stage.bed, ANSWER_TIMEOUT)?),
                ("new", stage.bed.probe(probe)?),
            ];
            for (which, outcome) in outcomes {
                let right = matches!(&outcome, Outcome::Answered(answer)
                    if answer.place != Place::Fabric.name());
                let (from, to) = (probe.from, probe.to);
                ensure!(right, "{which} connection {from} -> {to}: {outcome}");
            }
        }
        Ok(())
    }
}

pub(super) fn stage() -> Result<Stage> {
    let stage = Stage::new()?;
    stage.serve(&[OTHER])?;
    Ok(stage)
}

pub(super) fn is_healthy(stage: &Stage) -> impl Fn(&Proxy) -> Result<bool> {
    |proxy| {
        Ok(proxy
            .healthz(&stage.bed)
            .is_ok_and(|answer| answer.status == 200))
    }
}

/// Starts the proxy as after a crash, and lets `expect` look at it; then it is killed.
fn restart(stage: &Stage, expect: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut proxy = stage.start()?;
    expect().with_context(|| format!("the log ends:\n{}", proxy.log_tail(20)))?;
    proxy.kill()
}

#[test]
fn at_any_step_of_a_start() -> Result<()> {
    let stage = stage()?;
    let usual = Cluster::Usual.contents(&stage)?;
    let (_, report) = run_until_killed(&stage, None, &[], is_healthy(&stage))?;
    let steps = report.steps()?;
    stage.cleanup()?;
    for step in chosen(&steps) {
        let (killed, report) = run_until_killed(&stage, Some(step), &[], is_healthy(&stage))?;
        ensure!(killed, "not killed at step {step} of {}", steps.len());
        restart(&stage, || Cluster::Usual.expect(&stage, &usual))
            .with_context(|| format!("after a kill at step {step}: {}", report.tail()))?;
        stage.cleanup()?;
    }
    Ok(())
}

/// The chosen steps without those of loading a set that nobody uses yet, which are as at a start.
fn chosen_after_loading(steps: &[Step]) -> Vec<usize> {
    let loading = ["BTF_LOAD", "MAP_CREATE", "MAP_FREEZE"];
    let mut chosen = chosen(steps);
    if chosen.len() < steps.len() {
        chosen.retain(|step| !loading.contains(&steps[step - 1].name.as_str()));
    }
    chosen
}

#[test]
fn at_any_step_of_a_restart() -> Result<()> {
    let stage = stage()?;
    let usual = Cluster::Usual.contents(&stage)?;
    let mut proxy = stage.start()?;
    let open = Open::new(&stage)?;
    proxy.kill()?;
    let (_, report) = run_until_killed(&stage, None, &[], is_healthy(&stage))?;
    let steps = report.steps()?;
    for step in chosen_after_loading(&steps) {
        let (killed, report) = run_until_killed(&stage, Some(step), &[], is_healthy(&stage))?;
        ensure!(killed, "not killed at step {step} of {}", steps.len());
        let what = || format!("a kill at step {step}: {}", report.tail());
        open.expect(&stage)
            .with_context(|| format!("dead after {}", what()))?;
        restart(&stage, || {
            open.expect(&stage)?;
            Cluster::Usual.expect(&stage, &usual)
        })
        .with_context(|| format!("started again after {}", what()))?;
    }
    Ok(())
}

/// Has a proxy make the change `to` under a fault, and ends it if it has not ended by itself: true if
/// it had. Also, what it did until then.
fn change(
    stage: &Stage,
    mut proxy: Proxy,
    to: Cluster,
    fault: &Fault,
) -> Result<(bool, Vec<Step>)> {
    std::thread::sleep(QUIET);
    let follower = Follower::start(stage, &proxy, fault)?;
    to.put(stage)?;
    let mut made = None;
    wait_for("the step, or the change", SOON, POLL, || {
        if proxy.has_ended()?.is_some() {
            return Ok(true);
        }
        if made.is_none() && stage.is_generation(to.generation())? {
            made = Some(Instant::now());
        }
        Ok(made.is_some_and(|made| made.elapsed() >= QUIET))
    })?;
    let has_ended = proxy.has_ended()?.is_some();
    proxy.kill()?;
    Ok((has_ended, follower.steps()?))
}

fn at_steps_of_change(
    (from, to): (Cluster, Cluster),
    choose: impl Fn(&[Step]) -> Vec<usize>,
) -> Result<()> {
    let stage = stage()?;
    let wanted = to.contents(&stage)?;
    from.put(&stage)?;
    let mut proxy = stage.start()?;
    let open = Open::new(&stage)?;
    let both = [from.endpoints(), to.endpoints()].concat();
    let (_, steps) = change(&stage, proxy, to, &Fault::none())?;
    from.put(&stage)?;
    proxy = stage.start()?;
    ensure!(
        to != Cluster::Large || steps.iter().any(|step| step.name == "MAP_CREATE"),
        "no map is too small: {steps:?}"
    );
    let (chosen, mut kills) = (choose(&steps), 0);
    for step in &chosen {
        let (is_killed, done) = change(&stage, proxy, to, &Fault::kill_at(*step))?;
        kills += usize::from(is_killed);
        let what = || format!("a kill at step {step}: {:?}", done.last());
        let dead = || {
            open.expect(&stage)?;
            stage.expect_answers(&CLIENTS, &both)
        };
        dead().with_context(|| format!("dead after {}", what()))?;
        proxy = stage.start()?;
        open.expect(&stage)
            .and_then(|()| to.expect(&stage, &wanted))
            .with_context(|| format!("the log ends:\n{}", proxy.log_tail(20)))
            .with_context(|| format!("started again after {}", what()))?;
        proxy = from.come_back(&stage, proxy, to)?;
    }
    eprintln!("killed at {kills} of {} steps", steps.len());
    // Housekeeping may have had some steps more the first time.
    ensure!(
        kills > 0 && kills * 2 >= chosen.len(),
        "killed at {kills} of {chosen:?}, of {steps:?}"
    );
    Ok(())
}

#[test]
fn at_any_step_of_a_change_with_a_new_service() -> Result<()> {
    at_steps_of_change((Cluster::Usual, Cluster::Changed), all)
}

#[test]
fn at_any_step_of_a_change_with_a_removed_service() -> Result<()> {
    at_steps_of_change((Cluster::Changed, Cluster::Usual), all)
}

#[test]
fn at_any_step_of_growth() -> Result<()> {
    at_steps_of_change((Cluster::Usual, Cluster::Large), chosen_after_loading)
}

/// `--cleanup` under a fault, to its end.
fn clean_up(stage: &Stage, fault: &Fault) -> Result<Vec<Step>> {
    let (mut cleanup, report) = spawn(stage, fault, &["--cleanup"])?;
    cleanup.wait_exit(SOON)?;
    report.steps()
}

#[test]
fn at_any_step_of_a_cleanup() -> Result<()> {
    let stage = stage()?;
    let usual = Cluster::Usual.contents(&stage)?;
    let start = || restart(&stage, || Cluster::Usual.expect(&stage, &usual));
    start()?;
    let steps = clean_up(&stage, &Fault::none())?;
    for step in chosen(&steps) {
        start()?;
        clean_up(&stage, &Fault::kill_at(step))?;
        ensure!(
            !stage.pins()?.is_empty() || step + 3 > steps.len(),
            "nothing left at {step}"
        );
        // Either the proxy comes back, or the rest goes as well.
        start().with_context(|| format!("started after a kill at step {step}"))?;
        clean_up(&stage, &Fault::kill_at(step))?;
        stage.cleanup()?;
        let left = stage.pins()?;
        ensure!(
            left.is_empty(),
            "left after a kill at step {step}: {left:?}"
        );
        ensure!(!stage.roots.bpf.exists(), "the directory stays");
    }
    Ok(())
}
