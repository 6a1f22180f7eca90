//! A plain, slow, obviously right resolver of a cluster's names: it lists every record there is
//! and looks the question up in that list. It shares nothing with the server but the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::expect::Expected;

/// How the server under test is configured.
#[derive(Debug, Clone)]
pub struct OracleConfig {
    /// The one forward zone, lower case, with its final dot.
    pub zone: String,
    /// TTL in seconds.
    pub ttl: u32,
    /// `pods`: `disabled`, `insecure` or `verified`.
    pub pods: &'static str,
    /// `endpoint_pod_names`.
    pub endpoint_pod_names: bool,
    /// `ignore empty_service`.
    pub ignore_empty_service: bool,
    /// The server's own addresses.
    pub own: Vec<IpAddr>,
}

/// All records of one cluster.
#[derive(Debug)]
pub struct Oracle {
    config: OracleConfig,
    namespaces: BTreeSet<String>,
    /// By owner below the zone (`svc1.ns.svc`, lower case).
    names: BTreeMap<String, Rrsets>,
    /// By address: the names a PTR gives.
    reverse: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Addresses of ClusterIPs: their PTR is the Service, whatever pods there are.
    cluster_ips: BTreeMap<IpAddr, String>,
    pod_ips: BTreeSet<(String, IpAddr)>,
}

/// What one name has.
#[derive(Debug, Default, Clone)]
struct Rrsets {
    addresses: BTreeSet<IpAddr>,
    srv: Vec<Target>,
    alias: Option<String>,
}

/// One pair of address and port: a candidate for an SRV record.
#[derive(Debug, Clone)]
struct Target {
    /// Below the zone.
    name: String,
    address: IpAddr,
    /// None where the endpoint has no ports: no record, but it counts in the weight.
    port: Option<u64>,
}

const FOREVER: u32 = 28_800;
const MAX_NEGATIVE_TTL: u32 = 300;
/// A longer chain of aliases is a circle.
const CHAIN_LIMIT: usize = 10;
const POD_NAME_LIMIT: usize = 63;

impl Oracle {
    /// The oracle of these objects, written as the API server returns them.
    pub fn new(config: OracleConfig, objects: &[Value]) -> Self {
        let mut oracle = Self {
            config,
            namespaces: BTreeSet::new(),
            names: BTreeMap::new(),
            reverse: BTreeMap::new(),
            cluster_ips: BTreeMap::new(),
            pod_ips: BTreeSet::new(),
        };
        for object in of_kind(objects, "Namespace") {
            oracle
                .namespaces
                .insert(text(&object["metadata"]["name"]).to_owned());
        }
        for service in of_kind(objects, "Service") {
            oracle.add_service(service, objects);
        }
        for pod in of_kind(objects, "Pod") {
            oracle.add_pod(pod);
        }
        oracle
    }

    /// Every name below the zone that has a record of its own, without the zone.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Every address with a PTR record.
    pub fn reverse_addresses(&self) -> Vec<IpAddr> {
        let all: BTreeSet<IpAddr> = self
            .reverse
            .keys()
            .chain(self.cluster_ips.keys())
            .copied()
            .collect();
        all.into_iter().collect()
    }

    /// Every existing namespace.
    pub fn namespaces(&self) -> Vec<String> {
        self.namespaces.iter().cloned().collect()
    }

    /// What a query with RD set must get, the name as it is asked.
    pub fn answer(&self, asked: &str, rtype: &str) -> Expected {
        self.answer_at(asked, rtype, 0)
    }

    fn answer_at(&self, asked: &str, rtype: &str, depth: usize) -> Expected {
        let lower = asked.to_ascii_lowercase();
        if let Some(address) = reverse_address(&lower) {
            return self.answer_reverse(asked, rtype, address);
        }
        let zone = asked
            .get(asked.len().saturating_sub(self.config.zone.len())..)
            .unwrap_or_default();
        let inner = lower.strip_suffix(&self.config.zone).unwrap_or_default();
        let inner = inner.strip_suffix('.').unwrap_or(inner);
        let (records, additional) = match self.lookup(inner, asked, zone, rtype, depth) {
            Found::Records(records, additional) => (records, additional),
            Found::NoData => return self.negative("NOERROR", zone),
            Found::NoName => return self.negative("NXDOMAIN", zone),
        };
        Expected {
            rcode: "NOERROR".to_owned(),
            flags: "QR AA RD".to_owned(),
            answer: records.into_iter().collect(),
            authority: Vec::new(),
            additional: additional.into_iter().collect(),
        }
    }

