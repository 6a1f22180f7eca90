//! A generated cluster for DNS: namespaces, Services of both kinds, their EndpointSlices.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The cluster's zone.
pub(super) const ZONE: &str = "cluster.local";
/// Namespaces the Services are spread over.
pub(super) const NAMESPACES: usize = 20;
/// The port of every Service, by this name, and of every endpoint.
pub(super) const PORT: (&str, u16, u16) = ("http", 80, 8080);
/// Every so many Services one is headless.
const HEADLESS_EVERY: usize = 10;
/// Every so many Services one has an IPv6 address too.
const DUAL_STACK_EVERY: usize = 2;
const FIRST_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 0);
const FIRST_CLUSTER_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x1000);
const FIRST_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// As many addresses as there are from either on, of which we take care to stay clear.
const MAX_SERVICES: usize = 50_000;
const MAX_ENDPOINTS: usize = 1_000_000;
/// Endpoints of one slice, as the control plane makes them.
const ENDPOINTS_PER_SLICE: usize = 100;
const OBJECTS_PER_FILE: usize = 250;

/// A Service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) namespace: String,
    /// None: headless.
    pub(super) cluster_ip: Option<Ipv4Addr>,
    pub(super) cluster_ip6: Option<Ipv6Addr>,
    pub(super) endpoints: Vec<Ipv4Addr>,
}

impl Service {
    /// Its name in the DNS, without the last dot.
    pub(super) fn domain(&self) -> String {
        format!("{}.{}.svc.{ZONE}", self.name, self.namespace)
    }

    pub(super) const fn is_headless(&self) -> bool {
        self.cluster_ip.is_none()
    }

    /// The object.
    pub(super) fn object(&self) -> Value {
        let families = if self.cluster_ip6.is_some() {
            json!(["IPv4", "IPv6"])
        } else {
            json!(["IPv4"])
        };
        let ips: Vec<String> = match (self.cluster_ip, self.cluster_ip6) {
            (None, _) => vec!["None".to_owned()],
            (Some(v4), None) => vec![v4.to_string()],
            (Some(v4), Some(v6)) => vec![v4.to_string(), v6.to_string()],
        };
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": ips.first(),
                "clusterIPs": ips,
                "ipFamilies": families,
                "ipFamilyPolicy": if self.cluster_ip6.is_some() { "RequireDualStack" } else { "SingleStack" },
                "internalTrafficPolicy": "Cluster",
                "sessionAffinity": "None",
                "ports": [{"name": PORT.0, "protocol": "TCP", "port": PORT.1, "targetPort": PORT.2}],
            },
            "status": {"loadBalancer": {}},
        })
    }

    /// Its slices.
    pub(super) fn slices(&self) -> Vec<Value> {
        let chunks = self.endpoints.chunks(ENDPOINTS_PER_SLICE);
        chunks
            .enumerate()
            .map(|(number, addresses)| self.slice(number, addresses))
            .collect()
    }

    /// One slice with these addresses.
    pub(super) fn slice(&self, number: usize, addresses: &[Ipv4Addr]) -> Value {
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|address| {
                json!({
                    "addresses": [address],
                    "nodeName": "node1",
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "targetRef": {
                        "kind": "Pod",
                        "name": format!("{}-{:08x}", self.name, u32::from(*address)),
                        "namespace": self.namespace,
                    },
                })
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": slice_name(&self.name, number),
                "namespace": self.namespace,
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": "IPv4",
            "ports": [{"name": PORT.0, "protocol": "TCP", "port": PORT.2}],
            "endpoints": endpoints,
        })
    }

    /// Where an API server has one of its slices.
    pub(super) fn slice_path(&self, number: usize) -> String {
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{}",
            self.namespace,
            slice_name(&self.name, number)
        )
    }
}

fn slice_name(service: &str, number: usize) -> String {
    format!("{service}-{number:03}")
}

/// All Services of a cluster of this size.
///
/// # Errors
/// A size there are no addresses for.
pub(super) fn services(count: usize, endpoints: usize) -> Result<Vec<Service>> {
    if !(HEADLESS_EVERY..=MAX_SERVICES).contains(&count) {
        bail!("{HEADLESS_EVERY} to {MAX_SERVICES} Services are possible");
    }
    if endpoints < count || endpoints > MAX_ENDPOINTS {
        bail!("{count} (one each) to {MAX_ENDPOINTS} endpoints are possible");
    }
    let (mut left, mut next) = (endpoints, u32::from(FIRST_ENDPOINT));
    let mut all = Vec::with_capacity(count);
    for number in 0..count {
        // As even as it goes, the larger ones last.
        let share = left / (count - number);
        left -= share;
        let end = next + u32::try_from(share)?;
        all.push(service(number, (next..end).map(Ipv4Addr::from).collect())?);
        next = end;
    }
    Ok(all)
}

/// The Service of this number.
pub(super) fn service(number: usize, endpoints: Vec<Ipv4Addr>) -> Result<Service> {
    let offset = u32::try_from(number)?;
    let headless = number % HEADLESS_EVERY == HEADLESS_EVERY - 1;
    let dual = !headless && number.is_multiple_of(DUAL_STACK_EVERY);
    let v6 = u128::from(FIRST_CLUSTER_IP6) + u128::from(offset);
    Ok(Service {
        name: format!("svc-{number:05}"),
        namespace: namespace(number % NAMESPACES),
        cluster_ip: (!headless).then(|| Ipv4Addr::from(u32::from(FIRST_CLUSTER_IP) + offset)),
        cluster_ip6: dual.then(|| Ipv6Addr::from(v6)),
        endpoints,
    })
}

pub(super) fn namespace(number: usize) -> String {
    format!("team-{number:02}")
}

/// Lays the cluster down as manifests.
///
/// # Errors
/// A file can't be written.
pub(super) fn write_manifests(dir: &Path, services: &[Service]) -> Result<()> {
    fs::create_dir_all(dir)?;
    let mut objects: Vec<Value> = (0..NAMESPACES)
        .map(|number| {
            json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": namespace(number)},
                "status": {"phase": "Active"},
            })
        })
        .collect();
    for service in services {
        objects.push(service.object());
        objects.extend(service.slices());
    }
    for (number, chunk) in objects.chunks(OBJECTS_PER_FILE).enumerate() {
        let mut text = Vec::new();
        for object in chunk {
            writeln!(text, "---\n{object}")?;
        }
        let path = dir.join(format!("objects-{number:04}.yaml"));
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_cluster_has_the_size_asked_for_and_no_address_twice() {
        let all = services(1000, 4007).unwrap();
        assert_eq!(all.len(), 1000);
        assert_eq!(
            all.iter().filter(|service| service.is_headless()).count(),
            100
        );
        let endpoints: BTreeSet<_> = all.iter().flat_map(|service| &service.endpoints).collect();
        assert_eq!(endpoints.len(), 4007);
        let ips: BTreeSet<_> = all
            .iter()
            .filter_map(|service| service.cluster_ip)
            .collect();
        assert_eq!(ips.len(), 900);
        assert!(all.iter().any(|service| service.cluster_ip6.is_some()));
    }

    #[test]
    fn a_large_service_has_several_slices() {
        let all = services(10, 2010).unwrap();
        let slices = all[9].slices();
        assert_eq!(slices.len(), 3);
        assert_eq!(slices[2]["endpoints"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (count, endpoints) in [(9, 9), (10, 9), (60_000, 60_000)] {
            assert!(services(count, endpoints).is_err());
        }
    }
}
