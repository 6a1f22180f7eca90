//! Random clusters for tests: few addresses and names, so that Services collide, share VIPs
//! and lose endpoints often.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use switchyard_cluster::object::{
    Conditions, Endpoint, EndpointSlice, Hints, IpFamily, LoadBalancerIp, ObjectName, Place,
    Protocol, Service, ServicePort, ServiceType, SlicePort, TrafficPolicy,
};

use super::{LocalDetector, NodeContext, NodePortAddresses, Packet, PlanTable, plan_service};

/// A Service and its slices.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    pub(crate) service: Service,
    pub(crate) slices: Vec<EndpointSlice>,
}

/// The node's own addresses in every generated cluster.
pub(crate) const NODE_ADDRESSES: [&str; 4] = ["192.168.0.2", "127.0.0.1", "2001:db8::2", "::1"];
/// Pods of this node are within these.
pub(crate) const POD_NETWORKS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/32"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(pool: &'static [&'static str]) -> impl Strategy<Value = Box<[IpAddr]>> {
    subsequence(pool, 0..=pool.len()).prop_map(|chosen| chosen.into_iter().map(address).collect())
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let of = |ready, serving, terminating| Conditions {
        ready,
        serving,
        terminating,
    };
    select(vec![
        Conditions::READY,
        Conditions::READY,
        of(false, true, true),
        of(false, false, true),
        of(false, false, false),
    ])
}

fn at(node: &str) -> Arc<Place> {
    Arc::new(Place {
        node: Some(node.into()),
        zone: None,
    })
}

fn hints() -> impl Strategy<Value = Option<Arc<Hints>>> {
    let names = |pool: Vec<&'static str>| {
        let all = pool.len();
        subsequence(pool, 0..=all).prop_map(|names| {
            names
                .into_iter()
                .map(Arc::from)
                .collect::<Box<[Arc<str>]>>()
        })
    };
    let hints = (names(vec!["a", "b"]), names(vec!["node1", "node2"]))
        .prop_map(|(zones, nodes)| Arc::new(Hints { zones, nodes }));
    option::weighted(0.4, hints)
}

fn endpoint(family: IpFamily) -> impl Strategy<Value = Endpoint> {
    let pool = match family {
        IpFamily::V4 => vec!["10.244.1.1", "10.244.1.2", "10.244.2.1"],
        IpFamily::V6 => vec!["fd00:244:1::1", "fd00:244:1::2", "fd00:244:2::1"],
    };
    let node = option::of(select(vec!["node1", "node2"]));
    (select(pool), node, conditions(), hints()).prop_map(|(ip, node, conditions, hints)| Endpoint {
        address: address(ip),
        conditions,
        place: node.map(at),
        hints,
        naming: None,
    })
}

fn slice(index: usize, service: &'static str) -> impl Strategy<Value = EndpointSlice> {
    select(vec![IpFamily::V4, IpFamily::V6]).prop_flat_map(move |family| {
        (vec(endpoint(family), 0..4), select(vec![8080_u16, 8081])).prop_map(
            move |(endpoints, port)| EndpointSlice {
                name: ObjectName::new("ns", format!("{service}-{index}")),
                service: Some(service.into()),
                family: Some(family),
                ports: Box::new([
                    SlicePort {
                        name: "p".into(),
                        protocol: Protocol::Tcp,
                        port,
                    },
                    SlicePort {
                        name: "u".into(),
                        protocol: Protocol::Udp,
                        port: 5353,
                    },
                ]),
                endpoints: endpoints.into(),
                headless: false,
                trigger_unix_ns: None,
            },
        )
    })
}

fn ports() -> impl Strategy<Value = Box<[ServicePort]>> {
    let node_port = || option::of(select(vec![30_001_u16, 30_002]));
    (
        select(vec![80_u16, 443]),
        node_port(),
        any::<bool>(),
        node_port(),
    )
        .prop_map(|(port, node_port, also_udp, udp_node_port)| {
            let tcp = ServicePort {
                name: "p".into(),
                protocol: Protocol::Tcp,
                port,
                node_port,
            };
            let udp = ServicePort {
                name: "u".into(),
                protocol: Protocol::Udp,
                port,
                node_port: udp_node_port,
            };
            std::iter::once(tcp)
                .chain(also_udp.then_some(udp))
                .collect()
        })
}