    fn lookup(&self, inner: &str, asked: &str, zone: &str, rtype: &str, depth: usize) -> Found {
        let ttl = self.config.ttl;
        match (inner, rtype) {
            ("", "SOA") => return Found::one(self.soa(zone, ttl)),
            ("", "NS") => {
                let glue = self.own_addresses(&format!("ns.dns.{zone}"), None);
                let ns = format!("{asked} {ttl} NS ns.dns.{zone}");
                return Found::Records(BTreeSet::from([ns]), glue);
            }
            ("ns.dns", "A" | "AAAA") => {
                let own = self.own_addresses(asked, Some(rtype));
                return Found::records_or_no_data(own);
            }
            ("dns-version", "TXT") => {
                return Found::one(format!("{asked} {FOREVER} TXT \"1.1.0\""));
            }
            ("" | "svc" | "pod" | "dns" | "ns.dns" | "dns-version", _) => return Found::NoData,
            _ => {}
        }
        let labels: Vec<&str> = inner.split('.').collect();
        match labels.as_slice() {
            [namespace, "svc"] if self.namespaces.contains(*namespace) => Found::NoData,
            [.., "pod"] => self.lookup_pod(&labels, asked, rtype),
            _ => match self.names.get(inner) {
                Some(rrsets) => self.lookup_rrsets(rrsets, asked, zone, rtype, depth),
                None => Found::NoName,
            },
        }
    }

    fn lookup_rrsets(
        &self,
        rrsets: &Rrsets,
        asked: &str,
        zone: &str,
        rtype: &str,
        depth: usize,
    ) -> Found {
        let ttl = self.config.ttl;
        if let Some(target) = &rrsets.alias {
            let cname = format!("{asked} {ttl} CNAME {target}");
            return match rtype {
                "CNAME" => Found::one(cname),
                "A" | "AAAA" => {
                    // The generated clusters' aliases stay in the zone. An alias of a name without
                    // such a record has none itself.
                    if depth > CHAIN_LIMIT {
                        return Found::NoData;
                    }
                    let found = self.answer_at(target, rtype, depth + 1);
                    if found.answer.is_empty() {
                        return Found::NoData;
                    }
                    let records = found.answer.into_iter().chain([cname]).collect();
                    Found::Records(records, BTreeSet::new())
                }
                _ => Found::NoData,
            };
        }
        match rtype {
            "A" | "AAAA" => {
                let addresses = rrsets.addresses.iter();
                let records = addresses.filter(|address| type_of(address) == rtype);
                let records = records.map(|address| format!("{asked} {ttl} {rtype} {address}"));
                Found::records_or_no_data(records.collect())
            }
            "SRV" => {
                let weight = (100 / rrsets.srv.len().max(1)).max(1);
                let (mut records, mut additional) = (BTreeSet::new(), BTreeSet::new());
                for target in &rrsets.srv {
                    let Some(port) = target.port else { continue };
                    let host = format!("{}.{zone}", target.name);
                    records.insert(format!("{asked} {ttl} SRV 0 {weight} {port} {host}"));
                    let address = target.address;
                    additional.insert(format!("{host} {ttl} {} {address}", type_of(&address)));
                }
                if records.is_empty() {
                    return Found::NoData;
                }
                Found::Records(records, additional)
            }
            _ => Found::NoData,
        }
    }

    fn lookup_pod(&self, labels: &[&str], asked: &str, rtype: &str) -> Found {
        if self.config.pods == "disabled" {
            return Found::NoName;
        }
        let (dashed, namespace) = match labels {
            [namespace, _] if self.namespaces.contains(*namespace) => return Found::NoData,
            [dashed, namespace, _] if self.namespaces.contains(*namespace) => (dashed, namespace),
            _ => return Found::NoName,
        };
        let address = [dashed.replace('-', "."), dashed.replace('-', ":")]
            .iter()
            .find_map(|text| text.parse::<IpAddr>().ok());
        let Some(address) = address else {
            return Found::NoName;
        };
        let known = self.pod_ips.contains(&((*namespace).to_owned(), address));
        if self.config.pods == "verified" && !known {
            return Found::NoName;
        }
        if type_of(&address) != rtype {
            return Found::NoData;
        }
        let ttl = self.config.ttl;
        Found::one(format!("{asked} {ttl} {rtype} {address}"))
    }

