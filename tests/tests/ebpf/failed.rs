//! Calls to the kernel that fail: what was begun is tried again, by the same process, and nothing of a
//! half-made attempt stays; or a start ends with a reason.

use anyhow::{Context, Result, ensure};
use switchyard_tests::testbed::{Proxy, wait_for};

use super::contents::Contents;
use super::killed::{CLIENTS, Cluster, Open, QUIET, is_healthy, stage};
use super::stage::{POLL, SOON, Stage};
use super::steps::{Fault, Follower, Step, all, chosen, spawn};

/// `EPERM`.
const NOT_PERMITTED: i32 = 1;
/// `ENOMEM`.
const NO_MEMORY: i32 = 12;

/// Waits until the maps and links are as they are to be.
fn wait_for_contents(stage: &Stage, wanted: &Contents) -> Result<()> {
    let mut last = None;
    wait_for("the right contents", SOON, POLL, || {
        let now = Contents::read(stage);
        let is_right = now.as_ref().is_ok_and(|now| now == wanted);
        last = Some(now);
        Ok(is_right)
    })
    .with_context(|| format!("the maps hold\n{last:#?}\nand are to hold\n{wanted:#?}"))
}

fn log_after(proxy: &Proxy, before: &str) -> String {
    proxy
        .log()
        .strip_prefix(before)
        .unwrap_or_default()
        .to_owned()
}

/// Half of the places at the cgroup have programs when the next is refused.
#[test]
fn attaching_that_fails_half_way_is_said_and_tried_again() -> Result<()> {
    let stage = stage()?;
    let usual = Cluster::Usual.contents(&stage)?;
    let fault = Fault::fail_some("LINK_CREATE", 4, 2, NOT_PERMITTED);
    let (mut proxy, _) = spawn(&stage, &fault, &[])?;
    proxy.wait_healthy(&stage.bed)?;
    let log = proxy.log();
    ensure!(
        log.contains("attaching sendmsg6") && log.contains("Operation not permitted"),
        "nothing is said of it:\n{log}"
    );
    Cluster::Usual.expect(&stage, &usual)
}

/// It never works: the proxy is not healthy, and says why.
#[test]
fn a_proxy_that_can_never_attach_is_not_healthy() -> Result<()> {
    let stage = stage()?;
    Cluster::Usual.put(&stage)?;
    let fault = Fault::fail_all("LINK_CREATE", 4, NOT_PERMITTED);
    let (proxy, _) = spawn(&stage, &fault, &[])?;
    wait_for("a second try", SOON, POLL, || {
        Ok(proxy.log().matches("attaching sendmsg6").count() >= 2)
    })
    .with_context(|| proxy.log_tail(20))?;
    let status = proxy.healthz(&stage.bed)?.status;
    ensure!(status == 503, "/healthz says {status}");
    Ok(())
}

/// A device that could not be attached to gets its programs without anything else that changes.
#[test]
fn a_device_that_refused_a_program_is_tried_again() -> Result<()> {
    let stage = stage()?;
    let usual = Cluster::Usual.contents(&stage)?;
    // Nine places are at the cgroup, and one call is a question.
    let fault = Fault::fail_some("LINK_CREATE", 10, 1, NOT_PERMITTED);
    let (mut proxy, _) = spawn(&stage, &fault, &[])?;
    proxy.wait_healthy(&stage.bed)?;
    wait_for_contents(&stage, &usual).with_context(|| proxy.log_tail(20))?;
    let log = proxy.log();
    ensure!(
        log.contains("packets at this device are not translated"),
        "nothing is said of it:\n{log}"
    );
    stage.expect_answers(&CLIENTS, Cluster::Usual.endpoints())
}

/// Each call of a start fails once: it ends with a reason, or becomes what it is to be.
#[test]
fn a_start_of_which_one_call_fails() -> Result<()> {
    let stage = stage()?;
    let usual = Cluster::Usual.contents(&stage)?;
    let (mut proxy, report) = spawn(&stage, &Fault::none_of_all(), &[])?;
    proxy.wait_healthy(&stage.bed)?;
    let steps = report.steps()?;
    report.end(proxy)?;
    stage.cleanup()?;
    for step in chosen(&steps) {
        let fault = Fault::fail_at(step, NO_MEMORY);
        let (mut proxy, report) = spawn(&stage, &fault, &[])?;
        let what = || format!("step {step} failed: {:?}", steps.get(step - 1));
        let before = proxy.log();
        let mut ended = None;
        wait_for("its end, or health", SOON, POLL, || {
            ended = proxy.has_ended()?;
            Ok(ended.is_some() || is_healthy(&stage)(&proxy)?)
        })
        .with_context(what)?;
        if let Some(status) = ended {
            let said = log_after(&proxy, &before);
            ensure!(!status.success(), "{}: ended with {status}", what());
            ensure!(
                said.contains("switchyard-proxy: "),
                "{}: no reason:\n{said}",
                what()
            );
            proxy = stage.start().with_context(what)?;
        }
        wait_for_contents(&stage, &usual).with_context(what)?;
        stage
            .expect_answers(&CLIENTS, Cluster::Usual.endpoints())
            .with_context(what)?;
        report.end(proxy)?;
        stage.cleanup()?;
    }
    Ok(())
}

