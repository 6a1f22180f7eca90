//! A testbed with a proxy in eBPF mode, and the Services of its tests.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use switchyard_tests::cases::{Backend, Manifests, ServiceSpec, expand_service, node_objects};
use switchyard_tests::testbed::{
    EbpfRoots, Family, Outcome, Place, Probe, Protocol, Proxy, ProxyOptions, Testbed, wait_for,
};

pub(super) const FAMILIES: [Family; 2] = [Family::IPv4, Family::IPv6];
/// What the proxy runs with.
pub(super) const BACKEND: Backend = Backend::EBPF;
/// The Service under test: TCP 80 and UDP 53, and a node port of each.
pub(super) const VIP: &str = "10.96.5.1";
pub(super) const TCP_NODE_PORT: u16 = 30_500;
pub(super) const UDP_NODE_PORT: u16 = 30_501;
/// Target ports of every Service here.
pub(super) const TCP_TARGET: u16 = 8080;
pub(super) const UDP_TARGET: u16 = 5353;
/// One endpoint on node1, one on node2.
pub(super) const ENDPOINTS: [&str; 2] = ["10.244.1.31", "10.244.2.51"];
/// Where maps are pinned, below the proxy's directory for pins.
pub(super) const MAPS: &str = "v2";
pub(super) const POLL: Duration = Duration::from_millis(20);
pub(super) const SOON: Duration = Duration::from_secs(15);
/// Below TCP's first retry: a lost packet must show.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(900);
const MARKER: &str = "10.96.0.98";
const MARKER_ENDPOINT: &str = "10.244.2.22";
const MARKER_PORTS: [u16; 2] = [7001, 7002];

/// A testbed, and the directory its proxy reads.
pub(super) struct Stage {
    pub(super) bed: Arc<Testbed>,
    pub(super) manifests: Manifests,
    pub(super) roots: EbpfRoots,
}

impl Stage {
    /// No proxy runs yet; the usual endpoints and those of the marker answer.
    pub(super) fn new() -> Result<Self> {
        let bed = Arc::new(Testbed::build()?);
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        manifests.replace(&node_objects())?;
        let roots = bed.ebpf_roots()?;
        let stage = Self {
            bed,
            manifests,
            roots,
        };
        stage.serve(&ENDPOINTS)?;
        for port in MARKER_PORTS {
            let endpoint = SocketAddr::new(MARKER_ENDPOINT.parse()?, port);
            stage.bed.serve_endpoint(Protocol::Tcp, endpoint)?;
        }
        Ok(stage)
    }

