//! Cases of API objects and what is read from them, as data files in `decode/`: each has
//! the `kind`, the `object`, what it `reads` as, and the `problems` that are named.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use switchyard_cluster::decode::{Keep, decode};
use switchyard_cluster::interner::Interner;
use switchyard_cluster::object::{
    Endpoint, EndpointSlice, Kind, Node, Object, Pod, Service, ServiceType, TrafficPolicy,
};

/// One document of a data file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    kind: String,
    object: Value,
    /// Lines as [`lines`] writes them; absent where the object can't be read.
    reads: Option<Vec<String>>,
    /// Beginnings of problems, in order.
    #[serde(default)]
    problems: Vec<String>,
}

#[test]
fn objects_read_as_their_cases_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decode");
    let mut cases = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let documents: Vec<Case> = serde_saphyr::from_multiple(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for case in documents {
            cases += 1;
            let place = format!("{}: {}", path.display(), case.case);
            wrong.extend(
                check(&case)
                    .into_iter()
                    .map(|what| format!("{place}: {what}")),
            );
        }
    }
    assert!(cases >= 30, "{cases} cases found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn check(case: &Case) -> Vec<String> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == case.kind)
        .unwrap();
    let read = decode(
        kind,
        &case.object.to_string(),
        Keep::ALL,
        &mut Interner::default(),
    );
    let (reads, problems) = match read {
        Ok(decoded) => (Some(lines(&decoded.object)), decoded.oddities),
        Err(undecodable) => (None, vec![undecodable.problem]),
    };
    let mut wrong = Vec::new();
    if reads != case.reads {
        wrong.push(format!("reads {reads:#?}\nexpected {:#?}", case.reads));
    }
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let fits = problems.len() == case.problems.len()
        && problems
            .iter()
            .zip(&case.problems)
            .all(|(said, expected)| said.starts_with(expected));
    if !fits {
        wrong.push(format!(
            "problems {problems:#?}\nexpected {:#?}",
            case.problems
        ));
    }
    wrong
}

fn lines(object: &Object) -> Vec<String> {
    match object {
        Object::Service(service) => service_lines(service),
        Object::EndpointSlice(slice) => slice_lines(slice),
        Object::Endpoints(endpoints) => {
            let slices = endpoints.slices.iter().flat_map(|slice| slice_lines(slice));
            [endpoints.name.to_string()]
                .into_iter()
                .chain(slices)
                .collect()
        }
        Object::Node(node) => node_lines(node),
        Object::Namespace(namespace) => vec![namespace.name.to_string()],
        Object::Pod(pod) => pod_lines(pod),
        Object::ServiceCidr(cidr) => {
            let cidrs = cidr.cidrs.iter().map(ToString::to_string);
            [cidr.name.to_string()].into_iter().chain(cidrs).collect()
        }
    }
}

fn service_lines(service: &Service) -> Vec<String> {
    let mut lines = vec![service.name.to_string()];
    if service.kind != ServiceType::ClusterIp {
        lines.push(format!("{:?}", service.kind));
    }
    if service.created_unix_s != 0 {
        lines.push(format!("created {}", service.created_unix_s));
    }
    if service.headless {
        lines.push("headless".to_owned());
    }
    if let Some(name) = &service.external_name {
        lines.push(format!("alias of {name}"));
    }
    lines.extend(service.cluster_ips.iter().map(|ip| format!("cluster {ip}")));
    lines.extend(
        service
            .external_ips
            .iter()
            .map(|ip| format!("external {ip}")),
    );
    for ip in &service.load_balancer_ips {
        let proxied = if ip.proxied { " proxied" } else { "" };
        lines.push(format!("balancer {}{proxied}", ip.address));
    }
    for port in &service.ports {
        let node = port
            .node_port
            .map_or(String::new(), |node| format!(" node {node}"));
        lines.push(format!(
            "port {:?} {}/{}{node}",
            &*port.name, port.port, port.protocol
        ));
    }
    if let Some(timeout) = service.affinity_timeout_s {
        lines.push(format!("affinity {timeout}"));
    }
    if service.internal_policy == TrafficPolicy::Local {
        lines.push("internal Local".to_owned());
    }
    if service.external_policy == TrafficPolicy::Local {
        lines.push("external Local".to_owned());
    }
    if let Some(ranges) = &service.source_ranges {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        lines.push(format!("sources [{}]", ranges.join(" ")));
    }
    if let Some(port) = service.health_check_node_port {
        lines.push(format!("health {port}"));
    }
    if service.proxied_elsewhere {
        lines.push("proxied elsewhere".to_owned());
    }
    if let Some(scheduler) = service.ipvs_scheduler {
        lines.push(format!("ipvs {scheduler}"));
    }
    lines
}

fn slice_lines(slice: &EndpointSlice) -> Vec<String> {
    let family = slice.family.map_or("no family", |family| family.as_str());
    let service = slice.service.as_deref().unwrap_or("nobody");
    let mut lines = vec![format!("{} of {service} {family}", slice.name)];
    if slice.headless {
        lines.push("headless".to_owned());
    }
    if let Some(trigger) = slice.trigger_unix_ns {
        lines.push(format!("trigger {trigger}"));
    }
    let port = |port: &switchyard_cluster::object::SlicePort| {
        format!("port {:?} {}/{}", &*port.name, port.port, port.protocol)
    };
    lines.extend(slice.ports.iter().map(port));
    lines.extend(slice.endpoints.iter().map(endpoint_line));
    lines
}

fn endpoint_line(endpoint: &Endpoint) -> String {
    let mut line = endpoint.address.to_string();
    let conditions = endpoint.conditions;
    for (set, word) in [
        (conditions.ready, "ready"),
        (conditions.serving, "serving"),
        (conditions.terminating, "terminating"),
    ] {
        if set {
            line = format!("{line} {word}");
        }
    }
    if let Some(node) = endpoint.node() {
        line = format!("{line} node {node}");
    }
    if let Some(zone) = endpoint.zone() {
        line = format!("{line} zone {zone}");
    }
    if let Some(hints) = &endpoint.hints {
        line = format!("{line} for {:?} {:?}", hints.zones, hints.nodes);
    }
    if let Some(naming) = &endpoint.naming {
        let named = |text: &Option<Box<str>>| text.clone().unwrap_or_default();
        line = format!(
            "{line} hostname {:?} pod {:?}",
            named(&naming.hostname),
            named(&naming.pod)
        );
    }
    line
}

fn pod_lines(pod: &Pod) -> Vec<String> {
    let mut lines = vec![pod.name.to_string()];
    lines.extend(pod.ips.iter().map(ToString::to_string));
    if pod.host_network {
        lines.push("host network".to_owned());
    }
    lines
}

fn node_lines(node: &Node) -> Vec<String> {
    let mut lines = vec![node.name.to_string()];
    lines.extend(node.zone.iter().map(|zone| format!("zone {zone}")));
    lines.extend(node.internal_ips.iter().map(|ip| format!("internal {ip}")));
    lines.extend(node.external_ips.iter().map(|ip| format!("external {ip}")));
    lines.extend(node.pod_cidrs.iter().map(|net| format!("pods {net}")));
    if node.deleting {
        lines.push("deleting".to_owned());
    }
    if node.to_be_deleted {
        lines.push("to be deleted".to_owned());
    }
    lines
}
