//! Events that the proxy writes, as the API server has them.

use std::fs;
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use switchyard_tests::apiserver::Resource;
use switchyard_tests::cases::{IngressSpec, ServiceSpec, expand_service};
use switchyard_tests::testbed::{Family, Place, Proxy, Testbed, wait_for};

use super::stage::{POLL, SOON, Stage};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn events(stage: &Stage) -> Result<Vec<Value>> {
    let resource = Resource::of_kind("Event", "events.k8s.io/v1").context("it is known")?;
    Ok(stage.api.server().objects(resource))
}

/// Waits for an event with this reason that fits.
fn wait_for_event(stage: &Stage, reason: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut found = None;
    let waited = wait_for(reason, SOON, POLL, || {
        let mut events = events(stage)?.into_iter();
        found = events.find(|event| event["reason"] == reason && fits(event));
        Ok(found.is_some())
    });
    waited.with_context(|| format!("there are {:#?}", events(stage)))?;
    found.context("it was found")
}

/// Somebody else listens there, on node1.
fn take(bed: &Testbed, address: &'static str) -> Result<TcpListener> {
    Ok(bed.in_place(Place::Node1, move || TcpListener::bind(address))??)
}

fn of_node(event: &Value, kind: &str) -> Result<()> {
    ensure!(event["type"] == kind, "{event:#}");
    ensure!(event["reportingController"] == "kube-proxy", "{event:#}");
    let instance = event["reportingInstance"].as_str().unwrap_or_default();
    ensure!(instance.starts_with("kube-proxy-"), "{event:#}");
    let regarding = &event["regarding"];
    ensure!(
        [&regarding["kind"], &regarding["name"], &regarding["uid"]] == ["Node", "node1", "node1"],
        "{event:#}"
    );
    ensure!(event["metadata"]["namespace"] == "default", "{event:#}");
    ensure!(event["eventTime"].is_string(), "{event:#}");
    Ok(())
}

#[test]
fn start_and_taken_addresses_are_told_at_node_and_service() -> Result<()> {
    let stage = Stage::new()?;
    let _metrics = take(&stage.bed, "127.0.0.1:10249")?;
    let _check = take(&stage.bed, "0.0.0.0:32500")?;
    let spec = ServiceSpec {
        kind: Some("LoadBalancer".to_owned()),
        cluster_ip: Some("10.96.5.60".to_owned()),
        ports: vec!["80->8080/TCP node=30560".parse()?],
        load_balancer: vec![IngressSpec::Address("203.0.113.60".parse()?)],
        external_traffic_policy: Some("Local".to_owned()),
        health_check_node_port: Some(32_500),
        endpoints: Some(vec!["10.244.1.31".parse()?]),
        ..ServiceSpec::default()
    };
    stage
        .api
        .set(expand_service("lb", &spec, &[Family::IPv4])?)?;
    let mut options = stage.options("nftables")?;
    options
        .flags
        .push("--nodeport-addresses=0.0.0.0/0".to_owned());
    let proxy = Proxy::start(&stage.bed, options)?;

    let starting = wait_for_event(&stage, "Starting", |_| true)?;
    of_node(&starting, "Normal")?;
    ensure!(starting["action"] == "StartKubeProxy", "{starting:#}");
    let metrics = wait_for_event(&stage, "FailedToStartMetricServer", |_| true)?;
    of_node(&metrics, "Warning")?;
    let note = metrics["note"].as_str().unwrap_or_default();
    ensure!(note.contains("127.0.0.1:10249"), "{metrics:#}");
    let check = wait_for_event(&stage, "FailedToStartServiceHealthcheck", |_| true)?;
    ensure!(check["action"] == "Listen", "{check:#}");
    let regarding = &check["regarding"];
    ensure!(
        [
            &regarding["kind"],
            &regarding["namespace"],
            &regarding["name"]
        ] == ["Service", "default", "lb"],
        "{check:#}"
    );
    ensure!(check["metadata"]["namespace"] == "default", "{check:#}");
    ensure!(proxy.log().contains("10249"), "{}", proxy.log());
    Ok(())
}

/// The agent ends, and its last words arrive.
#[test]
fn with_bind_address_hard_fail_a_taken_address_is_the_end_and_told() -> Result<()> {
    let stage = Stage::new()?;
    let _health = take(&stage.bed, "0.0.0.0:10256")?;
    let mut options = stage.options("nftables")?;
    options.flags.push("--bind-address-hard-fail".to_owned());
    let mut proxy = Proxy::spawn(&stage.bed, options)?;
    let status = proxy.wait_exit(SOON)?;
    ensure!(status.code() == Some(1), "{status}: {}", proxy.log());
    let log = proxy.log();
    ensure!(
        log.contains("health server can't listen at 0.0.0.0:10256")
            && log.contains("bindAddressHardFail"),
        "{log}"
    );
    let event = wait_for_event(&stage, "FailedToStartProxierHealthcheck", |_| true)?;
    of_node(&event, "Warning")
}

/// Twice the same becomes a series; other words become an event of their own.
#[test]
fn a_configuration_that_is_refused_is_told_and_counted() -> Result<()> {
    let stage = Stage::new()?;
    let file = stage.bed.work_dir().join("proxy.yaml");
    let new = stage.bed.work_dir().join("proxy.yaml.new");
    // In one step, as a mounted ConfigMap changes.
    let put = |text: &str| -> Result<()> {
        fs::write(&new, format!("{HEAD}{text}"))?;
        Ok(fs::rename(&new, &file)?)
    };
    put("mode: nftables\nhostnameOverride: node1\n")?;
    let mut options = stage.options("nftables")?;
    options.flags.push(format!("--config={}", file.display()));
    let proxy = Proxy::start(&stage.bed, options)?;
    wait_for_event(&stage, "Starting", |_| true)?;

    put("mode: quantum\n")?;
    let refused = wait_for_event(&stage, "ConfigurationRefused", |_| true)?;
    of_node(&refused, "Warning")?;
    let note = refused["note"].as_str().unwrap_or_default();
    ensure!(note.contains("mode: \"quantum\": expected"), "{refused:#}");
    ensure!(refused["series"].is_null(), "{refused:#}");
    put("mode: quantum # once more\n")?;
    wait_for_event(&stage, "ConfigurationRefused", |event| {
        event["series"]["count"] == 2 && event["metadata"]["name"] == refused["metadata"]["name"]
    })?;
    put("mode: relativity\n")?;
    wait_for_event(&stage, "ConfigurationRefused", |event| {
        let note = event["note"].as_str().unwrap_or_default();
        note.contains("relativity") && event["series"].is_null()
    })?;
    stage.answers()?;
    let requests = stage.api.server().requests();
    let writes = requests.iter().filter(|seen| seen.method != "GET");
    ensure!(writes.count() == 4, "POSTs and PATCHes: {requests:#?}");
    ensure!(proxy.metric(&stage.bed, "switchyard_events_lost_total")? == 0.0);
    Ok(())
}

/// Who may not write events loses them, and nothing else.
#[test]
fn without_the_right_to_write_events_all_else_works() -> Result<()> {
    let stage = Stage::new()?;
    let resource = Resource::of_kind("Event", "events.k8s.io/v1").context("it is known")?;
    stage.api.server().refuse(resource, Some(403));
    let proxy = Proxy::start(&stage.bed, stage.options("nftables")?)?;
    wait_for("the loss to be counted", SOON, POLL, || {
        Ok(proxy.metric(&stage.bed, "switchyard_events_lost_total")? == 1.0)
    })?;
    stage.answers()
}
