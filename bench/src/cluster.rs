//! A generated cluster: Services with a ClusterIP and their EndpointSlices, IPv4.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use switchyard_tests::testbed::{Family, Place};

/// Services and slices in one file of manifests.
const OBJECTS_PER_FILE: usize = 250;
/// The first ClusterIP; the testbed routes 10.96.0.0/16 to node1.
pub(crate) const FIRST_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 16, 0);
/// The first address of endpoints nobody asks.
const FIRST_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// As many addresses as there are from either on within their network.
const MAX_SERVICES: usize = 60_000;
const MAX_ENDPOINTS: usize = 1_000_000;

/// The namespace of all Services.
pub(crate) const NAMESPACE: &str = "bench";
/// The Service whose endpoint changes.
const PROBE: &str = "probe";
/// Where an API server has the slice that changes.
pub(crate) const PROBE_PATH: &str =
    "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices/probe-ipv4";
/// The port of every Service and of every endpoint.
const PORTS: (u16, u16) = (80, 8080);
/// The file with the changing slice.
const PROBE_FILE: &str = "probe-slice.yaml";

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Services, the one that is probed among them.
    pub services: usize,
    /// Endpoints of all Services together.
    pub endpoints: usize,
}

/// Which of its two endpoints the probed Service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A pod of node1.
    Here,
    /// A pod of node2.
    There,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Here => Self::There,
            Self::There => Self::Here,
        }
    }

    /// Where its endpoint lives.
    #[must_use]
    pub const fn place(self) -> Place {
        match self {
            Self::Here => Place::Pod11,
            Self::There => Place::Pod21,
        }
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(self) -> SocketAddr {
        SocketAddr::new(self.place().address(Family::IPv4), PORTS.1)
    }
}

/// Where the probed Service is reached.
#[must_use]
pub fn probe_address() -> SocketAddr {
    SocketAddr::from((FIRST_CLUSTER_IP, PORTS.0))
}

/// Every object of a cluster of this size, the probed Service first.
///
/// # Errors
/// More Services or endpoints than there are addresses for, or fewer endpoints than Services.
pub fn objects(size: Size, side: Side) -> Result<Vec<Value>> {
    let Size {
        services,
        endpoints,
    } = size;
    if services > MAX_SERVICES || endpoints > MAX_ENDPOINTS || services == 0 {
        bail!("1 to {MAX_SERVICES} Services and up to {MAX_ENDPOINTS} endpoints are possible");
    }
    if endpoints < services {
        bail!("every Service needs an endpoint: at least {services}");
    }
    let mut all = Vec::from(nodes());
    all.extend([probe_service(), probe_slice(side)]);
    let (mut left, mut next) = (endpoints - 1, FIRST_ENDPOINT);
    for number in 1..services {
        // As even as it goes, the larger ones last.
        let count = left / (services - number);
        let addresses = (0..count)
            .map(|offset| plus(next, offset).map(IpAddr::V4))
            .collect::<Result<Vec<_>>>()?;
        let name = format!("svc-{number:05}");
        all.push(service(&name, plus(FIRST_CLUSTER_IP, number)?));
        all.push(slice(&name, &addresses, "node2"));
        next = plus(next, count)?;
        left -= count;
    }
    Ok(all)
}

/// The testbed's two nodes.
pub(crate) fn nodes() -> [Value; 2] {
    [
        node("node1", "192.168.100.11", "10.244.1.0/24"),
        node("node2", "192.168.100.12", "10.244.2.0/24"),
    ]
}

/// The Service that is probed, without its slice.
pub(crate) fn probe_service() -> Value {
    service(PROBE, FIRST_CLUSTER_IP)
}

/// The slice of the probed Service.
#[must_use]
pub fn probe_slice(side: Side) -> Value {
    let node = side.place().node().unwrap_or_default();
    slice(PROBE, &[side.endpoint().ip()], node)
}