fn service(name: &'static str) -> impl Strategy<Value = Service> {
    let cluster_ips = select(vec![
        vec!["10.96.0.1"],
        vec!["10.96.0.2", "fd00:96::2"],
        vec!["fd00:96::3"],
        vec![],
    ]);
    let ranges = option::weighted(
        0.4,
        subsequence(
            vec![
                "203.0.113.0/25",
                "192.168.0.0/24",
                "2001:db8::/64",
                "0.0.0.0/0",
            ],
            0..3,
        ),
    );
    let external_ips = addresses(&["203.0.113.200", "203.0.113.201", "2001:db8:9::1"]);
    let ingress = addresses(&["203.0.113.201", "203.0.113.210", "2001:db8:9::2"]);
    (
        (cluster_ips, external_ips, ingress, any::<bool>()),
        (
            ports(),
            option::of(select(vec![60_u32, 10_800])),
            policy(),
            policy(),
            ranges,
        ),
        (0_i64..3, any::<bool>()),
    )
        .prop_map(
            move |((cluster_ips, external_ips, ingress, proxied), rest, (created, lb))| {
                let (ports, affinity_timeout_s, internal_policy, external_policy, ranges) = rest;
                Service {
                    name: ObjectName::new("ns", name),
                    created_unix_s: created,
                    kind: if lb {
                        ServiceType::LoadBalancer
                    } else {
                        ServiceType::NodePort
                    },
                    cluster_ips: cluster_ips.into_iter().map(address).collect(),
                    headless: false,
                    external_name: None,
                    external_ips,
                    load_balancer_ips: ingress
                        .iter()
                        .map(|address| LoadBalancerIp {
                            address: *address,
                            proxied,
                        })
                        .collect(),
                    ports,
                    affinity_timeout_s,
                    internal_policy,
                    external_policy,
                    source_ranges: ranges
                        .map(|ranges| ranges.iter().map(|range| range.parse().unwrap()).collect()),
                    health_check_node_port: None,
                    proxied_elsewhere: false,
                    ipvs_scheduler: None,
                }
            },
        )
}

fn generated(name: &'static str) -> impl Strategy<Value = Generated> {
    (
        service(name),
        slice(0, name),
        slice(1, name),
        slice(2, name),
    )
        .prop_map(|(service, a, b, c)| Generated {
            service,
            slices: vec![a, b, c],
        })
}

/// One to four Services with their slices.
pub(crate) fn cluster() -> impl Strategy<Value = Vec<Generated>> {
    let all = (
        generated("a"),
        generated("b"),
        generated("c"),
        generated("d"),
    );
    (all, 1_usize..=4).prop_map(|((a, b, c, d), count)| {
        let mut services = vec![a, b, c, d];
        services.truncate(count);
        services
    })
}

/// The node these Services are planned on, with every kind of setting.
pub(crate) fn node() -> impl Strategy<Value = NodeContext> {
    let [v4, v6] = POD_NETWORKS.map(|network| network.parse().unwrap());
    let detectors = vec![
        LocalDetector::NONE,
        LocalDetector::Cidrs {
            v4: Some(v4),
            v6: Some(v6),
        },
        LocalDetector::Cidrs {
            v4: None,
            v6: Some(v6),
        },
        LocalDetector::Bridge("cbr0".to_owned()),
        LocalDetector::InterfacePrefix("veth".to_owned()),
    ];
    let node_ports = vec![
        NodePortAddresses::All,
        NodePortAddresses::Primary,
        NodePortAddresses::Cidrs(vec!["192.168.0.0/24".parse().unwrap()]),
        NodePortAddresses::Cidrs(vec!["10.0.0.0/8".parse().unwrap()]),
    ];
    let zone = option::of(select(vec!["a", "b"]));
    (
        select(detectors),
        select(node_ports),
        zone,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(detector, node_port_addresses, zone, masquerade_all, localhost_node_ports)| {
                NodeContext {
                    name: "node1".into(),
                    zone: zone.map(Arc::from),
                    ips: vec![address("192.168.0.2"), address("2001:db8::2")],
                    detector,
                    masquerade_all,
                    node_port_addresses,
                    localhost_node_ports,
                }
            },
        )
}

/// The plans of a cluster on a node.
pub(crate) fn table(cluster: &[Generated], node: &NodeContext) -> PlanTable {
    let mut table = PlanTable::default();
    for Generated { service, slices } in cluster {
        let planned = plan_service(service, slices.iter(), node);
        table.update(&service.name, service.created_unix_s, planned);
    }
    table
}

/// A packet from each sender to each destination of its family, to ports that generated Services
/// may have and to others.
pub(crate) fn packets(senders: &[(&str, Option<&str>)], destinations: &[&str]) -> Vec<Packet> {
    let mut packets = Vec::new();
    for (source, in_interface) in senders {
        for destination in destinations {
            let (source, destination): (IpAddr, IpAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            let one_family = IpFamily::of(source) == IpFamily::of(destination);
            // The kernel sends from loopback to loopback only, and to it from nowhere else.
            if !one_family || source.is_loopback() != destination.is_loopback() {
                continue;
            }
            for port in [80, 443, 81, 30_001, 30_002] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    packets.push(Packet {
                        source,
                        in_interface: in_interface.map(str::to_owned),
                        destination,
                        port,
                        protocol,
                    });
                }
            }
        }
    }
    packets
}
