//! What load balancers and operators ask a running proxy: health-check node ports, health, metrics.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{IngressSpec, Manifests, ServiceSpec, expand_service, node_objects};
use switchyard_tests::testbed::{
    Family, HttpAnswer, IptablesTool, Outcome, Place, Probe, Protocol, Proxy, ProxyOptions,
    Testbed, wait_for,
};

const FAMILIES: [Family; 2] = [Family::IPv4, Family::IPv6];
const HEALTH_CHECK_PORT: u16 = 32_500;
const POLL: Duration = Duration::from_millis(30);
const SOON: Duration = Duration::from_secs(10);

struct Stage {
    bed: Testbed,
    manifests: Manifests,
}

impl Stage {
    fn new() -> Result<Self> {
        let bed = Testbed::build()?;
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        Ok(Self { bed, manifests })
    }

    fn start(&self) -> Result<Proxy> {
        let mut options = ProxyOptions::new(&self.bed, self.manifests.dir(), "iptables")?;
        options.tool = Some(IptablesTool::Nft);
        Proxy::start(&self.bed, options)
    }

    fn put(&self, policy: &str, endpoints: &[&str]) -> Result<()> {
        let spec = ServiceSpec {
            kind: Some("LoadBalancer".to_owned()),
            cluster_ip: Some("10.96.5.60".to_owned()),
            ports: vec!["80->8080/TCP node=30560".parse()?],
            load_balancer: vec![IngressSpec::Address("203.0.113.60".parse()?)],
            external_traffic_policy: Some(policy.to_owned()),
            health_check_node_port: Some(HEALTH_CHECK_PORT).filter(|_| policy == "Local"),
            endpoints: Some(
                endpoints
                    .iter()
                    .map(|text| text.parse())
                    .collect::<Result<_>>()?,
            ),
            ..ServiceSpec::default()
        };
        let mut objects = node_objects();
        objects.extend(expand_service("web", &spec, &FAMILIES)?);
        self.manifests.replace(&objects)
    }

    fn ask(&self, family: Family) -> Result<HttpAnswer> {
        let server = SocketAddr::new(Place::Node1.address(family), HEALTH_CHECK_PORT);
        self.bed.http_get(Place::Client, server, "/any/path")
    }

    fn wait_for_status(&self, status: u16, endpoints: usize) -> Result<()> {
        for family in FAMILIES {
            let mut last = None;
            let waited = wait_for("that answer", SOON, POLL, || {
                last = self.ask(family).ok();
                let count = format!("\"localEndpoints\": {endpoints}");
                Ok(last
                    .as_ref()
                    .is_some_and(|last| last.status == status && last.body.contains(&count)))
            });
            waited.with_context(|| {
                format!("{family}: wanted {status} and {endpoints}, got {last:?}")
            })?;
        }
        Ok(())
    }
}

/// A load balancer outside is told by the health-check node port how many local endpoints there are.
#[test]
fn the_health_check_node_port_counts_local_ready_endpoints() -> Result<()> {
    let stage = Stage::new()?;
    stage.put("Local", &["10.244.1.31", "10.244.1.32", "10.244.2.51"])?;
    let _proxy = stage.start()?;
    stage.wait_for_status(200, 2)?;
    let answer = stage.ask(Family::IPv4)?;
    ensure!(
        answer
            .headers
            .contains("x-load-balancing-endpoint-weight: 2"),
        "{answer:?}"
    );
    ensure!(
        answer.headers.contains("content-type: application/json"),
        "{answer:?}"
    );
    ensure!(answer.body.contains("\"name\": \"web\""), "{answer:?}");

    // One that terminates still gets traffic where there is no other, but does not count.
    stage.put(
        "Local",
        &["10.244.1.31 serving", "10.244.1.32", "10.244.2.51"],
    )?;
    stage.wait_for_status(200, 1)?;
    stage.put("Local", &["10.244.1.31 serving", "10.244.2.51"])?;
    stage.wait_for_status(503, 0)?;
    stage.put("Local", &["10.244.1.31", "10.244.2.51"])?;
    stage.wait_for_status(200, 1)?;
    stage.put("Cluster", &["10.244.1.31"])?;
    for family in FAMILIES {
        wait_for("the end of the health check", SOON, POLL, || {
            Ok(stage.ask(family).is_err())
        })?;
    }
    Ok(())
}

/// The sync metrics move with a change, and only with a change.
#[test]
fn sync_metrics_follow_changes_and_rest_without() -> Result<()> {
    let stage = Stage::new()?;
    stage.put("Cluster", &["10.244.1.31"])?;
    let proxy = stage.start()?;
    let last = |name: &str| -> Result<f64> {
        proxy.metric(
            &stage.bed,
            &format!("kubeproxy_sync_proxy_rules_{name}{{ip_family=\"IPv4\"}}"),
        )
    };
    let count = || last("duration_seconds_count");
    wait_for("the first sync to settle", SOON, POLL, || {
        Ok(last("last_timestamp_seconds")? >= last("last_queued_timestamp_seconds")?)
    })?;
    let before = count()?;
    std::thread::sleep(Duration::from_millis(2500));
    ensure!(count()? <= before, "it syncs while nothing changes");

    let queued = last("last_queued_timestamp_seconds")?;
    stage.put("Cluster", &["10.244.2.51"])?;
    wait_for("a sync after the change", SOON, POLL, || {
        Ok(count()? > before
            && last("last_queued_timestamp_seconds")? > queued
            && last("last_timestamp_seconds")? >= last("last_queued_timestamp_seconds")?)
    })?;
    let mode = SocketAddr::from(([127, 0, 0, 1], 10249));
    let mode = stage.bed.http_get(Place::Node1, mode, "/proxyMode")?;
    ensure!(
        (mode.status, mode.body.trim()) == (200, "iptables"),
        "{mode:?}"
    );
    Ok(())
}

/// What the kernel counts for our rules (nfacct) arrives in the metrics.
#[test]
fn packets_to_node_ports_on_localhost_are_counted() -> Result<()> {
    const TOTAL: &str = "kubeproxy_iptables_localhost_nodeports_accepted_packets_total";
    let stage = Stage::new()?;
    stage.put("Cluster", &["10.244.2.51"])?;
    stage
        .bed
        .serve_endpoint(Protocol::Tcp, "10.244.2.51:8080".parse()?)?;
    let proxy = stage.start()?;
    let before = proxy.metric(&stage.bed, TOTAL)?;
    let to = SocketAddr::from(([127, 0, 0, 1], 30_560));
    let outcome = stage
        .bed
        .probe(&Probe::new(Place::Node1, Protocol::Tcp, to))?;
    ensure!(matches!(outcome, Outcome::Answered(_)), "{outcome}");
    let after = proxy.metric(&stage.bed, TOTAL)?;
    ensure!(after > before, "{before} before, {after} after");
    Ok(())
}
