//! Packets that are sent on past the node's stack, and what the stack still gets.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use switchyard_tests::testbed::{Outcome, Place, Probe, Protocol, Proxy, require_root, wait_for};

use super::stage::{ANSWER_TIMEOUT, FAMILIES, Stage, TCP_NODE_PORT, UDP_NODE_PORT, main_service};

/// Behind the bridge, behind a veth of its own, and on the other node.
const WHERE: [&str; 3] = ["10.244.1.31", "10.244.1.41", "10.244.2.51"];
const NO_FORWARDING: &str = "
table inet no-forwarding {
    chain forward { type filter hook forward priority 0; policy drop; }
}
";
/// What goes out through a bridge is lost, what comes in is not.
const NO_BRIDGE: &str = "
table bridge no-bridge {
    chain output { type filter hook output priority 0; policy drop; }
}
";
/// The agent follows devices and what is behind bridges.
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

fn start(stage: &Stage, forwarding: &str) -> Result<Proxy> {
    let mut options = stage.options()?;
    options
        .flags
        .push(format!("--ebpf-forwarding={forwarding}"));
    Proxy::start(&stage.bed, options)
}

fn nft(stage: &Stage, commands: &str) -> Result<()> {
    let done = stage.bed.run(Place::Node1, &["nft", "-f", "-"], commands)?;
    done.success("nft -f -").map(drop)
}

/// What comes of requests from outside to the node ports, with some bytes each.
fn ask(stage: &Stage, bytes: usize) -> Result<Vec<(Probe, Outcome)>> {
    let mut outcomes = Vec::new();
    for family in FAMILIES {
        let node = Place::Node1.address(family);
        for (protocol, port) in [
            (Protocol::Tcp, TCP_NODE_PORT),
            (Protocol::Udp, UDP_NODE_PORT),
        ] {
            let to = SocketAddr::new(node, port);
            let mut probe = Probe::new(Place::Client, protocol, to).timeout(ANSWER_TIMEOUT);
            probe.bytes = bytes;
            let outcome = stage.bed.probe(&probe)?;
            outcomes.push((probe, outcome));
        }
    }
    Ok(outcomes)
}

fn expect(outcomes: &[(Probe, Outcome)], is_right: impl Fn(&Outcome) -> bool) -> Result<()> {
    for (probe, outcome) in outcomes {
        let Probe { protocol, to, .. } = probe;
        ensure!(is_right(outcome), "{protocol} to {to}: {outcome}");
    }
    Ok(())
}

/// A rule in FORWARD that drops everything stands in nobody's way but the stack's.
#[test]
fn flows_of_services_do_not_pass_forward_rules() -> Result<()> {
    require_root()?;
    let stage = Stage::new()?;
    stage.serve(&WHERE)?;
    let mut generation = 0;
    for (forwarding, is_through) in [("direct", true), ("stack", false)] {
        let mut proxy = start(&stage, forwarding)?;
        for endpoint in WHERE {
            generation += 1;
            stage.put(&[main_service(&[endpoint])?], generation)?;
            stage.wait_for_generation(generation)?;
            // The stack sees to neighbours that are not known yet.
            expect(&ask(&stage, 2)?, |it| matches!(it, Outcome::Answered(_)))?;
            nft(&stage, NO_FORWARDING)?;
            let outcomes = ask(&stage, 2)?;
            nft(&stage, "delete table inet no-forwarding")?;
            expect(&outcomes, |it| match it {
                Outcome::Answered(_) => is_through,
                Outcome::TimedOut => !is_through,
                _ => false,
            })?;
        }
        proxy.terminate()?;
    }
    Ok(())
}

/// What comes of requests while nothing goes out through the bridge.
fn ask_without_bridge(stage: &Stage) -> Result<Vec<(Probe, Outcome)>> {
    nft(stage, NO_BRIDGE)?;
    let outcomes = ask(stage, 2);
    nft(stage, "delete table bridge no-bridge")?;
    outcomes
}

/// A pod behind a bridge is handed its packets past it, as long as the bridge knows behind which port
/// it is, and nothing is to wait in a queue before that.
#[test]
fn flows_of_services_do_not_pass_a_bridge() -> Result<()> {
    require_root()?;
    let stage = Stage::new()?;
    stage.serve(&WHERE)?;
    let _proxy = start(&stage, "direct")?;
    stage.put(&[main_service(&[WHERE[0]])?], 1)?;
    stage.wait_for_generation(1)?;
    for (step, is_past) in [
        ("ip link set port11 type bridge_slave learning on", true),
        (
            "ip link set port11 type bridge_slave learning off fdb_flush",
            false,
        ),
        ("ip link set port11 type bridge_slave learning on", true),
        ("tc qdisc add dev port11 root pfifo", false),
        ("tc qdisc del dev port11 root", true),
    ] {
        let command: Vec<&str> = step.split(' ').collect();
        let done = stage.bed.run(Place::Node1, &command, "")?;
        done.success(step)?;
        let what = format!("{step}: past the bridge: {is_past}");
        wait_for(&what, SOON, POLL, || {
            // The stack sees to neighbours that are not known yet, and the bridge learns by answers.
            expect(&ask(&stage, 2)?, |it| matches!(it, Outcome::Answered(_)))?;
            let outcomes = ask_without_bridge(&stage)?;
            let is_right = |outcome: &Outcome| match outcome {
                Outcome::Answered(_) => is_past,
                Outcome::TimedOut => !is_past,
                _ => false,
            };
            Ok(outcomes.iter().all(|(_, outcome)| is_right(outcome)))
        })?;
    }
    Ok(())
}

/// What is too large for a route comes to the stack, which tells the sender.
#[test]
fn a_route_with_a_small_mtu_is_told_to_the_sender() -> Result<()> {
    require_root()?;
    let stage = Stage::new()?;
    let _proxy = start(&stage, "direct")?;
    stage.put(&[main_service(&["10.244.2.51"])?], 1)?;
    stage.wait_for_generation(1)?;
    for [network, via] in [
        ["10.244.2.0/24", "192.168.100.12"],
        ["fd00:244:2::/64", "fd00:100::12"],
    ] {
        let route = [
            "ip", "route", "replace", network, "via", via, "mtu", "lock", "1300",
        ];
        let done = stage.bed.run(Place::Node1, &route, "")?;
        done.success("ip route replace")?;
    }
    // The first datagram too large is lost: its sender hears of it and sends smaller ones.
    let _ = ask(&stage, 20_000)?;
    let outcomes = ask(&stage, 20_000)?;
    expect(
        &outcomes,
        |it| matches!(it, Outcome::Answered(answer) if answer.bytes == 20_000),
    )
}
