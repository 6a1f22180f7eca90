//! What a proxy that ends, in whatever way, does to the traffic: nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::ServiceSpec;
use switchyard_tests::testbed::{
    Family, Outcome, Place, Probe, Protocol, Proxy, Traffic, wait_for,
};

use super::stage::{
    FAMILIES, POLL, SOON, Stage, TCP_NODE_PORT, VIP, cluster_ip_service, main_service,
};

/// The Service under traffic has these in turn; all of them answer at all times.
const TURNS: [&[&str]; 3] = [
    &["10.244.1.31", "10.244.2.51"],
    &["10.244.2.52"],
    &["10.244.1.32", "10.244.2.51", "10.244.2.52"],
];
const ALL: [&str; 4] = ["10.244.1.31", "10.244.1.32", "10.244.2.51", "10.244.2.52"];
/// So many others change with it, so that a write takes some time.
const FILLERS: usize = 200;
const KILLS: usize = 25;
/// A proxy is killed up to so long after a change was written.
const MAX_PAUSE_MS: u64 = 120;

fn cluster(generation: usize) -> Result<Vec<(String, ServiceSpec)>> {
    let mut services = vec![main_service(TURNS[generation % TURNS.len()])?];
    for number in 0..FILLERS {
        // Third number below 10, fourth below 100, as the IPv6 twins want it.
        let address = format!("10.96.{}.{}", 6 + number / 80, number % 80 + 1);
        services.push((
            format!("filler-{number}"),
            cluster_ip_service(&address, &[right_filler(number, generation)])?,
        ));
    }
    Ok(services)
}

fn right_filler(number: usize, generation: usize) -> &'static str {
    ALL[(number + generation) % ALL.len()]
}

/// New connections all the time from a pod and the node to the ClusterIP and from outside to the node
/// port, in both families; each place also keeps one connection open.
fn traffic(stage: &Stage) -> Result<Vec<Traffic>> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let vip = SocketAddr::new(family.twin(VIP.parse()?), 80);
        let node_port = SocketAddr::new(Place::Node1.address(family), TCP_NODE_PORT);
        all.push(Traffic::start(
            &stage.bed,
            &[Place::Pod12, Place::Node1],
            vip,
        )?);
        all.push(Traffic::start(&stage.bed, &[Place::Client], node_port)?);
    }
    Ok(all)
}

fn let_some_pass(traffic: &[Traffic], more: usize) -> Result<()> {
    traffic
        .iter()
        .try_for_each(|traffic| traffic.wait_for_connections(more))
}

fn check(traffic: Vec<Traffic>, proxy: &Proxy) -> Result<()> {
    for traffic in traffic {
        let report = traffic.stop()?;
        ensure!(
            report.long_lines > 0,
            "nothing passed on the open connection"
        );
        report
            .check()
            .with_context(|| format!("the log ends:\n{}", proxy.log_tail(20)))?;
    }
    Ok(())
}

/// A generator of pauses; the same in every run, unless `SWITCHYARD_SEED` says otherwise.
struct Pauses(u64);

impl Pauses {
    fn from_environment() -> Result<Self> {
        match std::env::var("SWITCHYARD_SEED") {
            Ok(seed) => Ok(Self(seed.parse().context("SWITCHYARD_SEED")?)),
            Err(_) => Ok(Self(1)),
        }
    }

    fn next(&mut self) -> Duration {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((self.0 >> 33) % MAX_PAUSE_MS)
    }
}

