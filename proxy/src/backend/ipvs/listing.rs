//! What a dozen Services of every kind become, as the usual tools list it: a golden file a
//! family. `SWITCHYARD_WRITE_GOLDEN=1` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use switchyard_cluster::object::{IpFamily, IpvsScheduler, ObjectName, Protocol, TrafficPolicy};
use switchyard_netlink::ipset::{SetSpec, SetType};
use switchyard_netlink::ipvs::{ServiceFlags, ServiceKey};

use super::compile::compile;
use super::config::Config;
use super::form::{Virtual, WEIGHT};
use super::rules;
use super::sets::Set;
use crate::backend::xtables::Table;
use crate::plan::{Frontend, LocalDetector, PlanId, ServicePlan, Target};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `10.244.1.1:8080` is here, `10.244.2.1:8080` elsewhere.
fn targets(texts: &[&str]) -> Box<[Target]> {
    let target = |text: &&str| {
        let socket: std::net::SocketAddr = text.parse().unwrap();
        Target {
            address: socket.ip(),
            port: socket.port(),
            is_local: text.starts_with("10.244.1.")
                || text.starts_with("192.168.0.2:")
                || text.starts_with("[fd00:244:1::"),
        }
    };
    texts.iter().map(target).collect()
}

/// A Service port at a ClusterIP with these endpoints.
fn plan(name: &str, protocol: Protocol, vip: &str, port: u16, endpoints: &[&str]) -> ServicePlan {
    let (namespace, name) = name.split_once('/').unwrap();
    let cluster = targets(endpoints);
    let local = cluster.iter().filter(|target| target.is_local);
    ServicePlan {
        id: PlanId {
            service: ObjectName::new(namespace, name),
            port_name: "p".into(),
            protocol,
            family: IpFamily::of(ip(vip)),
        },
        port,
        frontends: vec![Frontend::ClusterIp(ip(vip))],
        affinity_timeout_s: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        source_ranges: None,
        source_ranges_include_node: false,
        health_check_node_port: None,
        ipvs_scheduler: None,
        local: local.copied().collect(),
        any_endpoint: !cluster.is_empty(),
        cluster,
        serving: Box::default(),
    }
}

const HERE: &str = "10.244.1.1:8080";
const THERE: &str = "10.244.2.1:8080";

fn services() -> Vec<ServicePlan> {
    use Protocol::{Sctp, Tcp, Udp};
    let local = TrafficPolicy::Local;
    let mut all = vec![
        plan(
            "default/kubernetes",
            Tcp,
            "10.96.0.1",
            443,
            &["192.168.0.2:6443"],
        ),
        plan(
            "kube-system/dns-tcp",
            Tcp,
            "10.96.0.10",
            53,
            &["10.244.1.2:53", "10.244.2.2:53"],
        ),
        plan(
            "kube-system/dns",
            Udp,
            "10.96.0.10",
            53,
            &["10.244.1.2:53", "10.244.2.2:53"],
        ),
        plan("ns/empty", Tcp, "10.96.0.20", 80, &[]),
    ];
    let with = |name, change: &dyn Fn(&mut ServicePlan)| {
        let number = 30 + all.len();
        let vip = format!("10.96.0.{number}");
        let mut plan = plan(name, Tcp, &vip, 80, &[HERE, THERE]);
        change(&mut plan);
        plan
    };
    let more = [
        with("ns/affinity", &|plan| {
            plan.affinity_timeout_s = Some(10_800);
        }),
        with("ns/maglev", &|plan| {
            plan.frontends = vec![Frontend::ClusterIp(ip("10.96.0.40"))];
            plan.ipvs_scheduler = Some(IpvsScheduler::MaglevHashing);
        }),
        with("ns/internal-local-none-here", &|plan| {
            plan.frontends = vec![Frontend::ClusterIp(ip("10.96.0.41"))];
            plan.internal_policy = local;
            plan.local = Box::default();
        }),
        with("ns/external-ip", &|plan| {
            plan.frontends = vec![
                Frontend::ClusterIp(ip("10.96.0.42")),
                Frontend::ExternalIp(ip("203.0.113.42")),
            ];
        }),
        with("ns/external-ip-local-on-the-node", &|plan| {
            plan.frontends = vec![
                Frontend::ClusterIp(ip("10.96.0.43")),
                Frontend::ExternalIp(ip("192.168.0.3")),
            ];
            plan.external_policy = local;
        }),
        with("ns/node-port", &|plan| {
            plan.frontends = vec![
                Frontend::ClusterIp(ip("10.96.0.44")),
                Frontend::NodePort(30_044),
            ];
        }),
        with("ns/node-port-local-none-here", &|plan| {
            plan.id.protocol = Udp;
            plan.frontends = vec![
                Frontend::ClusterIp(ip("10.96.0.45")),
                Frontend::NodePort(30_045),
            ];
            plan.external_policy = local;
            plan.cluster = targets(&[THERE]);
            plan.local = Box::default();
        }),
        with("ns/node-port-sctp-local", &|plan| {
            plan.id.protocol = Sctp;
            plan.frontends = vec![
                Frontend::ClusterIp(ip("10.96.0.46")),
                Frontend::NodePort(30_046),
            ];
            plan.external_policy = local;
        }),
        with("ns/load-balancer-with-ranges", &|plan| {
            plan.frontends = vec![
                Frontend::ClusterIp(ip("10.96.0.47")),
                Frontend::LoadBalancerIp(ip("203.0.113.47")),
                Frontend::NodePort(30_047),
            ];
            let ranges = ["192.168.0.0/24", "198.51.100.128/25"];
            plan.source_ranges = Some(ranges.map(|net| net.parse().unwrap()).into());
            plan.source_ranges_include_node = true;
        }),
        with("ns/load-balancer-local", &|plan| {
            plan.frontends = vec![
                Frontend::ClusterIp(ip("10.96.0.48")),
                Frontend::LoadBalancerIp(ip("203.0.113.48")),
                Frontend::NodePort(30_048),
            ];
            plan.external_policy = local;
            plan.health_check_node_port = Some(32_048);
        }),
    ];
    all.extend(more);
    let here = "[fd00:244:1::1]:8080";
    let mut six = plan("ns/load-balancer-local", Tcp, "fd00:96::48", 80, &[here]);
    six.frontends
        .push(Frontend::LoadBalancerIp(ip("2001:db8:113::48")));
    six.frontends.push(Frontend::NodePort(30_048));
    six.external_policy = local;
    six.affinity_timeout_s = Some(60);
    all.push(six);
    all
}

