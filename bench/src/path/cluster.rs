//! The cluster of this bench: many Services that nobody asks, and in their middle those that are measured.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use switchyard_tests::testbed::{Family, Place};

use crate::cluster::{FIRST_CLUSTER_IP, NAMESPACE, nodes, plus, probe_service};

/// The port of every Service.
pub(super) const SERVICE_PORT: u16 = 80;
/// The port of every endpoint, TCP and UDP. The probed Service's echo servers have another.
pub(super) const ENDPOINT_PORT: u16 = 9000;
/// The measured ClusterIPs are these and the next; the testbed routes them to node1.
const FIRST_MEASURED: Ipv4Addr = Ipv4Addr::new(10, 96, 8, 1);
/// The first address of endpoints nobody asks.
const FIRST_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// The measured ones, the probed one, and at least one before and after them.
const MIN_SERVICES: usize = 10;
/// Addresses from either first address on within their networks.
const MAX_SERVICES: usize = 1_000_000;

/// A Service that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measured {
    /// Its endpoint is a pod of node1.
    Here,
    /// The same, with `externalTrafficPolicy: Local`.
    HereLocal,
    /// Its endpoint is a pod of node1 with a device of its own there, not behind the bridge.
    HereVeth,
    /// Its endpoint is a pod of node2.
    There,
}

impl Measured {
    pub(super) const ALL: [Self; 4] = [Self::Here, Self::HereLocal, Self::HereVeth, Self::There];

    /// The pod that is its endpoint.
    pub(super) const fn pod(self) -> Place {
        match self {
            Self::Here | Self::HereLocal => Place::Pod11,
            Self::HereVeth => Place::Pod12,
            Self::There => Place::Pod21,
        }
    }

    pub(super) fn endpoint(self) -> SocketAddr {
        SocketAddr::new(self.pod().address(Family::IPv4), ENDPOINT_PORT)
    }

    pub(super) fn cluster_ip(self) -> Ipv4Addr {
        let offset = match self {
            Self::Here => 0,
            Self::HereLocal => 1,
            Self::HereVeth => 2,
            Self::There => 3,
        };
        // Far from the last address: it can't overflow.
        Ipv4Addr::from(u32::from(FIRST_MEASURED) + offset)
    }

    pub(super) const fn node_port(self) -> u16 {
        match self {
            Self::Here => 30_001,
            Self::HereLocal => 30_002,
            Self::HereVeth => 30_003,
            Self::There => 30_004,
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::HereLocal => "here-local",
            Self::HereVeth => "here-veth",
            Self::There => "there",
        }
    }
}

/// An endpoint, by its address and the node it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: Ipv4Addr,
    pub(super) node: &'static str,
}

/// A Service of the generated cluster.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) cluster_ip: Ipv4Addr,
    /// Which of the measured ones it is: those have a node port, and serve UDP too.
    pub(super) measured: Option<Measured>,
    pub(super) endpoints: Vec<Endpoint>,
}

impl Service {
    /// The protocols it serves, in small letters.
    pub(super) const fn protocols(&self) -> &'static [&'static str] {
        match self.measured {
            Some(_) => &["tcp", "udp"],
            None => &["tcp"],
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.measured == Some(Measured::HereLocal)
    }

    fn manifest(&self) -> Value {
        let ports: Vec<Value> = self
            .protocols()
            .iter()
            .map(|protocol| {
                let mut port = json!({
                    "name": protocol,
                    "protocol": protocol.to_uppercase(),
                    "port": SERVICE_PORT,
                    "targetPort": ENDPOINT_PORT,
                });
                if let Some(measured) = self.measured {
                    port["nodePort"] = measured.node_port().into();
                }
                port
            })
            .collect();
        let mut spec = json!({
            "type": "ClusterIP",
            "clusterIP": self.cluster_ip,
            "clusterIPs": [self.cluster_ip],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": ports,
        });
        if self.measured.is_some() {
            spec["type"] = "NodePort".into();
            let policy = if self.is_local() { "Local" } else { "Cluster" };
            spec["externalTrafficPolicy"] = policy.into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "namespace": NAMESPACE},
            "spec": spec,
        })
    }

    fn slice(&self) -> Value {
        let endpoints: Vec<Value> = self
            .endpoints
            .iter()
            .map(|endpoint| {
                json!({
                    "addresses": [endpoint.address],
                    "nodeName": endpoint.node,
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                })
            })
            .collect();
        let ports: Vec<Value> = self
            .protocols()
            .iter()
            .map(|protocol| json!({"name": protocol, "protocol": protocol.to_uppercase(), "port": ENDPOINT_PORT}))
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-ipv4", self.name),
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": endpoints,
        })
    }
}

