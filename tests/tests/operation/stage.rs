//! A proxy on node1 that follows an API server, and a Service that answers.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use switchyard_tests::cases::{ServiceSpec, expand_service, node_objects};
use switchyard_tests::testbed::{
    Api, Family, Outcome, Place, Probe, Protocol, ProxyOptions, Testbed,
};

pub(super) const POLL: Duration = Duration::from_millis(50);
pub(super) const SOON: Duration = Duration::from_secs(60);
const VIP: &str = "10.96.7.7:80";
const ENDPOINT: &str = "10.244.1.31";

pub(super) struct Stage {
    /// Goes before the testbed that it lives in.
    pub(super) api: Api,
    pub(super) bed: Testbed,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let bed = Testbed::build()?;
        let endpoint = format!("{ENDPOINT}:8080").parse()?;
        bed.serve_endpoint(Protocol::Tcp, endpoint)?;
        let api = Api::start(&bed, Place::Node1)?;
        api.set(objects()?)?;
        Ok(Self { api, bed })
    }

    /// Of a proxy that follows the API server.
    pub(super) fn options(&self, mode: &str) -> Result<ProxyOptions> {
        let mut options = ProxyOptions::new(&self.bed, self.bed.work_dir(), mode)?;
        self.api.serves(&mut options);
        Ok(options)
    }

    /// A new connection from a pod to the Service is answered.
    pub(super) fn answers(&self) -> Result<()> {
        let probe = Probe::new(Place::Pod12, Protocol::Tcp, VIP.parse()?);
        let outcome = self.bed.probe(&probe)?;
        ensure!(matches!(outcome, Outcome::Answered(_)), "{outcome}");
        Ok(())
    }
}

/// The nodes, and the Service.
pub(super) fn objects() -> Result<Vec<Value>> {
    let spec = ServiceSpec {
        cluster_ip: Some("10.96.7.7".to_owned()),
        ports: vec!["80->8080/TCP".parse()?],
        endpoints: Some(vec![ENDPOINT.parse()?]),
        ..ServiceSpec::default()
    };
    let mut objects = node_objects();
    objects.extend(expand_service("web", &spec, &[Family::IPv4])?);
    Ok(objects)
}
