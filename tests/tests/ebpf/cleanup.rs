//! Taking everything away again, and leaving single namespaces alone.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use switchyard_tests::testbed::{
    Answer, Family, Outcome, Place, Probe, Protocol, endpoint_place, wait_for,
};

use super::stage::{
    ANSWER_TIMEOUT, ENDPOINTS, FAMILIES, MAPS, POLL, SOON, Stage, VIP, cluster_ip_service,
    main_service,
};

const HAIRPIN_VIP: &str = "10.96.5.3";
/// pod12's main address: what it sends its own Service comes from there.
const HAIRPIN_ENDPOINT: &str = "10.244.1.12";

#[test]
fn cleanup_leaves_no_pin_and_no_link() -> Result<()> {
    let stage = Stage::new()?;
    stage.put(&[main_service(&ENDPOINTS)?], 0)?;
    let mut proxy = stage.start()?;
    stage.expect_answers(&[Place::Pod12, Place::Node1, Place::Client], &ENDPOINTS)?;
    let pins = stage.pins()?;
    let under = |name: &str| {
        pins.iter()
            .any(|pin| pin.starts_with(stage.roots.bpf.join(name)))
    };
    ensure!(under(MAPS) && under("links"), "pins: {pins:?}");
    let status = proxy.terminate()?;
    ensure!(status.success(), "SIGTERM ended it with {status}");
    ensure!(!stage.pins()?.is_empty(), "SIGTERM took the pins along");
    stage.cleanup()?;
    let left = stage.pins()?;
    ensure!(left.is_empty(), "left by --cleanup: {left:?}");
    expect_nobody_translates(&stage)?;
    // Once more, where there is nothing: as well.
    stage.cleanup()
}

/// No program is attached any more: what is sent to the Service reaches the world outside as it was.
fn expect_nobody_translates(stage: &Stage) -> Result<()> {
    for from in [Place::Pod12, Place::Node1, Place::Client] {
        for family in FAMILIES {
            let to = SocketAddr::new(family.twin(VIP.parse()?), 80);
            let outcome = stage.bed.probe(&Probe::new(from, Protocol::Tcp, to))?;
            let outside = matches!(&outcome, Outcome::Answered(answer)
                if answer.place == Place::Fabric.name() && answer.by == to);
            ensure!(outside, "{from} -> {to} is still translated: {outcome}");
        }
    }
    Ok(())
}

/// Sockets of a namespace that opted out are left alone, and its packets translated at its device.
/// A pod that meets itself tells which of the two: only at the device it is masqueraded.
#[test]
fn a_namespace_that_opted_out_is_served_at_its_device() -> Result<()> {
    let stage = Stage::new()?;
    stage.serve(&[HAIRPIN_ENDPOINT])?;
    let hairpin = cluster_ip_service(HAIRPIN_VIP, &[HAIRPIN_ENDPOINT])?;
    stage.put(
        &[main_service(&ENDPOINTS)?, ("hairpin".to_owned(), hairpin)],
        0,
    )?;
    let proxy = stage.start()?;
    for family in FAMILIES {
        let answer = ask_itself(&stage, family)?;
        ensure!(
            answer.seen == answer.own,
            "{family}: not translated at the socket: {answer:?}"
        );
    }
    let namespace = format!("/run/netns/{}", stage.bed.namespace_name(Place::Pod12));
    let bpf_root = format!("--bpf-root={}", stage.roots.bpf.display());
    stage.command(&["opt-out".to_owned(), "add".to_owned(), bpf_root, namespace])?;
    for family in FAMILIES {
        let mut last = None;
        wait_for("translation at the device", SOON, POLL, || {
            let answer = ask_itself(&stage, family)?;
            let node = endpoint_place(answer.seen.ip()) == Some(Place::Node1);
            last = Some(answer);
            Ok(node)
        })
        .with_context(|| format!("{family}: {last:?}\n{}", proxy.log_tail(20)))?;
    }
    // And all other Services work for it as before, as for the pod that did not opt out.
    stage.expect_answers(&[Place::Pod11, Place::Pod12], &ENDPOINTS)
}

fn ask_itself(stage: &Stage, family: Family) -> Result<Answer> {
    let vip: IpAddr = HAIRPIN_VIP.parse()?;
    let to = SocketAddr::new(family.twin(vip), 80);
    let probe = Probe::new(Place::Pod12, Protocol::Tcp, to).timeout(ANSWER_TIMEOUT);
    match stage.bed.probe(&probe)? {
        Outcome::Answered(answer) => Ok(answer),
        other => bail!("{family}: pod12 to its own Service: {other}"),
    }
}
