//! A cluster in few words, and the Kubernetes objects it stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

type Labels = BTreeMap<String, String>;

/// A cluster as the case files write it; `tests/cases/dns/README.md` describes it for their readers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cluster {
    /// Namespaces beyond those that other objects are in: names, or names with labels.
    #[serde(default)]
    namespaces: Vec<NamespaceSpec>,
    /// Namespaces that do not exist although objects are in them.
    #[serde(default)]
    absent_namespaces: Vec<String>,
    #[serde(default)]
    services: BTreeMap<String, ServiceSpec>,
    #[serde(default)]
    slices: BTreeMap<String, SliceSpec>,
    #[serde(default)]
    pods: BTreeMap<String, PodSpec>,
    /// Plain Kubernetes objects.
    #[serde(default)]
    objects: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum NamespaceSpec {
    Name(String),
    Labelled { name: String, labels: Labels },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    external_name: Option<String>,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SliceSpec {
    /// The Service; the slice's own name unless given.
    service: Option<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    endpoints: Vec<EndpointSpec>,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum EndpointSpec {
    Address(IpAddr),
    Whole(EndpointFields),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointFields {
    ip: IpAddr,
    host: Option<String>,
    pod: Option<String>,
    ready: Option<bool>,
    zone: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PodSpec {
    ip: String,
    phase: Option<String>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    deleting: bool,
}

impl Cluster {
    /// This cluster and all of `more`; an object of the same name is replaced.
    #[must_use]
    pub fn with(&self, more: &Self) -> Self {
        let mut both = self.clone();
        both.namespaces.extend(more.namespaces.iter().cloned());
        both.absent_namespaces
            .extend(more.absent_namespaces.iter().cloned());
        both.services.extend(more.services.clone());
        both.slices.extend(more.slices.clone());
        both.pods.extend(more.pods.clone());
        both.objects.extend(more.objects.iter().cloned());
        both
    }

    /// The objects, as an API server would return them.
    ///
    /// # Errors
    /// A key is not `namespace/name`, or a port is not `name/protocol/number`.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let mut objects = self.namespace_objects()?;
        for (key, spec) in &self.services {
            objects.push(spec.object(key).with_context(|| key.clone())?);
        }
        for (key, spec) in &self.slices {
            objects.extend(spec.objects(key).with_context(|| key.clone())?);
        }
        for (key, spec) in &self.pods {
            objects.push(spec.object(key).with_context(|| key.clone())?);
        }
        objects.extend(self.objects.iter().cloned());
        Ok(objects)
    }

    fn namespace_objects(&self) -> Result<Vec<Value>> {
        let mut namespaces: BTreeMap<String, Labels> = BTreeMap::new();
        let keys = self.services.keys().chain(self.slices.keys());
        for key in keys.chain(self.pods.keys()) {
            namespaces.entry(split_key(key)?.0.to_owned()).or_default();
        }
        for spec in &self.namespaces {
            match spec {
                NamespaceSpec::Name(name) => namespaces.entry(name.clone()).or_default(),
                NamespaceSpec::Labelled { name, labels } => {
                    namespaces.insert(name.clone(), labels.clone());
                    continue;
                }
            };
        }
        let absent: BTreeSet<&String> = self.absent_namespaces.iter().collect();
        Ok(namespaces
            .iter()
            .filter(|(name, _)| !absent.contains(name))
            .map(|(name, labels)| namespace_object(name, labels))
            .collect())
    }
}

/// A Namespace object with the label every API server gives it.
pub fn namespace_object(name: &str, labels: &BTreeMap<String, String>) -> Value {
    let mut labels = labels.clone();
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
        "status": {"phase": "Active"},
    })
}

impl ServiceSpec {
    fn object(&self, key: &str) -> Result<Value> {
        let (namespace, name) = split_key(key)?;
        let mut ports = Vec::new();
        for port in &self.ports {
            let (name, protocol, number) = split_port(port)?;
            ports.push(json!({
                "name": name, "protocol": protocol, "port": number, "targetPort": number,
            }));
        }
        let mut spec = json!({"type": "ClusterIP", "ports": ports});
        if let Some(target) = &self.external_name {
            spec["type"] = json!("ExternalName");
            spec["externalName"] = json!(target);
        } else {
            let families: Vec<&str> = self.ips.iter().map(|ip| family(ip)).collect();
            spec["clusterIP"] = json!(self.ips.first());
            spec["clusterIPs"] = json!(self.ips);
            spec["ipFamilies"] = json!(families);
        }
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": self.labels},
            "spec": spec,
        }))
    }
}

