use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use super::Context;
use super::field::{self, Oddities};
use super::meta::{HasMeta, Meta};
use crate::object::{
    IpvsScheduler, LoadBalancerIp, Object, Service, ServicePort, ServiceType, TrafficPolicy,
};

/// `spec.clusterIP` of a headless Service.
const NO_CLUSTER_IP: &str = "None";
/// The API's default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY_TIMEOUT_S: u32 = 10_800;
/// The API's upper bound for it: one day.
const MAX_AFFINITY_TIMEOUT_S: u32 = 86_400;

#[derive(Deserialize)]
pub(super) struct RawService {
    #[serde(default)]
    metadata: Meta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    external_name: Option<String>,
    ports: Option<Vec<Port>>,
    session_affinity: Option<String>,
    session_affinity_config: Option<AffinityConfig>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    load_balancer_source_ranges: Option<Vec<String>>,
    health_check_node_port: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
    node_port: Option<i64>,
}

#[derive(Deserialize)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientIp {
    timeout_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Deserialize)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
}

impl HasMeta for RawService {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

pub(super) fn compact(raw: RawService, context: &mut Context<'_>) -> Object {
    let spec = raw.spec.unwrap_or_default();
    let ingress = raw.status.and_then(|status| status.load_balancer);
    let ingress = ingress.and_then(|balancer| balancer.ingress);
    let oddities = &mut context.oddities;
    let created = raw.metadata.creation_timestamp.as_deref().and_then(|text| {
        oddities.keep(field::moment(text), || {
            "metadata.creationTimestamp".to_owned()
        })
    });
    let kind = service_type(spec.kind.as_deref(), oddities);
    let external_name = spec
        .external_name
        .filter(|name| kind == ServiceType::ExternalName && !name.is_empty());
    let service = Service {
        name: context.name.clone(),
        created_unix_s: created.map_or(0, jiff::Timestamp::as_second),
        kind,
        headless: is_headless(spec.cluster_ips.as_deref(), spec.cluster_ip.as_deref()),
        external_name: external_name.map(Arc::from),
        cluster_ips: cluster_ips(spec.cluster_ips, spec.cluster_ip, oddities),
        external_ips: addresses(
            &spec.external_ips.unwrap_or_default(),
            "spec.externalIPs",
            oddities,
        ),
        load_balancer_ips: load_balancer_ips(&ingress.unwrap_or_default(), oddities),
        affinity_timeout_s: affinity(
            spec.session_affinity.as_deref(),
            spec.session_affinity_config,
            oddities,
        ),
        internal_policy: policy(
            spec.internal_traffic_policy.as_deref(),
            "spec.internalTrafficPolicy",
            oddities,
        ),
        external_policy: policy(
            spec.external_traffic_policy.as_deref(),
            "spec.externalTrafficPolicy",
            oddities,
        ),
        source_ranges: source_ranges(spec.load_balancer_source_ranges, oddities),
        health_check_node_port: oddities
            .keep(field::optional_port(spec.health_check_node_port), || {
                "spec.healthCheckNodePort".to_owned()
            })
            .flatten(),
        proxied_elsewhere: raw.metadata.proxied_elsewhere(),
        ipvs_scheduler: raw
            .metadata
            .ipvs_scheduler()
            .and_then(|name| ipvs_scheduler(name, oddities)),
        ports: ports(&spec.ports.unwrap_or_default(), context),
    };
    Object::Service(Arc::new(service))
}

fn ipvs_scheduler(name: &str, oddities: &mut Oddities) -> Option<IpvsScheduler> {
    let scheduler = IpvsScheduler::from_name(name);
    if scheduler.is_none() {
        oddities.add(
            IpvsScheduler::FIELD,
            field::unknown(
                name,
                &format!("{}; the proxy's own is taken", IpvsScheduler::NAMES),
            ),
        );
    }
    scheduler
}

fn service_type(text: Option<&str>, oddities: &mut Oddities) -> ServiceType {
    match text {
        None | Some("" | "ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        Some(other) => {
            let expected = "ClusterIP, NodePort, LoadBalancer or ExternalName; taken as ClusterIP";
            oddities.add("spec.type", field::unknown(other, expected));
            ServiceType::ClusterIp
        }
    }
}

fn is_headless(many: Option<&[String]>, one: Option<&str>) -> bool {
    let first = many.and_then(<[String]>::first).map(String::as_str);
    first.or(one) == Some(NO_CLUSTER_IP)
}

/// `spec.clusterIPs`, or `spec.clusterIP` of an object from before dual stack.
fn cluster_ips(
    many: Option<Vec<String>>,
    one: Option<String>,
    oddities: &mut Oddities,
) -> Box<[IpAddr]> {
    let given = |text: &String| !text.is_empty() && text != NO_CLUSTER_IP;
    let many: Vec<String> = many.unwrap_or_default();
    if many.is_empty() {
        let one = one.filter(given);
        let read =
            one.and_then(|text| oddities.keep(field::ip(&text), || "spec.clusterIP".to_owned()));
        return read.into_iter().collect();
    }
    if !many.iter().any(given) {
        return Box::default();
    }
    addresses(&many, "spec.clusterIPs", oddities)
}

fn addresses(texts: &[String], path: &str, oddities: &mut Oddities) -> Box<[IpAddr]> {
    let numbered = texts.iter().enumerate();
    numbered
        .filter_map(|(at, text)| oddities.keep(field::ip(text), || format!("{path}[{at}]")))
        .collect()
}

fn load_balancer_ips(ingress: &[Ingress], oddities: &mut Oddities) -> Box<[LoadBalancerIp]> {
    let mut ips = Vec::with_capacity(ingress.len());
    for (at, entry) in ingress.iter().enumerate() {
        // An entry with a host name instead is somebody's DNS record, not ours to carry.
        let Some(text) = entry.ip.as_deref().filter(|text| !text.is_empty()) else {
            continue;
        };
        let path = |leaf: &str| format!("status.loadBalancer.ingress[{at}].{leaf}");
        let Some(address) = oddities.keep(field::ip(text), || path("ip")) else {
            continue;
        };
        let proxied = match entry.ip_mode.as_deref() {
            None | Some("" | "VIP") => false,
            Some("Proxy") => true,
            Some(other) => {
                oddities.add(
                    path("ipMode"),
                    field::unknown(other, "VIP or Proxy; taken as VIP"),
                );
                false
            }
        };
        ips.push(LoadBalancerIp { address, proxied });
    }
    ips.into()
}

fn affinity(
    text: Option<&str>,
    config: Option<AffinityConfig>,
    oddities: &mut Oddities,
) -> Option<u32> {
    match text {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            oddities.add(
                "spec.sessionAffinity",
                field::unknown(other, "ClientIP or None; taken as None"),
            );
            return None;
        }
    }
    let given = config.and_then(|config| config.client_ip?.timeout_seconds);
    let Some(given) = given else {
        return Some(DEFAULT_AFFINITY_TIMEOUT_S);
    };
    let bounded = u32::try_from(given)
        .ok()
        .filter(|seconds| (1..=MAX_AFFINITY_TIMEOUT_S).contains(seconds));
    if bounded.is_none() {
        oddities.add(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            format!(
                "{given} is out of range: expected 1 to {MAX_AFFINITY_TIMEOUT_S} seconds; \
                 taken as {DEFAULT_AFFINITY_TIMEOUT_S}"
            ),
        );
    }
    bounded.or(Some(DEFAULT_AFFINITY_TIMEOUT_S))
}