#[test]
fn killed_at_any_moment_it_converges_and_no_connection_fails() -> Result<()> {
    let stage = Stage::new()?;
    stage.serve(&ALL)?;
    stage.put(&cluster(0)?, 0)?;
    let mut pauses = Pauses::from_environment()?;
    let mut proxy = stage.start()?;
    let traffic = traffic(&stage)?;
    let_some_pass(&traffic, 10)?;
    let mut generation = 0;
    for _ in 0..KILLS {
        generation += 1;
        stage.put(&cluster(generation)?, generation)?;
        std::thread::sleep(pauses.next());
        // Now and then there is a second change while the first is being written.
        if generation % 3 == 0 {
            generation += 1;
            stage.put(&cluster(generation)?, generation)?;
            std::thread::sleep(pauses.next() / 4);
        }
        proxy.kill()?;
        let_some_pass(&traffic, 3)?;
        proxy = stage.start()?;
    }
    stage.wait_for_generation(generation)?;
    let_some_pass(&traffic, 10)?;
    check(traffic, &proxy)?;
    stage.expect_answers(
        &[Place::Pod12, Place::Node1, Place::Client],
        TURNS[generation % TURNS.len()],
    )?;
    for number in [0, 77, 123, FILLERS - 1] {
        let address = format!("10.96.{}.{}", 6 + number / 80, number % 80 + 1);
        expect_filler(&stage, &address, right_filler(number, generation))
            .with_context(|| format!("the log ends:\n{}", proxy.log_tail(20)))?;
    }
    Ok(())
}

fn expect_filler(stage: &Stage, address: &str, endpoint: &str) -> Result<()> {
    for family in FAMILIES {
        let to = SocketAddr::new(family.twin(address.parse()?), 80);
        let wanted = family.twin(endpoint.parse()?);
        let probe = Probe::new(Place::Pod12, Protocol::Tcp, to);
        let mut last = None;
        wait_for("the last change", SOON, POLL, || {
            let outcome = stage.bed.probe(&probe)?;
            let right = matches!(&outcome, Outcome::Answered(answer) if answer.by.ip() == wanted);
            last = Some(outcome);
            Ok(right)
        })
        .with_context(|| format!("{to} must be {wanted}: {last:?}"))?;
    }
    Ok(())
}

#[test]
fn a_restart_and_a_stop_harm_no_connection() -> Result<()> {
    let stage = Stage::new()?;
    let endpoints = TURNS[0];
    stage.put(&[main_service(endpoints)?], 0)?;
    let mut proxy = stage.start()?;
    let traffic = traffic(&stage)?;
    let_some_pass(&traffic, 20)?;
    for _ in 0..3 {
        let status = proxy.terminate()?;
        ensure!(status.success(), "SIGTERM ended it with {status}");
        // Nobody is there, and all goes on.
        let_some_pass(&traffic, 20)?;
        proxy = stage.start()?;
        let_some_pass(&traffic, 20)?;
    }
    check(traffic, &proxy)?;
    proxy.terminate()?;
    stage.expect_answers(&[Place::Pod12, Place::Client], endpoints)
}

/// Two Services under one name, one after the other, over a restart: the second is not the first.
#[test]
fn a_service_made_anew_while_the_proxy_was_dead_is_another() -> Result<()> {
    let stage = Stage::new()?;
    stage.serve(&ALL)?;
    stage.put(&[main_service(&ALL[..1])?], 0)?;
    let mut proxy = stage.start()?;
    stage.expect_answers(&[Place::Pod12, Place::Client], &ALL[..1])?;
    proxy.kill()?;
    stage.put(&[main_service(&ALL[3..])?], 1)?;
    let proxy = stage.start()?;
    stage.wait_for_generation(1)?;
    stage
        .expect_answers(&[Place::Pod12, Place::Client], &ALL[3..])
        .with_context(|| proxy.log_tail(20))?;
    let node_port = SocketAddr::new(Place::Node1.address(Family::IPv4), TCP_NODE_PORT);
    let outcome = stage
        .bed
        .probe(&Probe::new(Place::Client, Protocol::Tcp, node_port))?;
    let right =
        matches!(&outcome, Outcome::Answered(answer) if answer.by.ip().to_string() == ALL[3]);
    ensure!(right, "node port: {outcome}");
    Ok(())
}