    fn answer_reverse(&self, asked: &str, rtype: &str, address: IpAddr) -> Expected {
        let zone = if address.is_ipv4() {
            "in-addr.arpa."
        } else {
            "ip6.arpa."
        };
        let zone = asked
            .get(asked.len().saturating_sub(zone.len())..)
            .unwrap_or_default();
        let names: Vec<String> = match (self.cluster_ips.get(&address), self.reverse.get(&address))
        {
            (Some(service), _) => vec![service.clone()],
            (None, Some(names)) => names.iter().cloned().collect(),
            (None, None) => return self.negative("NXDOMAIN", zone),
        };
        if rtype != "PTR" {
            return self.negative("NOERROR", zone);
        }
        let (ttl, primary) = (self.config.ttl, &self.config.zone);
        let records = names
            .iter()
            .map(|name| format!("{asked} {ttl} PTR {name}.{primary}"));
        Expected {
            rcode: "NOERROR".to_owned(),
            flags: "QR AA RD".to_owned(),
            answer: records.collect(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }

    fn negative(&self, rcode: &str, zone: &str) -> Expected {
        Expected {
            rcode: rcode.to_owned(),
            flags: "QR AA RD".to_owned(),
            answer: Vec::new(),
            authority: vec![self.soa(zone, self.config.ttl.min(MAX_NEGATIVE_TTL))],
            additional: Vec::new(),
        }
    }

    fn soa(&self, zone: &str, ttl: u32) -> String {
        let minimum = self.config.ttl;
        format!("{zone} {ttl} SOA ns.dns.{zone} hostmaster.{zone} * 7200 1800 86400 {minimum}")
    }

    fn own_addresses(&self, owner: &str, rtype: Option<&str>) -> BTreeSet<String> {
        let ttl = self.config.ttl;
        let own = self.config.own.iter();
        own.filter(|address| rtype.is_none_or(|rtype| rtype == type_of(address)))
            .map(|address| format!("{owner} {ttl} {} {address}", type_of(address)))
            .collect()
    }

    fn add_service(&mut self, service: &Value, objects: &[Value]) {
        let name = text(&service["metadata"]["name"]).to_owned();
        let namespace = text(&service["metadata"]["namespace"]).to_owned();
        if !self.namespaces.contains(&namespace) {
            return;
        }
        let owner = format!("{name}.{namespace}.svc");
        let spec = &service["spec"];
        if spec["type"] == "ExternalName" {
            let target = text(&spec["externalName"]).trim_end_matches('.');
            self.names.entry(owner).or_default().alias = Some(format!("{target}."));
            return;
        }
        let endpoints = self.endpoints(&namespace, &name, objects);
        let headless = spec["clusterIP"] == "None";
        if !headless && self.config.ignore_empty_service && endpoints.is_empty() {
            return;
        }
        if headless {
            for endpoint in &endpoints {
                self.add_targets(&owner, &endpoint.name, endpoint.ip, &endpoint.ports);
            }
        } else {
            let ports = ports(&spec["ports"], "port");
            for ip in list(&spec["clusterIPs"]) {
                let Ok(ip) = text(ip).parse() else { continue };
                self.add_targets(&owner, &owner, ip, &ports);
                self.cluster_ips.insert(ip, owner.clone());
            }
        }
        for endpoint in &endpoints {
            self.add_pairs(
                &endpoint.name,
                &endpoint.name,
                endpoint.ip,
                &endpoint.ports,
                |_| true,
            );
            let names = self.reverse.entry(endpoint.ip).or_default();
            names.insert(endpoint.name.clone());
        }
    }

    /// A Service's own name, and one name for each of its named ports.
    fn add_targets(&mut self, owner: &str, target: &str, ip: IpAddr, ports: &[Port]) {
        self.add_pairs(owner, target, ip, ports, |_| true);
        for port in ports.iter().filter(|port| !port.name.is_empty()) {
            let name = format!("_{}._{}.{owner}", port.name, port.protocol);
            self.add_pairs(&name, target, ip, ports, |one| {
                one.name == port.name && one.protocol == port.protocol
            });
        }
    }

    fn add_pairs(
        &mut self,
        owner: &str,
        target: &str,
        address: IpAddr,
        ports: &[Port],
        wanted: impl Fn(&Port) -> bool,
    ) {
        let rrsets = self.names.entry(owner.to_owned()).or_default();
        rrsets.addresses.insert(address);
        let target = |port| Target {
            name: target.to_owned(),
            address,
            port,
        };
        if ports.is_empty() {
            rrsets.srv.push(target(None));
        }
        for port in ports.iter().filter(|port| wanted(port)) {
            rrsets.srv.push(target(Some(port.number)));
        }
    }

    /// The ready endpoints of a Service.
    fn endpoints(&self, namespace: &str, service: &str, objects: &[Value]) -> Vec<Endpoint> {
        let mut all = Vec::new();
        for slice in of_kind(objects, "EndpointSlice") {
            let meta = &slice["metadata"];
            if meta["namespace"] != namespace
                || meta["labels"]["kubernetes.io/service-name"] != service
            {
                continue;
            }
            let ports = ports(&slice["ports"], "port");
            for endpoint in list(&slice["endpoints"]) {
                if endpoint["conditions"]["ready"] == false {
                    continue;
                }
                for address in list(&endpoint["addresses"]) {
                    let Ok(ip) = text(address).parse::<IpAddr>() else {
                        continue;
                    };
                    let own = self.endpoint_name(endpoint, ip);
                    all.push(Endpoint {
                        name: format!("{own}.{service}.{namespace}.svc"),
                        ip,
                        ports: ports.clone(),
                    });
                }
            }
        }
        all
    }

    fn endpoint_name(&self, endpoint: &Value, ip: IpAddr) -> String {
        let hostname = text(&endpoint["hostname"]);
        if !hostname.is_empty() {
            return hostname.to_ascii_lowercase();
        }
        let pod = text(&endpoint["targetRef"]["name"]);
        if self.config.endpoint_pod_names && (1..=POD_NAME_LIMIT).contains(&pod.len()) {
            return pod.to_owned();
        }
        dashed(ip)
    }

    fn add_pod(&mut self, pod: &Value) {
        let ended = ["Succeeded", "Failed", "Unknown"].contains(&text(&pod["status"]["phase"]));
        let deleted = !pod["metadata"]["deletionTimestamp"].is_null();
        if let (false, false, Ok(ip)) = (ended, deleted, text(&pod["status"]["podIP"]).parse()) {
            let namespace = text(&pod["metadata"]["namespace"]).to_owned();
            self.pod_ips.insert((namespace, ip));
        }
    }
}

/// What a name has to say.
enum Found {
    Records(BTreeSet<String>, BTreeSet<String>),
    NoData,
    NoName,
}

impl Found {
    fn one(record: String) -> Self {
        Self::Records(BTreeSet::from([record]), BTreeSet::new())
    }

    fn records_or_no_data(records: BTreeSet<String>) -> Self {
        if records.is_empty() {
            Self::NoData
        } else {
            Self::Records(records, BTreeSet::new())
        }
    }
}

struct Endpoint {
    /// Below the zone.
    name: String,
    ip: IpAddr,
    ports: Vec<Port>,
}

#[derive(Clone)]
struct Port {
    name: String,
    protocol: String,
    number: u64,
}

/// An address as a label: dots and colons become dashes, and no dash is at the end.
pub fn dashed(ip: IpAddr) -> String {
    let text = ip.to_string().replace(['.', ':'], "-");
    match text.strip_suffix('-') {
        Some(_) => format!("{text}0"),
        None => text,
    }
}

/// The name under which an address' PTR record is asked for.
pub fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(v6) => {
            let nibbles = data_encoding::HEXLOWER.encode(&v6.octets());
            let labels: Vec<String> = nibbles.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa.", labels.join("."))
        }
    }
}

fn reverse_address(name: &str) -> Option<IpAddr> {
    let (labels, v4) = match name.strip_suffix(".in-addr.arpa.") {
        Some(labels) => (labels, true),
        None => (name.strip_suffix(".ip6.arpa.")?, false),
    };
    let labels: Vec<&str> = labels.split('.').rev().collect();
    if v4 {
        return labels.join(".").parse().ok();
    }
    let groups: Vec<String> = labels.chunks(4).map(<[&str]>::concat).collect();
    groups.join(":").parse().ok()
}

fn type_of(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "A" } else { "AAAA" }
}

fn ports(ports: &Value, number: &str) -> Vec<Port> {
    list(ports)
        .iter()
        .map(|port| Port {
            name: text(&port["name"]).to_ascii_lowercase(),
            protocol: text(&port["protocol"]).to_ascii_lowercase(),
            number: port[number].as_u64().unwrap_or_default(),
        })
        .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
