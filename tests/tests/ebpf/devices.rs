//! Programs at devices: where they are put, and where they are taken away again. Links hold them
//! from Linux 6.6 on, filters of traffic control before.

use anyhow::{Context, Result};
use switchyard_tests::testbed::{Place, wait_for};

use super::stage::{ENDPOINTS, POLL, SOON, Stage, main_service};

/// The number that handles of our filters begin with, as tc writes it.
const FILTER: &str = "handle 0x5379";

/// Runs a command on node1.
fn run(stage: &Stage, command: &str) -> Result<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    stage.bed.run(Place::Node1, &words, "")?.success(command)
}

/// Whether programs of ours are at a device of node1, in both directions.
fn has_programs(stage: &Stage, device: &str) -> Result<bool> {
    let shown = run(stage, &format!("ip -o link show {device}"))?;
    let (index, _) = shown.split_once(':').context("ip shows no index")?;
    let pins = stage.pins()?;
    let mut both = true;
    for (pin, direction) in [("in", "ingress"), ("out", "egress")] {
        let pin = stage.roots.bpf.join(format!("links/{index}-{pin}"));
        let filters = run(stage, &format!("tc filter show dev {device} {direction}"))?;
        both &= pins.contains(&pin) || filters.contains(FILTER);
    }
    Ok(both)
}

fn expect_programs(stage: &Stage, device: &str, wanted: bool) -> Result<()> {
    let what = format!("programs at {device}: {wanted}");
    wait_for(&what, SOON, POLL, || {
        Ok(has_programs(stage, device)? == wanted)
    })
}

/// What a port of a bridge takes in is the bridge's, which has programs of its own.
#[test]
fn a_port_of_a_bridge_has_no_programs() -> Result<()> {
    let stage = Stage::new()?;
    run(&stage, "ip link add port0 type veth peer name port1")?;
    run(&stage, "ip link add bridge0 type bridge")?;
    stage.put(&[main_service(&ENDPOINTS)?], 0)?;
    let mut proxy = stage.start()?;
    for device in ["port0", "port1", "bridge0"] {
        expect_programs(&stage, device, true)?;
    }
    run(&stage, "ip link set port0 master bridge0")?;
    expect_programs(&stage, "port0", false)?;
    expect_programs(&stage, "port1", true)?;
    // While no proxy runs.
    proxy.terminate()?;
    run(&stage, "ip link set port1 master bridge0")?;
    run(&stage, "ip link set port0 nomaster")?;
    let mut proxy = stage.start()?;
    expect_programs(&stage, "port0", true)?;
    expect_programs(&stage, "port1", false)?;
    proxy.terminate()?;
    // Nor does `--cleanup` pass over ports.
    run(&stage, "ip link set port0 master bridge0")?;
    stage.cleanup()?;
    for device in ["port0", "port1", "bridge0"] {
        expect_programs(&stage, device, false)?;
    }
    Ok(())
}
