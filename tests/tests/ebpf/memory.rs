//! What a large cluster costs the agent in memory, once its first list is programmed.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{ServiceSpec, expand_service, map_entries, node_objects};
use switchyard_tests::testbed::{Family, Proxy, wait_for};

use super::stage::{Stage, TCP_TARGET};

const SERVICES: usize = 4000;
const ENDPOINTS_OF_EACH: usize = 10;
/// Memory for each endpoint and its tenth of a Service: objects, plans, records of what is
/// programmed, and what the allocator can't give back.
const MAX_ENDPOINT_BYTES: usize = 320;
/// Less would mean that nothing was measured.
const MIN_ENDPOINT_BYTES: usize = 100;
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

fn service(number: usize) -> Result<ServiceSpec> {
    let endpoints = (0..ENDPOINTS_OF_EACH).map(|index| {
        let host = number * ENDPOINTS_OF_EACH + index;
        format!("10.200.{}.{}", host / 250, host % 250 + 1).parse()
    });
    Ok(ServiceSpec {
        cluster_ip: Some(format!("10.97.{}.{}", number / 200, number % 200 + 1)),
        ports: vec![format!("t 80->{TCP_TARGET}").parse()?],
        endpoints: Some(endpoints.collect::<Result<_>>()?),
        ..ServiceSpec::default()
    })
}

/// Resident memory without the pages of programs and libraries, which differ from build to build:
/// the process' own, and what it has mapped of eBPF maps.
fn resident_bytes(proxy: &Proxy) -> Result<usize> {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", proxy.pid()))?;
    let (mut sum_kib, mut is_map) = (0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next());
        if !first.ends_with(':') {
            is_map = line.ends_with("bpf-map");
        } else if first == if is_map { "Rss:" } else { "Anonymous:" } {
            sum_kib += second.context("no number")?.parse::<usize>()?;
        }
    }
    Ok(sum_kib * 1024)
}

#[test]
fn endpoints_cost_the_agent_little_memory() -> Result<()> {
    let stage = Stage::new()?;
    let proxy = stage.start()?;
    let before = resident_bytes(&proxy)?;
    let mut objects = node_objects();
    for number in 0..SERVICES {
        let name = format!("large-{number}");
        objects.extend(expand_service(&name, &service(number)?, &[Family::IPv4])?);
    }
    stage.manifests.replace(&objects)?;
    let endpoints = SERVICES * ENDPOINTS_OF_EACH;
    wait_for("slots for all endpoints", LIMIT, POLL, || {
        Ok(map_entries(&stage.bed, &proxy, "slots")? >= f64::from(u32::try_from(endpoints)?))
    })?;
    // What is free goes back to the kernel a moment later.
    let mut cost = 0;
    wait_for("little memory", LIMIT, POLL, || {
        cost = resident_bytes(&proxy)?.saturating_sub(before) / endpoints;
        Ok(cost <= MAX_ENDPOINT_BYTES)
    })
    .with_context(|| format!("{cost} bytes an endpoint"))?;
    println!("{cost} bytes an endpoint");
    ensure!(cost >= MIN_ENDPOINT_BYTES, "{cost} bytes an endpoint");
    Ok(())
}
