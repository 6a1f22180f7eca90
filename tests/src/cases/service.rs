//! The compact notation of a Service and its endpoints.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::format::parsed;

/// A Service and its endpoints, in the compact notation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// ClusterIP unless given.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// An address, `None` for headless, nothing for ExternalName.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// `[name ]port[->target][/PROTO][ node=N]`.
    pub ports: Vec<PortSpec>,
    /// `spec.externalIPs`.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// `status.loadBalancer.ingress`.
    pub load_balancer: Vec<IngressSpec>,
    /// `spec.loadBalancerSourceRanges`, as they are (blanks stay).
    pub source_ranges: Vec<String>,
    /// `spec.externalTrafficPolicy`.
    pub external_traffic_policy: Option<String>,
    /// `spec.internalTrafficPolicy`, Cluster unless given.
    pub internal_traffic_policy: Option<String>,
    /// Session affinity by client IP, with this time-out in seconds.
    pub affinity_seconds: Option<u32>,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// `spec.externalName`.
    pub external_name: Option<String>,
    /// Labels of the Service.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Service.
    pub annotations: BTreeMap<String, String>,
    /// Endpoints of one EndpointSlice a family; absent and without `slices`: no slice at all.
    pub endpoints: Option<Vec<EndpointSpec>>,
    /// Several slices, in place of `endpoints`.
    pub slices: Vec<SliceSpec>,
    /// Addresses of a legacy Endpoints object (in the case's first family).
    pub legacy_endpoints: Option<Vec<EndpointSpec>>,
}

impl ServiceSpec {
    /// A Service of one ClusterIP and one port, in the compact notation, with these endpoints.
    ///
    /// # Errors
    /// What is no port or no endpoint.
    pub fn new(cluster_ip: &str, port: &str, endpoints: &[&str]) -> Result<Self> {
        let endpoints = endpoints.iter().map(|text| text.parse());
        Ok(Self {
            cluster_ip: Some(cluster_ip.to_owned()),
            ports: vec![port.parse()?],
            endpoints: Some(endpoints.collect::<Result<_>>()?),
            ..Self::default()
        })
    }
}

/// One EndpointSlice.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SliceSpec {
    /// `name port[/PROTO]`; the Service's target ports unless given.
    pub ports: Option<Vec<PortSpec>>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSpec>,
    /// Further labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// An ingress point: `203.0.113.9`, or with a mode.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum IngressSpec {
    /// Just an address.
    Address(std::net::IpAddr),
    /// As Kubernetes has it.
    Full {
        /// The address.
        ip: Option<std::net::IpAddr>,
        /// A name instead of an address.
        hostname: Option<String>,
        /// `VIP` or `Proxy`.
        #[serde(rename = "ipMode")]
        ip_mode: Option<String>,
    },
}

/// A port of a Service: `[name ]port[->target][/PROTO][ node=N]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// Its name, empty if none.
    pub name: String,
    /// The Service's port.
    pub port: u16,
    /// The number, or the name, of the endpoints' port.
    pub target: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The node port, 0 if none.
    pub node_port: u16,
}

/// An endpoint: `address [state] [node=NAME|node=-] [zones=a,b] [nodes=a,b]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Its address; the IPv6 twin is derived.
    pub address: std::net::IpAddr,
    /// Its conditions.
    pub state: EndpointState,
    /// `nodeName`: `None` as the testbed has it, `Some("")` for none.
    pub node: Option<String>,
    /// Zones of its topology hints.
    pub hint_zones: Vec<String>,
    /// Nodes of its topology hints.
    pub hint_nodes: Vec<String>,
}

/// An endpoint's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// ready, serving, not terminating.
    Ready,
    /// Not ready, but serving while it terminates.
    Serving,
    /// Terminating, no longer serving.
    Terminating,
    /// Not ready, not serving, not terminating.
    Unready,
    /// No condition is given at all.
    Unset,
}

impl std::str::FromStr for PortSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let what =
            || format!("`{text}` is no port; expected `[name ]port[->target][/PROTO][ node=N]`");
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let mut node_port = 0;
        if let Some(number) = words.last().and_then(|word| word.strip_prefix("node=")) {
            node_port = number.parse().with_context(what)?;
            words.pop();
        }
        let (name, rest) = match words.as_slice() {
            [rest] => ("", *rest),
            [name, rest] => (*name, *rest),
            _ => bail!(what()),
        };
        let (numbers, protocol) = rest.split_once('/').unwrap_or((rest, "TCP"));
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            bail!(what());
        }
        let (port, target) = numbers.split_once("->").unwrap_or((numbers, numbers));
        Ok(Self {
            name: name.to_owned(),
            port: port.parse().with_context(what)?,
            target: target.to_owned(),
            protocol: protocol.to_owned(),
            node_port,
        })
    }
}

impl std::str::FromStr for EndpointSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let address = words.next().unwrap_or_default();
        let list = |names: &str| names.split(',').map(str::to_owned).collect();
        let mut endpoint = Self {
            address: address
                .parse()
                .with_context(|| format!("`{address}` is no endpoint address"))?,
            state: EndpointState::Ready,
            node: None,
            hint_zones: Vec::new(),
            hint_nodes: Vec::new(),
        };
        for word in words {
            match word.split_once('=') {
                None if word == "ready" => endpoint.state = EndpointState::Ready,
                None if word == "serving" => endpoint.state = EndpointState::Serving,
                None if word == "terminating" => endpoint.state = EndpointState::Terminating,
                None if word == "unready" => endpoint.state = EndpointState::Unready,
                None if word == "unset" => endpoint.state = EndpointState::Unset,
                Some(("node", "-")) => endpoint.node = Some(String::new()),
                Some(("node", name)) => endpoint.node = Some(name.to_owned()),
                Some(("zones", names)) => endpoint.hint_zones = list(names),
                Some(("nodes", names)) => endpoint.hint_nodes = list(names),
                _ => bail!(
                    "`{word}` in endpoint `{text}`: expected ready, serving, terminating, unready, unset, \
                     node=NAME, node=-, zones=a,b or nodes=a,b"
                ),
            }
        }
        Ok(endpoint)
    }
}

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A bare number is a port too.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text.parse().map_err(D::Error::custom),
            other => other.to_string().parse().map_err(D::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for EndpointSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_endpoints_are_read_as_documented() {
        let port: PortSpec = "dns 53->5353/UDP node=30053".parse().unwrap();
        assert_eq!(
            (port.name.as_str(), port.port, port.target.as_str()),
            ("dns", 53, "5353")
        );
        assert_eq!((port.protocol.as_str(), port.node_port), ("UDP", 30053));
        let port: PortSpec = "80".parse().unwrap();
        assert_eq!(
            (port.name.as_str(), port.target.as_str(), port.node_port),
            ("", "80", 0)
        );
        let endpoint: EndpointSpec = "10.244.1.11 serving node=- zones=zone-a,zone-b"
            .parse()
            .unwrap();
        assert_eq!(endpoint.state, EndpointState::Serving);
        assert_eq!(endpoint.node.as_deref(), Some(""));
        assert_eq!(endpoint.hint_zones, ["zone-a", "zone-b"]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["", "a b c", "80/ICMP", "http", "80 node=x"] {
            assert!(text.parse::<PortSpec>().is_err(), "{text}");
        }
        for text in ["", "10.244.1.11 redy", "10.244.1.11 zone=a"] {
            assert!(text.parse::<EndpointSpec>().is_err(), "{text}");
        }
    }
}
