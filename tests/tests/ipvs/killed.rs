//! A proxy that is killed between any two messages to the kernel: the next one makes it right.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{Backend, IngressSpec, ServiceSpec};
use switchyard_tests::testbed::{Outcome, Place, Probe, Protocol, Proxy, wait_for};

use super::stage::{ENDPOINTS, POLL, SOON, Stage, VIP, service};

/// Follows a proxy, and ends it in place of a message to netlink.
const PROGRAM: &str = env!("CARGO_BIN_EXE_kernel-steps");
/// How many of the messages it is killed at, spread over all of them.
const KILLS: usize = 3;
/// Nothing comes between two syncs but the next start.
const NO_PERIOD: &str = "--ipvs-sync-period=1h";

/// Two clusters with the Service of [`VIP`] in both: others' ports, addresses and endpoints come, go
/// and change from one to the other.
fn cluster(number: usize) -> Result<Vec<ServiceSpec>> {
    let other = |address: &str, endpoints: &[&str]| -> Result<ServiceSpec> {
        Ok(ServiceSpec {
            cluster_ip: Some(address.to_owned()),
            ..service(endpoints)?
        })
    };
    let balanced = |address: &str, external: &str, port: u16| -> Result<ServiceSpec> {
        Ok(ServiceSpec {
            kind: Some("LoadBalancer".to_owned()),
            ports: vec![format!("p80 80->8080/TCP node={port}").parse()?],
            load_balancer: vec![IngressSpec::Address(external.parse()?)],
            ..other(address, &ENDPOINTS[..1])?
        })
    };
    Ok(if number == 0 {
        vec![
            service(&ENDPOINTS)?,
            other("10.96.6.10", &ENDPOINTS[..1])?,
            balanced("10.96.6.20", "203.0.113.61", 30_601)?,
        ]
    } else {
        vec![
            service(&ENDPOINTS[1..])?,
            other("10.96.6.10", &ENDPOINTS[1..])?,
            balanced("10.96.6.30", "203.0.113.62", 30_602)?,
        ]
    })
}

/// All that stands in the kernel but what waits for the end of its connections.
fn standing(stage: &Stage) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for command in [
        "ipvsadm -Sn",
        "ipset save",
        "ip -o address show dev kube-ipvs0",
    ] {
        let shown = stage.run(command)?;
        let lines = shown.lines().map(str::trim);
        all.extend(
            lines
                .filter(|line| !line.ends_with("-w 0"))
                .map(str::to_owned),
        );
    }
    Ok(all)
}

/// Starts a proxy that is killed in place of this message, counted from 1, if there are so many;
/// else once it is healthy. Returns how many there were until then.
fn run_until_killed(stage: &Stage, message: Option<usize>) -> Result<usize> {
    let report = stage.bed.work_dir().join("steps");
    fs::write(&report, "")?;
    let mut options = Backend::IPVS.options(&stage.bed, stage.manifests.dir())?;
    options.flags.push(NO_PERIOD.to_owned());
    options.under = [PROGRAM, "--only=netlink", "--report"]
        .map(str::to_owned)
        .into();
    options.under.push(report.display().to_string());
    let kill = message.map(|message| format!("--kill-at={message}"));
    options.under.extend(kill);
    options.under.push("--".to_owned());
    let mut proxy = Proxy::spawn(&stage.bed, options)?;
    wait_for("a message, or health", SOON, POLL, || {
        Ok(proxy.has_ended()?.is_some()
            || proxy
                .healthz(&stage.bed)
                .is_ok_and(|answer| answer.status == 200))
    })
    .with_context(|| proxy.log_tail(20))?;
    let text = fs::read_to_string(&report)?;
    let (process, messages) = text.split_once('\n').context("nothing was followed")?;
    let process = Path::new("/proc").join(process);
    proxy.kill()?;
    wait_for("the proxy's end", SOON, POLL, || Ok(!process.exists()))?;
    Ok(messages.lines().count())
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn killed_at_any_message_the_next_start_makes_it_right() -> Result<()> {
    let stage = Stage::new()?;
    let mut right = Vec::new();
    let mut messages = [0; 2];
    stage.put(&cluster(0)?)?;
    drop(stage.start(Backend::IPVS, &[NO_PERIOD])?);
    let probe = Probe::new(Place::Pod12, Protocol::Tcp, VIP.parse()?);
    // To each of the two endpoints, the first of which goes and comes back.
    let connections = [stage.bed.connect(&probe)?, stage.bed.connect(&probe)?];
    for number in [1, 0] {
        stage.put(&cluster(number)?)?;
        messages[number] = run_until_killed(&stage, None)?;
        right.insert(0, standing(&stage)?);
    }
    println!("{messages:?} messages from one cluster to the other and back");
    let mut at = 0;
    for kill in 0..KILLS {
        let number = (kill + 1) % 2;
        stage.put(&cluster(number)?)?;
        at = (kill + 1) * messages[number] / (KILLS + 1);
        let made = run_until_killed(&stage, Some(at))?;
        ensure!(made == at, "not killed at message {at}, but after {made}");
        let proxy = stage.start(Backend::IPVS, &[NO_PERIOD])?;
        let now = standing(&stage)?;
        let missing: Vec<_> = right[number].difference(&now).collect();
        let surplus: Vec<_> = now.difference(&right[number]).collect();
        ensure!(
            missing.is_empty() && surplus.is_empty(),
            "killed at message {at}: missing {missing:#?}, surplus {surplus:#?}\n{}",
            proxy.log_tail(20)
        );
        for connection in &connections {
            let outcome = connection.ask(&stage.bed, Duration::from_secs(5))?;
            let is_open = matches!(outcome, Outcome::Answered(_));
            ensure!(is_open, "an open connection, killed at {at}: {outcome}");
        }
        stage.wait_answered(Place::Client, VIP, ENDPOINTS[1])?;
    }
    println!("killed {KILLS} times, the last time at message {at}");
    Ok(())
}
