//! Many Services come and go, and leave nothing behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{Emptiness, ServiceSpec, expand_service, map_entries, node_objects};
use switchyard_tests::testbed::{Family, Place, Proxy, wait_for};

use super::stage::{BACKEND, ENDPOINTS, Stage, TCP_TARGET, VIP, main_service};

const SERVICES: u32 = 1000;
const ENDPOINTS_OF_EACH: u32 = 10;
/// The Service that is used has two ports in two families.
const OF_MAIN: u32 = 4;
const ROUNDS: u32 = 3;
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Service `number` with endpoints nobody serves, others in every round.
fn filler(number: u32, round: u32) -> Result<ServiceSpec> {
    let endpoints = (0..ENDPOINTS_OF_EACH).map(|index| {
        let host = (number * ENDPOINTS_OF_EACH + index + round * 7) % 60_000;
        format!("10.200.{}.{}", host / 250, host % 250 + 1).parse()
    });
    Ok(ServiceSpec {
        cluster_ip: Some(format!("10.97.{}.{}", number / 200, number % 200 + 1)),
        ports: vec![format!("t 80->{TCP_TARGET}").parse()?],
        affinity_seconds: number.is_multiple_of(3).then_some(600),
        endpoints: Some(endpoints.collect::<Result<_>>()?),
        ..ServiceSpec::default()
    })
}

fn lay_down(stage: &Stage, count: u32, round: u32) -> Result<()> {
    let mut objects = node_objects();
    for number in 0..count {
        let name = format!("filler-{number}");
        objects.extend(expand_service(
            &name,
            &filler(number, round)?,
            &[Family::IPv4],
        )?);
    }
    // One that is used, by clients that are remembered, so that there is more to clear than rules.
    let (name, mut spec) = main_service(&ENDPOINTS)?;
    spec.affinity_seconds = Some(600);
    objects.extend(expand_service(&name, &spec, &super::stage::FAMILIES)?);
    stage.manifests.replace(&objects)
}

/// Waits until the proxy has that many service ports.
fn wait_for_service_ports(stage: &Stage, proxy: &Proxy, wanted: u32) -> Result<()> {
    let mut now = 0.0;
    wait_for("that many service ports", LIMIT, POLL, || {
        now = map_entries(&stage.bed, proxy, "identities")?;
        Ok((now - f64::from(wanted)).abs() < 0.5)
    })
    .with_context(|| format!("map identities holds {now}, not {wanted}"))
}

#[test]
fn a_thousand_services_leave_every_map_empty() -> Result<()> {
    let stage = Stage::new()?;
    let proxy = stage.start()?;
    let emptiness = Emptiness::of(&stage.bed, BACKEND, &proxy)?;
    ensure!(
        emptiness.left(&stage.bed, &proxy)?.is_empty(),
        "maps are not empty at the start"
    );
    for round in 0..ROUNDS {
        lay_down(&stage, SERVICES, round)?;
        wait_for_service_ports(&stage, &proxy, SERVICES + OF_MAIN)?;
        // Services may come before their endpoints.
        let needed = f64::from(SERVICES * ENDPOINTS_OF_EACH);
        wait_for("slots for all endpoints", LIMIT, POLL, || {
            Ok(map_entries(&stage.bed, &proxy, "slots")? >= needed)
        })?;
        for _ in 0..5 {
            stage.expect_answers(&[Place::Pod12, Place::Node1, Place::Client], &ENDPOINTS)?;
        }
        // Every endpoint changes, and half of the Services go.
        lay_down(&stage, SERVICES / 2, round + 1)?;
        wait_for_service_ports(&stage, &proxy, SERVICES / 2 + OF_MAIN)?;
        stage.manifests.replace(&node_objects())?;
        let mut left = Vec::new();
        wait_for("empty maps", LIMIT, POLL, || {
            left = emptiness.left(&stage.bed, &proxy)?;
            Ok(left.is_empty())
        })
        .with_context(|| format!("round {round}, {VIP}: {left:?}\n{}", proxy.log_tail(20)))?;
    }
    Ok(())
}