impl SliceSpec {
    /// One slice, or one for each family if its endpoints are of both.
    fn objects(&self, key: &str) -> Result<Vec<Value>> {
        let (namespace, name) = split_key(key)?;
        let endpoints: Vec<EndpointFields> = self.endpoints.iter().map(Into::into).collect();
        let mut families: BTreeSet<&str> = endpoints
            .iter()
            .map(|endpoint| family(&endpoint.ip.to_string()))
            .collect();
        if families.is_empty() {
            families.insert("IPv4");
        }
        let mut ports = Vec::new();
        for port in &self.ports {
            let (name, protocol, number) = split_port(port)?;
            ports.push(json!({"name": name, "protocol": protocol, "port": number}));
        }
        let mut labels = self.labels.clone();
        let service = self.service.clone().unwrap_or_else(|| name.to_owned());
        labels.insert("kubernetes.io/service-name".to_owned(), service);
        let several = families.len() > 1;
        Ok(families
            .into_iter()
            .map(|own| {
                let suffix = if several {
                    own.to_ascii_lowercase()
                } else {
                    String::new()
                };
                let members: Vec<Value> = endpoints
                    .iter()
                    .filter(|endpoint| family(&endpoint.ip.to_string()) == own)
                    .map(|endpoint| endpoint.object(namespace))
                    .collect();
                json!({
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": format!("{name}{suffix}"),
                        "namespace": namespace,
                        "labels": labels,
                    },
                    "addressType": own,
                    "endpoints": members,
                    "ports": ports,
                })
            })
            .collect())
    }
}

impl From<&EndpointSpec> for EndpointFields {
    fn from(spec: &EndpointSpec) -> Self {
        match spec {
            EndpointSpec::Whole(fields) => fields.clone(),
            EndpointSpec::Address(ip) => Self {
                ip: *ip,
                host: None,
                pod: None,
                ready: Some(true),
                zone: None,
            },
        }
    }
}

impl EndpointFields {
    fn object(&self, namespace: &str) -> Value {
        let mut object = json!({"addresses": [self.ip.to_string()], "conditions": {}});
        if let Some(ready) = self.ready {
            object["conditions"]["ready"] = json!(ready);
        }
        if let Some(host) = &self.host {
            object["hostname"] = json!(host);
        }
        if let Some(zone) = &self.zone {
            object["zone"] = json!(zone);
        }
        if let Some(pod) = &self.pod {
            object["targetRef"] = json!({"kind": "Pod", "name": pod, "namespace": namespace});
        }
        object
    }
}

impl PodSpec {
    fn object(&self, key: &str) -> Result<Value> {
        let (namespace, name) = split_key(key)?;
        let mut meta = json!({"name": name, "namespace": namespace, "labels": self.labels});
        if self.deleting {
            meta["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        }
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {"nodeName": "node1", "containers": []},
            "status": {
                "phase": self.phase.as_deref().unwrap_or("Running"),
                "podIP": self.ip,
                "podIPs": [{"ip": self.ip}],
            },
        }))
    }
}

fn split_key(key: &str) -> Result<(&str, &str)> {
    key.split_once('/')
        .with_context(|| format!("`{key}` is not namespace/name"))
}

fn split_port(port: &str) -> Result<(&str, String, u16)> {
    let expected = || format!("`{port}` is not name/protocol/number");
    let mut parts = port.split('/');
    let mut next = || parts.next().with_context(expected);
    let (name, protocol, number) = (next()?, next()?, next()?);
    let number = number.parse().with_context(expected)?;
    Ok((name, protocol.to_ascii_uppercase(), number))
}

fn family(ip: &str) -> &'static str {
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}