/// So many Services, in the order of their names, the measured ones in the middle; one less,
/// since the probed Service counts too.
///
/// # Errors
/// Fewer than 10 or more than a million.
pub(super) fn services(count: usize) -> Result<Vec<Service>> {
    if !(MIN_SERVICES..=MAX_SERVICES).contains(&count) {
        bail!("--services {count}: expected {MIN_SERVICES} to {MAX_SERVICES}");
    }
    let plain = count - 1 - Measured::ALL.len();
    let mut all = Vec::with_capacity(count);
    let mut next = FIRST_ENDPOINT;
    for number in 0..plain {
        if number == plain / 2 {
            all.extend(Measured::ALL.map(|measured| in_the_middle(number, measured)));
        }
        // One and two endpoints, in turn.
        let own = 1 + number % 2;
        let endpoints = (0..own)
            .map(|offset| {
                let address = plus(next, offset)?;
                Ok(Endpoint {
                    address,
                    node: "node2",
                })
            })
            .collect::<Result<_>>()?;
        next = plus(next, own)?;
        all.push(Service {
            name: format!("svc-{number:07}"),
            // The first one is the probed Service's.
            cluster_ip: plus(FIRST_CLUSTER_IP, number + 1)?,
            measured: None,
            endpoints,
        });
    }
    Ok(all)
}

fn in_the_middle(number: usize, measured: Measured) -> Service {
    let address = match measured.endpoint() {
        SocketAddr::V4(v4) => *v4.ip(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    Service {
        // Its name sorts before that of the plain one with the same number.
        name: format!("svc-{:07}-{}", number.saturating_sub(1), measured.suffix()),
        cluster_ip: measured.cluster_ip(),
        measured: Some(measured),
        endpoints: vec![Endpoint {
            address,
            node: measured.pod().node().unwrap_or_default(),
        }],
    }
}

/// All objects but the probed Service's slice.
pub(super) fn objects(services: &[Service]) -> Vec<Value> {
    let mut all = Vec::from(nodes());
    all.push(probe_service());
    all.extend(
        services
            .iter()
            .flat_map(|service| [service.manifest(), service.slice()]),
    );
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_measured_services_are_in_the_middle_of_the_order() {
        for count in [10, 1000] {
            let all = services(count).unwrap();
            assert_eq!(all.len() + 1, count);
            let names: Vec<&str> = all.iter().map(|service| service.name.as_str()).collect();
            assert!(names.is_sorted(), "{names:?}");
            let first = all.iter().position(|s| s.measured.is_some()).unwrap();
            assert_eq!(first, (count - 5) / 2);
        }
    }

    #[test]
    fn no_address_is_there_twice() {
        let all = services(1000).unwrap();
        let vips: BTreeSet<_> = all.iter().map(|service| service.cluster_ip).collect();
        assert_eq!(vips.len(), 999);
        let plain = all.iter().filter(|service| service.measured.is_none());
        let endpoints: Vec<_> = plain.flat_map(|service| &service.endpoints).collect();
        let distinct: BTreeSet<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(distinct.len(), endpoints.len());
        assert_eq!(endpoints.len(), 995 / 2 * 3 + 1);
    }

    #[test]
    fn only_measured_services_have_node_ports() {
        let objects = objects(&services(10).unwrap());
        let of_type = |kind: &str| {
            let typed = objects.iter().filter(|o| o["spec"]["type"] == kind);
            typed.count()
        };
        assert_eq!((of_type("NodePort"), of_type("ClusterIP")), (4, 6));
        assert!(services(9).is_err());
    }
}
