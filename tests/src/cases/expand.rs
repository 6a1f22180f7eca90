//! From the compact notation to the objects an API server returns.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::service::{EndpointSpec, EndpointState, IngressSpec, PortSpec, ServiceSpec, SliceSpec};
use crate::testbed::{Family, endpoint_place, to_ipv6_prefix};

/// The Service of a spec with its EndpointSlices (or its legacy Endpoints), in all `families`.
///
/// # Errors
/// An address without an IPv6 twin, or an endpoint whose port nobody gave a number.
pub fn expand_service(key: &str, spec: &ServiceSpec, families: &[Family]) -> Result<Vec<Value>> {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    let what = || format!("Service {namespace}/{name}");
    let mut objects = vec![service(namespace, name, spec, families).with_context(what)?];
    let single;
    let slices = match &spec.endpoints {
        Some(endpoints) => {
            single = [SliceSpec {
                ports: None,
                endpoints: endpoints.clone(),
                labels: Default::default(),
            }];
            single.as_slice()
        }
        None => spec.slices.as_slice(),
    };
    for family in families {
        for (number, slice) in slices.iter().enumerate() {
            let ports = slice.ports.as_ref().map_or_else(
                || {
                    spec.ports
                        .iter()
                        .map(target_port)
                        .collect::<Result<Vec<_>>>()
                },
                |ports| Ok(ports.iter().map(slice_port).collect()),
            );
            let mut labels = json!({
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            });
            for (label, value) in &slice.labels {
                labels[label] = json!(value);
            }
            let suffix = if *family == Family::IPv4 { "v4" } else { "v6" };
            let endpoints: Vec<Value> = slice
                .endpoints
                .iter()
                .map(|endpoint| slice_endpoint(endpoint, *family))
                .collect();
            objects.push(json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata(namespace, &format!("{name}-{suffix}-{number}"), &labels, &json!({})),
                "addressType": family.to_string(),
                "endpoints": endpoints,
                "ports": ports.with_context(what)?,
            }));
        }
    }
    if let Some(endpoints) = &spec.legacy_endpoints {
        let family = families.first().copied().unwrap_or(Family::IPv4);
        objects
            .push(legacy_endpoints(namespace, name, spec, endpoints, family).with_context(what)?);
    }
    Ok(objects)
}

fn metadata(namespace: &str, name: &str, labels: &Value, annotations: &Value) -> Value {
    json!({
        "name": name,
        "namespace": namespace,
        "uid": format!("00000000-0000-0000-0000-{:012x}", fingerprint(&format!("{namespace}/{name}"))),
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": labels,
        "annotations": annotations,
    })
}

/// 48 bits that differ between names; only for made-up uids.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }) & 0xffff_ffff_ffff
}

fn service(namespace: &str, name: &str, spec: &ServiceSpec, families: &[Family]) -> Result<Value> {
    let kind = spec.kind.as_deref().unwrap_or("ClusterIP");
    let in_families = |address: &IpAddr| -> Vec<IpAddr> {
        let mut twins: Vec<IpAddr> = families
            .iter()
            .map(|family| family.twin(*address))
            .collect();
        twins.dedup();
        twins
    };
    let mut body = json!({
        "type": kind,
        "ports": spec.ports.iter().map(service_port).collect::<Vec<_>>(),
        "selector": { "app": name },
        "sessionAffinity": if spec.affinity_seconds.is_some() { "ClientIP" } else { "None" },
    });
    match spec.cluster_ip.as_deref() {
        None => {}
        Some("None") => {
            body["clusterIP"] = json!("None");
            body["clusterIPs"] = json!(["None"]);
        }
        Some(address) => {
            let address: IpAddr = address
                .parse()
                .with_context(|| format!("clusterIP `{address}`"))?;
            let addresses = in_families(&address);
            body["clusterIP"] = json!(addresses.first());
            body["clusterIPs"] = json!(addresses);
        }
    }
    if kind != "ExternalName" {
        body["ipFamilies"] = json!(families.iter().map(Family::to_string).collect::<Vec<_>>());
        body["ipFamilyPolicy"] = json!(if families.len() > 1 {
            "RequireDualStack"
        } else {
            "SingleStack"
        });
        body["internalTrafficPolicy"] =
            json!(spec.internal_traffic_policy.as_deref().unwrap_or("Cluster"));
    }
    let external = spec.external_traffic_policy.as_deref();
    if external.is_some()
        || ["NodePort", "LoadBalancer"].contains(&kind)
        || !spec.external_ips.is_empty()
    {
        body["externalTrafficPolicy"] = json!(external.unwrap_or("Cluster"));
    }
    if let Some(timeout) = spec.affinity_seconds {
        body["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": timeout } });
    }
    if let Some(port) = spec.health_check_node_port {
        body["healthCheckNodePort"] = json!(port);
    }
    if let Some(external_name) = &spec.external_name {
        body["externalName"] = json!(external_name);
    }
    if !spec.external_ips.is_empty() {
        let mut all = Vec::new();
        for text in &spec.external_ips {
            all.extend(in_families(
                &text
                    .parse()
                    .with_context(|| format!("externalIPs `{text}`"))?,
            ));
        }
        body["externalIPs"] = json!(all);
    }
    if !spec.source_ranges.is_empty() {
        body["loadBalancerSourceRanges"] = json!(source_ranges(&spec.source_ranges, families)?);
    }
    let mut ingress = Vec::new();
    for point in &spec.load_balancer {
        ingress.extend(ingress_points(point, &in_families));
    }
    let status = if ingress.is_empty() {
        json!({})
    } else {
        json!({ "ingress": ingress })
    };
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(namespace, name, &json!(spec.labels), &json!(spec.annotations)),
        "spec": body,
        "status": { "loadBalancer": status },
    }))
}

