//! The notation of a case file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::backend::Backend;
use super::expect::Expect;
use super::service::ServiceSpec;
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
    /// Only with these backends (none given: with all).
    pub only: Option<Vec<BackendWord>>,
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

/// The word for a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendWord {
    /// iptables over iptables-nft.
    Nft,
    /// iptables over iptables-legacy.
    Legacy,
    /// nftables.
    Nftables,
    /// IPVS.
    Ipvs,
    /// eBPF.
    Ebpf,
}

impl BackendWord {
    /// Whether it stands for this backend.
    pub fn is(self, backend: Backend) -> bool {
        let word = match backend.tool {
            _ if backend.is_ipvs() => Self::Ipvs,
            _ if backend == Backend::NFTABLES => Self::Nftables,
            Some(IptablesTool::Nft) => Self::Nft,
            Some(IptablesTool::Legacy) => Self::Legacy,
            None => Self::Ebpf,
        };
        self == word
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

pub(super) fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err = anyhow::Error>,
{
    String::deserialize(deserializer)?
        .parse()
        .map_err(|error| D::Error::custom(format!("{error:#}")))
}

pub(super) fn parsed_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err = anyhow::Error>,
{
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_>>()
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

/// Files of this beginning are no case tables: they say what a backend may do otherwise.
const DIFFERENCES_PREFIX: &str = "differences-";

/// Reads every case table of a directory, in the order of their names: every `*.yaml` but
/// `differences-*.yaml`.
///
/// # Errors
/// A file that cannot be read or does not follow the notation, by name and line; two cases of one name.
pub fn load_dir(dir: &Path) -> Result<Vec<Case>> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".yaml") && !name.starts_with(DIFFERENCES_PREFIX)
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
