//! The notation of a case file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::expect::Expect;
use crate::testbed::{Family, IptablesTool, Place, Protocol};

/// One case: a cluster, and the steps that try it.
#[derive(Debug, Clone)]
pub struct Case {
    /// `<file>: <name>`, unique over all files.
    pub name: String,
    /// The families it runs in, all at the same time on dual-stack Services.
    pub families: Vec<Family>,
    /// Flags of the proxy beyond the usual ones.
    pub flags: Vec<String>,
    /// Addresses that are on node1's loopback during the case.
    pub node_addresses: Vec<std::net::IpAddr>,
    /// The Services it starts with, by `name` or `namespace/name`.
    pub services: BTreeMap<String, ServiceSpec>,
    /// Plain Kubernetes objects it starts with.
    pub objects: Vec<serde_json::Value>,
    /// What happens then.
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    services: BTreeMap<String, ServiceSpec>,
    cases: Vec<CaseSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CaseSpec {
    name: String,
    #[serde(default = "both_families")]
    families: Vec<Family>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    node_addresses: Vec<std::net::IpAddr>,
    #[serde(default)]
    services: BTreeMap<String, ServiceSpec>,
    #[serde(default)]
    objects: Vec<serde_json::Value>,
    steps: Vec<Step>,
}

fn both_families() -> Vec<Family> {
    vec![Family::IPv4, Family::IPv6]
}

/// A change, then packets. Parts of one step happen in the order of the fields here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// What the step shows.
    #[serde(default)]
    pub name: String,
    /// What is done to the proxy before the objects change.
    pub proxy: Option<ProxyAction>,
    /// Services that are added, or replaced as a whole.
    #[serde(default)]
    pub set: BTreeMap<String, ServiceSpec>,
    /// Services that go, with their EndpointSlices.
    #[serde(default)]
    pub delete: Vec<String>,
    /// Plain objects that replace all plain objects of the case.
    pub objects: Option<Vec<serde_json::Value>>,
    /// What is done to the proxy after the objects changed.
    pub then_proxy: Option<ProxyAction>,
    /// A pause, for what only time can show (affinity that expires).
    #[serde(default, deserialize_with = "seconds")]
    pub wait: Duration,
    /// Packets, all sent at the same time.
    #[serde(default)]
    pub packets: Vec<PacketSpec>,
    /// Lines that must or must not stand in the saved rules.
    #[serde(default)]
    pub rules: RulesSpec,
}

/// What is done to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyAction {
    /// SIGTERM, its end, a new start.
    Restart,
    /// SIGKILL and a new start.
    Crash,
    /// SIGTERM.
    Stop,
    /// Start again after `stop`.
    Start,
}

/// Text patterns over `iptables-save` of a family; `*` stands for anything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RulesSpec {
    /// Each must match a whole line.
    #[serde(default)]
    pub has: Vec<String>,
    /// None may match a whole line.
    #[serde(default)]
    pub has_not: Vec<String>,
}

/// Packets of one kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PacketSpec {
    /// The case id a report names, as in the reference's tables.
    #[serde(default)]
    pub id: String,
    /// Where it is sent.
    #[serde(deserialize_with = "parsed")]
    pub from: Place,
    /// The client's own address, if not its main one.
    pub source: Option<std::net::IpAddr>,
    /// To which address and port.
    pub to: std::net::SocketAddr,
    /// TCP unless it says `udp`.
    #[serde(default = "tcp", deserialize_with = "parsed")]
    pub proto: Protocol,
    /// What must come back.
    pub expect: Expect,
    /// Whether the endpoint must see node1's address instead of the client's.
    #[serde(default, deserialize_with = "yes_or_no")]
    pub masq: Option<bool>,
    /// Packets with the same name come from one socket, over all steps.
    pub flow: Option<String>,
    /// The families in which it is sent, if not all of the case's.
    pub families: Option<Vec<Family>>,
    /// Only with these iptables tools (none given: with all).
    pub only: Option<Vec<Tool>>,
    /// Bytes of a request.
    #[serde(default = "two")]
    pub bytes: usize,
    /// The pause between tries, for expectations that traffic itself would keep from coming true.
    #[serde(default, deserialize_with = "seconds")]
    pub every: Duration,
    /// How long the expectation may take to come true.
    #[serde(default = "settle", deserialize_with = "seconds")]
    pub within: Duration,
}

impl PacketSpec {
    /// Packets that must meet `expect` within the usual time.
    pub fn new(from: Place, proto: Protocol, to: std::net::SocketAddr, expect: Expect) -> Self {
        Self {
            id: String::new(),
            from,
            source: None,
            to,
            proto,
            expect,
            masq: None,
            flow: None,
            families: None,
            only: None,
            bytes: two(),
            every: Duration::ZERO,
            within: settle(),
        }
    }
}

/// The name of an iptables tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// iptables-nft.
    Nft,
    /// iptables-legacy.
    Legacy,
}

impl Tool {
    /// Whether it is the same tool.
    pub fn is(self, tool: IptablesTool) -> bool {
        matches!(
            (self, tool),
            (Self::Nft, IptablesTool::Nft) | (Self::Legacy, IptablesTool::Legacy)
        )
    }
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

fn two() -> usize {
    2
}

/// How long rules may lag behind the marker that says they are in the kernel.
fn settle() -> Duration {
    Duration::from_secs(2)
}

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

fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err = anyhow::Error>,
{
    String::deserialize(deserializer)?
        .parse()
        .map_err(|error| D::Error::custom(format!("{error:#}")))
}

fn yes_or_no<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Bool(value) => Ok(Some(value)),
        serde_json::Value::String(text) if text == "y" => Ok(Some(true)),
        serde_json::Value::String(text) if text == "n" => Ok(Some(false)),
        other => Err(D::Error::custom(format!("masq: {other}; expected y or n"))),
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = text
        .strip_suffix('s')
        .and_then(|number| number.parse::<f64>().ok());
    number
        .filter(|number| (0.0..=60.0).contains(number))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}`: expected seconds from 0s to 60s, such as 2.5s"
            ))
        })
}

/// Reads every `*.yaml` of a directory, in the order of their names.
///
/// # Errors
/// A file that cannot be read or does not follow the notation, by name and line; two cases of one name.
pub fn load_dir(dir: &Path) -> Result<Vec<Case>> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    paths.sort();
    let mut cases: Vec<Case> = Vec::new();
    for path in paths {
        cases.extend(load_file(&path)?);
    }
    Ok(cases)
}

/// Reads one case file.
///
/// # Errors
/// As for [`load_dir`].
pub fn load_file(path: &Path) -> Result<Vec<Case>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let file: File =
        serde_saphyr::from_str(&text).with_context(|| format!("case file {}", path.display()))?;
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut cases: Vec<Case> = Vec::new();
    for spec in file.cases {
        let name = format!("{stem}: {}", spec.name);
        if cases.iter().any(|case| case.name == name) {
            bail!(
                "case file {}: two cases are called `{}`",
                path.display(),
                spec.name
            );
        }
        let mut services = file.services.clone();
        services.extend(spec.services);
        cases.push(Case {
            name,
            families: spec.families,
            flags: spec.flags,
            node_addresses: spec.node_addresses,
            services,
            objects: spec.objects,
            steps: spec.steps,
        });
    }
    Ok(cases)
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