fn policy(text: Option<&str>, path: &str, oddities: &mut Oddities) -> TrafficPolicy {
    match text {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            oddities.add(
                path,
                field::unknown(other, "Cluster or Local; taken as Cluster"),
            );
            TrafficPolicy::Cluster
        }
    }
}

fn source_ranges(texts: Option<Vec<String>>, oddities: &mut Oddities) -> Option<Box<[IpNet]>> {
    let texts = texts.filter(|texts| !texts.is_empty())?;
    let numbered = texts.iter().enumerate();
    let read = numbered.filter_map(|(at, text)| {
        let path = || format!("spec.loadBalancerSourceRanges[{at}]");
        oddities.keep(field::cidr(text.trim()), path)
    });
    Some(read.collect())
}

fn ports(raw: &[Port], context: &mut Context<'_>) -> Box<[ServicePort]> {
    let mut ports: Vec<ServicePort> = Vec::with_capacity(raw.len());
    for (at, entry) in raw.iter().enumerate() {
        let oddities = &mut context.oddities;
        let path = |leaf: &str| format!("spec.ports[{at}].{leaf}");
        let protocol = field::protocol(entry.protocol.as_deref());
        let protocol = oddities.keep(protocol, || path("protocol"));
        let port = oddities.keep(field::port(entry.port.unwrap_or(0)), || path("port"));
        let (Some(protocol), Some(port)) = (protocol, port) else {
            continue;
        };
        // A node port that makes no sense takes only itself away, not the ClusterIP's port.
        let node_port = field::optional_port(entry.node_port);
        let node_port = oddities.keep(node_port, || path("nodePort")).flatten();
        let name = context.names.share(entry.name.as_deref().unwrap_or(""));
        let taken = |other: &ServicePort| other.name == name && other.protocol == protocol;
        if ports.iter().any(taken) {
            let message = format!(
                "a port before this one has the same name {name:?} and protocol {protocol}: \
                 expected each only once; left out"
            );
            oddities.add(path("name"), message);
            continue;
        }
        ports.push(ServicePort {
            name,
            protocol,
            port,
            node_port,
        });
    }
    ports.into()
}
