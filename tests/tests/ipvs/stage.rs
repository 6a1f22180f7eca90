//! What tests of ipvs mode stand on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use switchyard_tests::cases::{Backend, Manifests, ServiceSpec, expand_service, node_objects};
use switchyard_tests::testbed::{
    Family, Outcome, Place, Probe, Protocol, Proxy, Testbed, require_root, require_tools, wait_for,
};

pub(super) const VIP: &str = "10.96.6.1:80";
pub(super) const ENDPOINTS: [&str; 2] = ["10.244.1.31", "10.244.2.51"];
pub(super) const FAMILIES: [Family; 2] = [Family::IPv4, Family::IPv6];
pub(super) const POLL: Duration = Duration::from_millis(50);
/// Emulated processors are slow.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// For what is seen or done at the next comparison only.
pub(super) const EACH_SECOND: &str = "--ipvs-sync-period=1s";

/// The testbed, with the endpoints' servers.
pub(super) struct Stage {
    pub(super) bed: Arc<Testbed>,
    pub(super) manifests: Manifests,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        require_root()?;
        require_tools(&["ipvsadm", "ipset", "ip"])?;
        let bed = Arc::new(Testbed::build()?);
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        for address in ENDPOINTS {
            for family in FAMILIES {
                let endpoint = family.twin_socket(format!("{address}:8080").parse()?);
                bed.serve_endpoint(Protocol::Tcp, endpoint)?;
            }
        }
        Ok(Self { bed, manifests })
    }

    pub(super) fn start(&self, backend: Backend, flags: &[&str]) -> Result<Proxy> {
        let mut options = backend.options(&self.bed, self.manifests.dir())?;
        options.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Proxy::start(&self.bed, options)
    }

    pub(super) fn put(&self, services: &[ServiceSpec]) -> Result<()> {
        let mut objects: Vec<Value> = node_objects();
        for (number, service) in services.iter().enumerate() {
            objects.extend(expand_service(&format!("svc{number}"), service, &FAMILIES)?);
        }
        self.manifests.replace(&objects)
    }

    /// What a command prints in node1.
    pub(super) fn run(&self, command: &str) -> Result<String> {
        let words: Vec<&str> = command.split(' ').collect();
        self.bed.run(Place::Node1, &words, "")?.success(command)
    }

    pub(super) fn wait_listed(
        &self,
        command: &str,
        line: &str,
        is_there: bool,
        limit: Duration,
    ) -> Result<()> {
        let mut listed = String::new();
        let waited = wait_for(&format!("{line:?} in `{command}`"), limit, POLL, || {
            listed = self.run(command)?;
            Ok(listed.lines().any(|own| own.trim() == line) == is_there)
        });
        waited.with_context(|| format!("it lists:\n{listed}"))
    }

    pub(super) fn wait_answered(&self, from: Place, to: &str, by: &str) -> Result<()> {
        let probe = Probe::new(from, Protocol::Tcp, to.parse()?);
        wait_for(&format!("{to} answered by {by}"), SOON, POLL, || {
            Ok(matches!(self.bed.probe(&probe)?, Outcome::Answered(answer)
                if answer.by.ip() == by.parse::<std::net::IpAddr>()?))
        })
    }
}

/// A Service of 10.96.6.1 with these endpoints.
pub(super) fn service(endpoints: &[&str]) -> Result<ServiceSpec> {
    ServiceSpec::new("10.96.6.1", "p80 80->8080", endpoints)
}