fn ingress_points(point: &IngressSpec, in_families: &dyn Fn(&IpAddr) -> Vec<IpAddr>) -> Vec<Value> {
    match point {
        IngressSpec::Address(ip) => in_families(ip)
            .iter()
            .map(|ip| json!({ "ip": ip, "ipMode": "VIP" }))
            .collect(),
        IngressSpec::Full {
            ip,
            hostname,
            ip_mode,
        } => {
            let mut points: Vec<Value> = match ip {
                Some(ip) => in_families(ip)
                    .iter()
                    .map(|ip| json!({ "ip": ip }))
                    .collect(),
                None => vec![json!({})],
            };
            for point in &mut points {
                if let Some(mode) = ip_mode {
                    point["ipMode"] = json!(mode);
                }
                if let Some(hostname) = hostname {
                    point["hostname"] = json!(hostname);
                }
            }
            points
        }
    }
}

/// Ranges in all families; blanks around one are kept, for they must be understood.
fn source_ranges(ranges: &[String], families: &[Family]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for range in ranges {
        let net: ipnet::IpNet = range
            .trim()
            .parse()
            .with_context(|| format!("source range `{range}`"))?;
        for family in families {
            let twin = if *family == Family::IPv6 {
                to_ipv6_prefix(net)?
            } else {
                net
            };
            let text = range.replace(range.trim(), &twin.to_string());
            if !all.contains(&text) {
                all.push(text);
            }
        }
    }
    Ok(all)
}

fn service_port(port: &PortSpec) -> Value {
    let target = port
        .target
        .parse::<u16>()
        .map_or_else(|_| json!(port.target), |number| json!(number));
    let mut body = json!({ "port": port.port, "targetPort": target, "protocol": port.protocol });
    if !port.name.is_empty() {
        body["name"] = json!(port.name);
    }
    if port.node_port != 0 {
        body["nodePort"] = json!(port.node_port);
    }
    body
}

fn target_port(port: &PortSpec) -> Result<Value> {
    let Ok(number) = port.target.parse::<u16>() else {
        bail!(
            "port `{}` has the named target `{}`: give each slice its own ports",
            port.name,
            port.target
        );
    };
    Ok(json!({ "name": port.name, "port": number, "protocol": port.protocol }))
}

fn slice_port(port: &PortSpec) -> Value {
    json!({ "name": port.name, "port": port.port, "protocol": port.protocol })
}

fn slice_endpoint(endpoint: &EndpointSpec, family: Family) -> Value {
    let conditions = match endpoint.state {
        EndpointState::Ready => json!({ "ready": true, "serving": true, "terminating": false }),
        EndpointState::Serving => json!({ "ready": false, "serving": true, "terminating": true }),
        EndpointState::Terminating => {
            json!({ "ready": false, "serving": false, "terminating": true })
        }
        EndpointState::Unready => json!({ "ready": false, "serving": false, "terminating": false }),
        EndpointState::Unset => json!({}),
    };
    let address = family.twin(endpoint.address);
    let mut body = json!({ "addresses": [address], "conditions": conditions });
    if let Some(node) = node_of(endpoint) {
        body["zone"] = json!(if node == "node1" { "zone-a" } else { "zone-b" });
        body["nodeName"] = json!(node);
    }
    let named = |names: &[String]| {
        names
            .iter()
            .map(|name| json!({ "name": name }))
            .collect::<Vec<_>>()
    };
    if !endpoint.hint_zones.is_empty() {
        body["hints"]["forZones"] = json!(named(&endpoint.hint_zones));
    }
    if !endpoint.hint_nodes.is_empty() {
        body["hints"]["forNodes"] = json!(named(&endpoint.hint_nodes));
    }
    body
}

fn node_of(endpoint: &EndpointSpec) -> Option<String> {
    match endpoint.node.as_deref() {
        Some("") => None,
        Some(node) => Some(node.to_owned()),
        None => endpoint_place(endpoint.address)?.node().map(str::to_owned),
    }
}

fn legacy_endpoints(
    namespace: &str,
    name: &str,
    spec: &ServiceSpec,
    endpoints: &[EndpointSpec],
    family: Family,
) -> Result<Value> {
    let address = |endpoint: &EndpointSpec| {
        let mut body = json!({ "ip": family.twin(endpoint.address) });
        if let Some(node) = node_of(endpoint) {
            body["nodeName"] = json!(node);
        }
        body
    };
    let (ready, not_ready): (Vec<_>, Vec<_>) = endpoints
        .iter()
        .partition(|endpoint| endpoint.state == EndpointState::Ready);
    let ports: Result<Vec<Value>> = spec.ports.iter().map(target_port).collect();
    let mut subset = json!({ "ports": ports? });
    if !ready.is_empty() {
        subset["addresses"] = json!(ready.into_iter().map(address).collect::<Vec<_>>());
    }
    if !not_ready.is_empty() {
        subset["notReadyAddresses"] = json!(not_ready.into_iter().map(address).collect::<Vec<_>>());
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata(namespace, name, &json!({}), &json!({})),
        "subsets": [subset],
    }))
}
