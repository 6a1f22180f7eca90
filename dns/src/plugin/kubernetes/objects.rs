//! Objects for tests, and a store of them.

use std::fmt::Write;

use switchyard_cluster::decode::{Keep, decode};
use switchyard_cluster::interner::Interner;
use switchyard_cluster::object::{Kind, ObjectName};
use switchyard_cluster::store::{Change, Store};
use switchyard_cluster::update::Update;

/// A store that objects are put into.
pub(super) struct Cluster {
    pub(super) store: Store,
    names: Interner,
}

impl Cluster {
    /// With these namespaces.
    pub(super) fn new(namespaces: &[&str]) -> Self {
        let mut cluster = Self {
            store: Store::new(&[]),
            names: Interner::default(),
        };
        for namespace in namespaces {
            cluster.put(
                Kind::Namespace,
                &format!("{{\"metadata\":{{\"name\":\"{namespace}\"}}}}"),
            );
        }
        cluster
    }

    /// Adds or replaces an object; says what changed.
    pub(super) fn put(&mut self, kind: Kind, json: &str) -> Vec<Change> {
        let keep = Keep::ALL;
        let decoded = decode(kind, json, keep, &mut self.names);
        let decoded = decoded.unwrap_or_else(|error| panic!("{:?}: {json}", error.problem));
        let mut changes = Vec::new();
        let update = Update::Upsert(decoded.object);
        self.store.apply(update, &mut |change| changes.push(change));
        changes
    }

    /// Removes an object; says what changed.
    pub(super) fn remove(&mut self, kind: Kind, name: &str) -> Vec<Change> {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let mut changes = Vec::new();
        let update = Update::Remove(kind, ObjectName::new(namespace, name));
        self.store.apply(update, &mut |change| changes.push(change));
        changes
    }

    /// A Service: `ips` separated by blanks, or `None`; ports as `name/protocol/number`.
    pub(super) fn service(&mut self, name: &str, ips: &str, ports: &str) -> Vec<Change> {
        let (meta, ips) = (meta(name, ""), list(ips, |ip| format!("\"{ip}\"")));
        let first = ips.split(',').next().unwrap_or("\"\"");
        let ports = list(ports, port);
        let spec = format!(
            "{{\"type\":\"ClusterIP\",\"clusterIP\":{first},\"clusterIPs\":[{ips}],\"ports\":[{ports}]}}"
        );
        self.put(
            Kind::Service,
            &format!("{{\"metadata\":{meta},\"spec\":{spec}}}"),
        )
    }

    /// A Service that is another name.
    pub(super) fn external(&mut self, name: &str, target: &str) -> Vec<Change> {
        let meta = meta(name, "");
        let spec = format!("{{\"type\":\"ExternalName\",\"externalName\":\"{target}\"}}");
        self.put(
            Kind::Service,
            &format!("{{\"metadata\":{meta},\"spec\":{spec}}}"),
        )
    }

    /// A slice of `service`: endpoints separated by blanks, each `address`,
    /// `address=hostname`, `address@zone` or `!address` (not ready).
    pub(super) fn slice(
        &mut self,
        name: &str,
        service: &str,
        ports: &str,
        endpoints: &str,
    ) -> Vec<Change> {
        let label = format!("\"kubernetes.io/service-name\":\"{service}\"");
        let family = if endpoints.contains(':') {
            "IPv6"
        } else {
            "IPv4"
        };
        let json = format!(
            "{{\"metadata\":{},\"addressType\":\"{family}\",\"ports\":[{}],\"endpoints\":[{}]}}",
            meta(name, &label),
            list(ports, port),
            list(endpoints, endpoint),
        );
        self.put(Kind::EndpointSlice, &json)
    }

    /// A pod with an address.
    pub(super) fn pod(&mut self, name: &str, ip: &str) -> Vec<Change> {
        let status = format!("{{\"phase\":\"Running\",\"podIP\":\"{ip}\"}}");
        let json = format!("{{\"metadata\":{},\"status\":{status}}}", meta(name, ""));
        self.put(Kind::Pod, &json)
    }
}

fn meta(name: &str, labels: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!("{{\"name\":\"{name}\",\"namespace\":\"{namespace}\",\"labels\":{{{labels}}}}}")
}

fn list(words: &str, each: impl Fn(&str) -> String) -> String {
    let all: Vec<_> = words.split_whitespace().map(each).collect();
    all.join(",")
}

fn port(text: &str) -> String {
    let parts: Vec<_> = text.split('/').collect();
    let [name, protocol, number] = parts[..] else {
        panic!("name/protocol/number: {text}")
    };
    let protocol = protocol.to_uppercase();
    format!("{{\"name\":\"{name}\",\"protocol\":\"{protocol}\",\"port\":{number}}}")
}

fn endpoint(text: &str) -> String {
    let ready = !text.starts_with('!');
    let text = text.trim_start_matches('!');
    let (text, zone) = text.split_once('@').unwrap_or((text, ""));
    let (address, hostname) = text.split_once('=').unwrap_or((text, ""));
    let mut json = format!("{{\"addresses\":[\"{address}\"],\"conditions\":{{\"ready\":{ready}}}");
    for (field, value) in [("zone", zone), ("hostname", hostname)] {
        if !value.is_empty() {
            write!(json, ",\"{field}\":\"{value}\"").expect("a string");
        }
    }
    json + ",\"targetRef\":{\"kind\":\"Pod\",\"name\":\"pod-x\"}}"
}