/// Half of the places have programs of the larger set, which the others refuse, when it is no longer
/// wanted.
#[test]
fn growth_that_fails_half_way_and_is_not_wanted_any_more() -> Result<()> {
    let stage = stage()?;
    let usual = Cluster::Usual.contents(&stage)?;
    let proxy = stage.start()?;
    let open = Open::new(&stage)?;
    let fault = Fault::fail_all("LINK_UPDATE,LINK_CREATE", 4, NOT_PERMITTED);
    let follower = Follower::start(&stage, &proxy, &fault)?;
    Cluster::Large.put(&stage)?;
    wait_for("the failure", SOON, POLL, || {
        Ok(proxy.log().contains("attaching"))
    })
    .with_context(|| format!("{}\n{:?}", proxy.log_tail(20), follower.steps()))?;
    open.expect(&stage)?;
    Cluster::Usual.put(&stage)?;
    drop(follower);
    wait_for_contents(&stage, &usual).with_context(|| proxy.log_tail(20))?;
    open.expect(&stage)?;
    stage.expect_answers(&CLIENTS, Cluster::Usual.endpoints())
}

fn change_of_which_one_call_fails(
    (from, to): (Cluster, Cluster),
    choose: impl Fn(&[Step]) -> Vec<usize>,
) -> Result<()> {
    let stage = stage()?;
    let wanted = to.contents(&stage)?;
    from.put(&stage)?;
    let mut proxy = stage.start()?;
    let open = Open::new(&stage)?;
    let mut steps = Vec::new();
    // The first time none fails.
    let mut step = 0;
    let mut left = Vec::new();
    loop {
        std::thread::sleep(QUIET);
        let fault = match step {
            0 => Fault::none_of_all(),
            step => Fault::fail_at(step, NO_MEMORY),
        };
        let follower = Follower::start(&stage, &proxy, &fault)?;
        to.put(&stage)?;
        to.wait_for(&stage)?;
        let what = || format!("step {step} failed: {:?}", steps.get(step.wrapping_sub(1)));
        wait_for_contents(&stage, &wanted)
            .with_context(|| proxy.log_tail(20))
            .with_context(what)?;
        open.expect(&stage).with_context(what)?;
        stage
            .expect_answers(&CLIENTS, to.endpoints())
            .with_context(what)?;
        ensure!(proxy.has_ended()?.is_none(), "{}: it ended", what());
        if step == 0 {
            steps = follower.steps()?;
            left = choose(&steps);
            left.reverse();
        }
        drop(follower);
        let Some(next) = left.pop() else {
            return Ok(());
        };
        step = next;
        proxy = from.come_back(&stage, proxy, to)?;
    }
}

#[test]
fn a_change_of_which_one_call_fails() -> Result<()> {
    change_of_which_one_call_fails((Cluster::Usual, Cluster::Changed), all)
}

#[test]
fn a_change_back_of_which_one_call_fails() -> Result<()> {
    change_of_which_one_call_fails((Cluster::Changed, Cluster::Usual), all)
}

#[test]
fn growth_of_which_one_call_fails() -> Result<()> {
    change_of_which_one_call_fails((Cluster::Usual, Cluster::Large), chosen)
}

/// Each call of `--cleanup` fails once: it says so, or nothing is left.
#[test]
fn a_cleanup_of_which_one_call_fails() -> Result<()> {
    let stage = stage()?;
    Cluster::Usual.put(&stage)?;
    let clean_up = |fault: &Fault| -> Result<_> {
        stage.start()?.kill()?;
        let (mut cleanup, report) = spawn(&stage, fault, &["--cleanup"])?;
        let status = cleanup.wait_exit(SOON)?;
        Ok((status, report.steps()?, cleanup.log_tail(3)))
    };
    let (_, steps, _) = clean_up(&Fault::none_of_all())?;
    for step in chosen(&steps) {
        let (status, _, said) = clean_up(&Fault::fail_at(step, NO_MEMORY))?;
        let left = stage.pins()?;
        ensure!(
            status.success() == left.is_empty() && status.success() != said.contains("os error 12"),
            "step {step} failed: {:?}; it ended with {status}, said {said:?} and left {left:?}",
            steps.get(step - 1)
        );
        stage.cleanup()?;
        let left = stage.pins()?;
        ensure!(left.is_empty(), "left: {left:?}");
    }
    Ok(())
}