/// Lays a cluster down as manifests.
///
/// # Errors
/// A file that can't be written; see also [`objects`].
pub fn write_manifests(dir: &Path, size: Size, side: Side) -> Result<()> {
    let probe = probe_slice(side);
    let mut all = objects(size, side)?;
    all.retain(|object| *object != probe);
    write_objects(dir, &all, side)
}

/// Lays objects down as manifests, and the slice of the probed Service in a file of its own.
pub(crate) fn write_objects(dir: &Path, objects: &[Value], side: Side) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (number, chunk) in objects.chunks(OBJECTS_PER_FILE).enumerate() {
        write_documents(&dir.join(format!("objects-{number:04}.yaml")), chunk)?;
    }
    write_documents(&dir.join(PROBE_FILE), &[probe_slice(side)])
}

/// Gives the probed Service its other endpoint, by an atomic rename.
///
/// # Errors
/// The file can't be written.
pub fn change_manifest(dir: &Path, side: Side) -> Result<()> {
    let fresh = dir.join(".probe-slice.new");
    write_documents(&fresh, &[probe_slice(side)])?;
    fs::rename(&fresh, dir.join(PROBE_FILE)).context("rename the changed slice")
}

fn write_documents(path: &Path, objects: &[Value]) -> Result<()> {
    let mut text = Vec::new();
    for object in objects {
        writeln!(text, "---\n{object}")?;
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

pub(crate) fn plus(address: Ipv4Addr, offset: usize) -> Result<Ipv4Addr> {
    let sum = u32::from(address).checked_add(u32::try_from(offset)?);
    Ok(sum.context("past the last IPv4 address")?.into())
}

fn node(name: &str, address: &str, pods: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": pods, "podCIDRs": [pods]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

fn service(name: &str, cluster_ip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "http", "protocol": "TCP", "port": PORTS.0, "targetPort": PORTS.1}],
        },
    })
}

fn slice(service: &str, addresses: &[IpAddr], node: &str) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| {
            json!({
                "addresses": [address],
                "nodeName": node,
                "conditions": {"ready": true, "serving": true, "terminating": false},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-ipv4"),
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": PORTS.1}],
        "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_cluster_has_the_size_asked_for_and_no_address_twice() {
        let size = Size {
            services: 5000,
            endpoints: 12_500,
        };
        let all = objects(size, Side::Here).unwrap();
        let of = |kind: &str| {
            all.iter()
                .filter(|object| object["kind"] == kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("Service").len(), 5000);
        let vips: BTreeSet<String> = of("Service")
            .iter()
            .map(|s| s["spec"]["clusterIP"].to_string())
            .collect();
        assert_eq!(vips.len(), 5000);
        let mut addresses = BTreeSet::new();
        for slice in of("EndpointSlice") {
            let endpoints = slice["endpoints"].as_array().unwrap();
            assert!((1..=3).contains(&endpoints.len()));
            addresses.extend(endpoints.iter().map(|e| e["addresses"][0].to_string()));
        }
        assert_eq!(addresses.len(), 12_500);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (services, endpoints) in [(0, 0), (10, 9), (10, MAX_ENDPOINTS + 1)] {
            assert!(
                objects(
                    Size {
                        services,
                        endpoints
                    },
                    Side::Here
                )
                .is_err()
            );
        }
    }

    #[test]
    fn a_change_touches_one_file() {
        let dir = tempfile_dir();
        let size = Size {
            services: 3,
            endpoints: 4,
        };
        write_manifests(&dir, size, Side::Here).unwrap();
        let before = fs::read_to_string(dir.join(PROBE_FILE)).unwrap();
        change_manifest(&dir, Side::There).unwrap();
        let after = fs::read_to_string(dir.join(PROBE_FILE)).unwrap();
        assert_ne!(before, after);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_dir_all(&dir).unwrap();
    }

    fn tempfile_dir() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("switchyard-bench-{}", std::process::id()))
    }
}