fn config(family: IpFamily) -> Config {
    let (node, pods) = match family {
        IpFamily::V4 => (vec!["192.168.0.2", "192.168.0.3"], "10.244.0.0/16"),
        IpFamily::V6 => (vec!["2001:db8::2"], "fd00:244::/32"),
    };
    let node: Vec<IpAddr> = node.into_iter().map(ip).collect();
    let pods = Some(pods.parse().unwrap());
    Config {
        family,
        masquerade_mark: 0x4000,
        masquerade_all: false,
        detector: LocalDetector::Cidrs { v4: pods, v6: pods },
        held_elsewhere: Arc::new(node.iter().copied().collect()),
        node_addresses: node,
        node_ports_are_restricted: false,
        scheduler: IpvsScheduler::RoundRobin,
        available: Arc::new(IpvsScheduler::ALL),
        excluded: Vec::new(),
    }
}

fn listing(family: IpFamily) -> String {
    let config = config(family);
    let (mut wanted, mut members) = (BTreeMap::new(), BTreeMap::new());
    let mut addresses = BTreeSet::new();
    for plan in services().iter().filter(|plan| plan.id.family == family) {
        let fragment = compile(plan, &config);
        for service in fragment.services {
            let key = service.service.key;
            assert!(wanted.insert(key, service).is_none(), "{key} twice");
        }
        for (set, entry) in fragment.members {
            members
                .entry(set)
                .or_insert_with(BTreeSet::new)
                .insert(entry);
        }
        addresses.extend(fragment.addresses);
    }
    let mut text = String::from("# ipvsadm -Sn\n");
    for (key, service) in &wanted {
        text += &service_lines(*key, service);
    }
    text += "\n# ip address show dev kube-ipvs0\n";
    for address in addresses {
        let _ = writeln!(text, "{}", config.host(address));
    }
    text += "\n# ipset save\n";
    for set in Set::ALL {
        let name = set.name(family);
        let _ = writeln!(text, "create {name} {}", set_words(&set.spec(family)));
        for entry in members.get(&set).into_iter().flatten() {
            let _ = writeln!(text, "add {name} {entry}");
        }
    }
    text += "\n# iptables-save\n";
    for table in Table::ALL {
        let _ = writeln!(text, "*{}", table.as_str());
        for jump in rules::jumps().iter().filter(|jump| jump.table == table) {
            let _ = writeln!(text, "-A {} {}", jump.from, jump.rule);
        }
        for fixed in rules::chains(&config) {
            for rule in fixed.chain.rules.iter().filter(|_| fixed.table == table) {
                let _ = writeln!(text, "-A {} {rule}", fixed.chain.name);
            }
        }
    }
    text
}

fn service_lines(key: ServiceKey, service: &Virtual) -> String {
    let option = match key.protocol {
        switchyard_netlink::Protocol::Tcp => "-t",
        switchyard_netlink::Protocol::Udp => "-u",
        switchyard_netlink::Protocol::Sctp => "--sctp-service",
    };
    let mut text = format!(
        "-A {option} {} -s {}",
        key.address, service.service.scheduler
    );
    if let Some(persistence) = service.service.persistence {
        let _ = write!(text, " -p {}", persistence.timeout_seconds);
        if persistence.prefix_bits == 128 {
            text += " -M 128";
        }
    }
    let flags = [
        (ServiceFlags::HASH_FALLBACK, "mh-fallback"),
        (ServiceFlags::HASH_PORT, "mh-port"),
    ];
    let set: Vec<&str> = flags
        .into_iter()
        .filter(|(flag, _)| service.service.flags.contains(*flag))
        .map(|(_, name)| name)
        .collect();
    if !set.is_empty() {
        let _ = write!(text, " -b {}", set.join(","));
    }
    text += "\n";
    for to in &service.destinations {
        let _ = writeln!(text, "-a {option} {} -r {to} -m -w {WEIGHT}", key.address);
    }
    text
}

fn set_words(spec: &SetSpec) -> String {
    let name = spec.set_type.name();
    match spec.set_type {
        SetType::BitmapPort { first, last } => format!("{name} range {first}-{last}"),
        _ => {
            let family = match spec.family {
                switchyard_netlink::Family::V4 => "inet",
                switchyard_netlink::Family::V6 => "inet6",
            };
            let (hash, max) = (spec.hash_size, spec.max_elements);
            format!("{name} family {family} hashsize {hash} maxelem {max}")
        }
    }
}

#[test]
fn services_of_every_kind_are_listed_as_they_should_be() {
    for (family, file) in [(IpFamily::V4, "ipv4.txt"), (IpFamily::V6, "ipv6.txt")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/backend/ipvs/golden")
            .join(file);
        let listed = listing(family);
        if std::env::var_os("SWITCHYARD_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &listed).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(listed, golden, "{}", path.display());
    }
}
