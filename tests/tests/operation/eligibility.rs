//! Whether load balancers may send traffic to the node, by its Node object.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use switchyard_tests::apiserver::Resource;
use switchyard_tests::cases::node_objects;
use switchyard_tests::testbed::{Place, Proxy, wait_for};

use super::stage::{POLL, SOON, Stage};

/// Waits until `/healthz` answers so; `/livez` is well all the time.
fn wait_for_status(stage: &Stage, proxy: &Proxy, status: u16) -> Result<()> {
    let mut last = None;
    let waited = wait_for("that answer", SOON, POLL, || {
        let livez = stage.bed.http_get(
            Place::Node1,
            std::net::SocketAddr::from(([127, 0, 0, 1], 10256)),
            "/livez",
        )?;
        anyhow::ensure!(livez.status == 200, "livez: {livez:?}");
        anyhow::ensure!(!livez.body.contains("nodeEligible"), "{livez:?}");
        let healthz = proxy.healthz(&stage.bed)?;
        let eligible = format!("\"nodeEligible\":{}", status == 200);
        let fits = healthz.status == status && healthz.body.contains(&eligible);
        last = Some(healthz);
        Ok(fits)
    });
    waited.with_context(|| format!("wanted {status}, got {last:?}"))
}

fn node() -> Result<Value> {
    let mut nodes = node_objects().into_iter();
    nodes.next().context("there is a first node")
}

/// The autoscaler's taint, a deletion that has begun, and one that is done; after each the node
/// is well again.
#[test]
fn a_node_on_its_way_out_fails_healthz_and_not_livez() -> Result<()> {
    let stage = Stage::new()?;
    let proxy = Proxy::start(&stage.bed, stage.options("nftables")?)?;
    wait_for_status(&stage, &proxy, 200)?;

    let mut tainted = node()?;
    tainted["spec"]["taints"] = json!([
        {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}
    ]);
    let mut deleting = node()?;
    deleting["metadata"]["deletionTimestamp"] = json!("2026-11-30T12:00:00Z");
    for going in [tainted, deleting] {
        stage.api.set(vec![going])?;
        wait_for_status(&stage, &proxy, 503)?;
        stage.api.set(vec![node()?])?;
        wait_for_status(&stage, &proxy, 200)?;
    }
    // A taint of another kind says nothing.
    let mut other = node()?;
    other["spec"]["taints"] = json!([{"key": "dedicated", "effect": "NoSchedule"}]);
    stage.api.set(vec![other])?;
    let nodes = Resource::of_kind("Node", "v1").context("it is known")?;
    stage.api.server().delete(nodes, "", "node1");
    wait_for_status(&stage, &proxy, 503)?;
    stage.api.set(vec![node()?])?;
    wait_for_status(&stage, &proxy, 200)?;
    stage.answers()
}