    /// Echo servers for these addresses, on both target ports and in both families.
    pub(super) fn serve(&self, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            for family in FAMILIES {
                let address = family.twin(address.parse()?);
                for (protocol, port) in [(Protocol::Tcp, TCP_TARGET), (Protocol::Udp, UDP_TARGET)] {
                    self.bed
                        .serve_endpoint(protocol, SocketAddr::new(address, port))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn options(&self) -> Result<ProxyOptions> {
        let mut options = BACKEND.options(&self.bed, self.manifests.dir())?;
        options.flags = vec!["--iptables-min-sync-period=0s".to_owned()];
        Ok(options)
    }

    pub(super) fn start(&self) -> Result<Proxy> {
        Proxy::start(&self.bed, self.options()?)
    }

    /// Runs the proxy's binary to its end on node1, and fails unless it ends well.
    pub(super) fn command(&self, arguments: &[String]) -> Result<String> {
        let binary = self.options()?.binary.display().to_string();
        let mut command = vec![binary.as_str()];
        command.extend(arguments.iter().map(String::as_str));
        self.bed
            .run(Place::Node1, &command, "")?
            .success(&arguments.join(" "))
    }

    /// `--cleanup`, to its end.
    pub(super) fn cleanup(&self) -> Result<()> {
        let mut options = self.options()?;
        options.flags.push("--cleanup".to_owned());
        options.log = self.bed.work_dir().join("cleanup.log");
        let mut cleanup = Proxy::spawn(&self.bed, options)?;
        let status = cleanup.wait_exit(SOON)?;
        ensure!(
            status.success(),
            "--cleanup ended with {status}:\n{}",
            cleanup.log_tail(20)
        );
        Ok(())
    }

    /// Lays down a cluster of these Services, and a marker that tells its generation.
    pub(super) fn put(&self, services: &[(String, ServiceSpec)], generation: usize) -> Result<()> {
        let mut objects = node_objects();
        for (name, spec) in services {
            objects.extend(expand_service(name, spec, &FAMILIES)?);
        }
        objects.extend(marker(generation)?);
        self.manifests.replace(&objects)
    }

    /// Waits until the marker tells that this generation is in the kernel.
    pub(super) fn wait_for_generation(&self, generation: usize) -> Result<()> {
        wait_for("programming the change", SOON, POLL, || {
            self.is_generation(generation)
        })
    }

    /// Whether the marker tells that it is.
    pub(super) fn is_generation(&self, generation: usize) -> Result<bool> {
        let goal = MARKER_PORTS[generation % MARKER_PORTS.len()];
        let probe = Probe::new(
            Place::Pod12,
            Protocol::Tcp,
            SocketAddr::new(MARKER.parse()?, 80),
        )
        .timeout(ANSWER_TIMEOUT);
        let outcome = self.bed.probe(&probe)?;
        Ok(matches!(outcome, Outcome::Answered(answer) if answer.by.port() == goal))
    }

    /// Fails unless TCP and UDP to the Service are answered by one of `endpoints`, in both families
    /// and from every place that is given.
    pub(super) fn expect_answers(&self, from: &[Place], endpoints: &[&str]) -> Result<()> {
        for probe in self.probes(from)? {
            let outcome = self.bed.probe(&probe)?;
            let family = Family::of(probe.to.ip());
            let right = matches!(&outcome, Outcome::Answered(answer) if endpoints.iter().any(|endpoint| {
                endpoint.parse().is_ok_and(|endpoint| family.twin(endpoint) == answer.by.ip())
            }));
            ensure!(
                right,
                "{} {} -> {}: {outcome}, not one of {endpoints:?}",
                probe.protocol,
                probe.from,
                probe.to
            );
        }
        Ok(())
    }

    fn probes(&self, from: &[Place]) -> Result<Vec<Probe>> {
        let mut probes = Vec::new();
        for place in from {
            for family in FAMILIES {
                for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
                    let to = SocketAddr::new(family.twin(VIP.parse()?), port);
                    probes.push(Probe::new(*place, protocol, to).timeout(ANSWER_TIMEOUT));
                }
            }
        }
        Ok(probes)
    }

    /// Every file (a pin) below the directory for pins; none where it does not exist.
    pub(super) fn pins(&self) -> Result<Vec<PathBuf>> {
        let mut pins = Vec::new();
        let mut open = vec![self.roots.bpf.clone()];
        while let Some(dir) = open.pop() {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context(dir.display().to_string()),
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else {
                    pins.push(entry.path());
                }
            }
        }
        pins.sort();
        Ok(pins)
    }
}

/// The Service under test with these endpoints.
pub(super) fn main_service(endpoints: &[&str]) -> Result<(String, ServiceSpec)> {
    let spec = ServiceSpec {
        kind: Some("NodePort".to_owned()),
        ports: vec![
            format!("t 80->{TCP_TARGET}/TCP node={TCP_NODE_PORT}").parse()?,
            format!("u 53->{UDP_TARGET}/UDP node={UDP_NODE_PORT}").parse()?,
        ],
        ..cluster_ip_service(VIP, endpoints)?
    };
    Ok(("main".to_owned(), spec))
}

/// A ClusterIP Service: TCP 80 and UDP 53.
pub(super) fn cluster_ip_service(address: &str, endpoints: &[&str]) -> Result<ServiceSpec> {
    Ok(ServiceSpec {
        cluster_ip: Some(address.to_owned()),
        ports: vec![
            format!("t 80->{TCP_TARGET}/TCP").parse()?,
            format!("u 53->{UDP_TARGET}/UDP").parse()?,
        ],
        endpoints: Some(
            endpoints
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_>>()?,
        ),
        ..ServiceSpec::default()
    })
}

/// A Service whose endpoint's port tells the generation of the cluster.
pub(super) fn marker(generation: usize) -> Result<Vec<Value>> {
    let port = MARKER_PORTS[generation % MARKER_PORTS.len()];
    let spec = ServiceSpec {
        cluster_ip: Some(MARKER.to_owned()),
        ports: vec![format!("80->{port}").parse()?],
        endpoints: Some(vec![MARKER_ENDPOINT.parse()?]),
        ..ServiceSpec::default()
    };
    expand_service("testbed/marker", &spec, &[Family::IPv4])
}
