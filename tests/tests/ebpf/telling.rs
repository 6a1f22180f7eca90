//! What the kernel programs of debug builds tell of their decisions.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use switchyard_tests::testbed::{Family, Outcome, Place, Probe, Protocol, Proxy, wait_for};

use super::stage::{
    ANSWER_TIMEOUT, ENDPOINTS, POLL, SOON, Stage, TCP_NODE_PORT, VIP, main_service,
};

const TARGET: &str = "switchyard_proxy::programs";

/// From a pod by its socket, from outside by the devices.
#[test]
fn decisions_are_in_the_log_of_who_asks_for_them() -> Result<()> {
    let stage = Stage::new()?;
    let mut options = stage.options()?;
    if options.binary.iter().any(|part| part == "release") {
        eprintln!("left out: programs of release builds tell nothing");
        return Ok(());
    }
    stage.put(&[main_service(&ENDPOINTS[1..])?], 0)?;
    let mut quiet = stage.start()?;
    stage.expect_answers(&[Place::Pod12, Place::Client], &ENDPOINTS[1..])?;
    quiet.kill()?;
    ensure!(!quiet.log().contains(TARGET), "told without being asked");
    options.flags.push("-v=5".to_owned());
    let proxy = Proxy::start(&stage.bed, options)?;
    let vip = SocketAddr::new(VIP.parse()?, 80);
    let node_port = SocketAddr::new(Place::Node1.address(Family::IPv4), TCP_NODE_PORT);
    for (place, to) in [(Place::Pod12, vip), (Place::Client, node_port)] {
        let probe = Probe::new(place, Protocol::Tcp, to).timeout(ANSWER_TIMEOUT);
        let outcome = stage.bed.probe(&probe)?;
        ensure!(
            matches!(outcome, Outcome::Answered(_)),
            "{place}: {outcome}"
        );
    }
    let endpoint = format!("::ffff:{} 8080", ENDPOINTS[1]);
    let lines = [
        format!("{TARGET}: socket to ::ffff:{VIP} 80 goes to {endpoint}"),
        format!(
            "to ::ffff:{} {TCP_NODE_PORT} goes to {endpoint}",
            node_port.ip()
        ),
        format!("to {endpoint} leaves from ::ffff:"),
    ];
    wait_for("the lines", SOON, POLL, || {
        let log = proxy.log();
        Ok(lines.iter().all(|line| log.contains(line)))
    })
    .with_context(|| format!("{lines:#?} are not all in\n{}", proxy.log_tail(30)))
}
