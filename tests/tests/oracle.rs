//! Chains of generated clusters against the oracle: for every packet, what comes back is what
//! `verdict(plan, packet)` says, on every backend, while one cluster changes into the next.
//!
//! `SWITCHYARD_CHAINS=<n>` runs that many chains of clusters instead of the usual few.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use switchyard_cluster::decode::decode;
use switchyard_cluster::interner::Interner;
use switchyard_cluster::object::{Kind, Object, Protocol as ClusterProtocol};
use switchyard_proxy::plan::{
    LocalDetector, NodeContext, NodePortAddresses, Packet, PlanTable, ServicePlan, Verdict,
    plan_service, verdict,
};
use switchyard_tests::cases::{
    Backend, Case, CaseRunner, Expect, IngressSpec, PacketSpec, ServiceSpec, Step, expand_service,
};
use switchyard_tests::testbed::{Family, IptablesTool, Place, Protocol, Testbed, require_root};

const FAMILIES: [Family; 2] = [Family::IPv4, Family::IPv6];
/// None of them is on pod12, which is a client here: a pod that meets itself bypasses the node.
const ENDPOINTS: [&str; 6] = [
    "10.244.1.31",
    "10.244.1.32",
    "10.244.1.33",
    "10.244.2.51",
    "10.244.2.52",
    "10.244.2.61",
];
const CLIENTS: [(Place, Option<&str>); 4] = [
    (Place::Pod12, Some("veth12")),
    (Place::Node1, None),
    (Place::Client, Some("eth0")),
    (Place::Blocked, Some("eth0")),
];
/// Services of a cluster, at most.
const SERVICES: usize = 5;
/// Clusters that follow one another in one chain.
const CHAIN: usize = 3;
/// Chains, unless the environment says otherwise.
const CHAINS: usize = 3;

fn endpoint() -> impl Strategy<Value = String> {
    let state = prop_oneof![
        5 => Just(""),
        2 => Just(" serving"),
        1 => Just(" terminating"),
        1 => Just(" unready"),
        1 => Just(" unset"),
    ];
    let zones = prop_oneof![3 => Just(""), 1 => Just(" zones=zone-a"), 1 => Just(" zones=zone-b")];
    let nodes = prop_oneof![5 => Just(""), 1 => Just(" nodes=node1"), 1 => Just(" nodes=node2")];
    let place = prop_oneof![6 => Just(""), 1 => Just(" node=-")];
    (state, zones, nodes, place)
        .prop_map(|(state, zones, nodes, place)| format!("{state}{zones}{nodes}{place}"))
}

fn endpoints() -> impl Strategy<Value = Option<Vec<String>>> {
    let some = proptest::sample::subsequence(&ENDPOINTS[..], 0..=4)
        .prop_flat_map(|addresses| {
            let notes = prop::collection::vec(endpoint(), addresses.len());
            (Just(addresses), notes)
        })
        .prop_map(|(addresses, notes)| {
            addresses
                .iter()
                .zip(notes)
                .map(|(address, note)| format!("{address}{note}"))
                .collect()
        });
    prop_oneof![1 => Just(None), 9 => some.prop_map(Some)]
}

/// The Service of place `number`: its addresses are its own, all else is chance.
fn service(number: usize) -> impl Strategy<Value = ServiceSpec> {
    let kind = prop_oneof![Just("ClusterIP"), Just("NodePort"), Just("LoadBalancer")];
    let local = || prop_oneof![2 => Just(None), 1 => Just(Some("Local".to_owned()))];
    let ranges = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec!["198.51.100.0/25"]),
        1 => Just(vec!["192.168.100.0/24", "198.51.100.128/25"]),
    ];
    let affinity = prop_oneof![4 => Just(None), 1 => Just(Some(600))];
    (
        kind,
        local(),
        local(),
        ranges,
        affinity,
        any::<bool>(),
        endpoints(),
    )
        .prop_map(
            move |(kind, external, internal, ranges, affinity_seconds, external_ip, endpoints)| {
                let node = |port: usize| {
                    if kind == "ClusterIP" {
                        String::new()
                    } else {
                        format!(" node={port}")
                    }
                };
                let ports = [
                    format!("t 80->8080/TCP{}", node(30600 + number)),
                    format!("u 53->5353/UDP{}", node(30700 + number)),
                ];
                let is_external = kind != "ClusterIP" || external_ip;
                ServiceSpec {
                    kind: Some(kind.to_owned()),
                    cluster_ip: Some(format!("10.96.7.{}", 10 + number)),
                    ports: ports.iter().filter_map(|text| text.parse().ok()).collect(),
                    external_ips: if external_ip {
                        vec![format!("203.0.113.{}", 10 + number)]
                    } else {
                        vec![]
                    },
                    load_balancer: if kind == "LoadBalancer" {
                        vec![IngressSpec::Address(IpAddr::from([
                            203,
                            0,
                            113,
                            u8::try_from(30 + number).unwrap_or(30),
                        ]))]
                    } else {
                        vec![]
                    },
                    source_ranges: if kind == "LoadBalancer" {
                        ranges.iter().map(|range| (*range).to_owned()).collect()
                    } else {
                        vec![]
                    },
                    external_traffic_policy: external.filter(|_| is_external),
                    internal_traffic_policy: internal,
                    affinity_seconds,
                    endpoints: endpoints
                        .map(|list| list.iter().filter_map(|text| text.parse().ok()).collect()),
                    ..ServiceSpec::default()
                }
            },
        )
}

fn cluster() -> impl Strategy<Value = BTreeMap<String, ServiceSpec>> {
    let services: Vec<_> = (0..SERVICES)
        .map(|number| prop::option::weighted(0.8, service(number)))
        .collect();
    services.prop_map(|services| {
        let named = services.into_iter().enumerate();
        named
            .filter_map(|(number, service)| Some((format!("svc{number}"), service?)))
            .collect()
    })
}

/// The node as the proxy of a case sees it.
fn context(masquerade_all: bool, detector: bool) -> Result<NodeContext> {
    let cidr = |text: &str| -> Result<_> { Ok(Some(text.parse()?).filter(|_| detector)) };
    Ok(NodeContext {
        name: "node1".into(),
        zone: Some("zone-a".into()),
        ips: FAMILIES.map(|family| Place::Node1.address(family)).to_vec(),
        detector: LocalDetector::Cidrs {
            v4: cidr("10.244.0.0/16")?,
            v6: cidr("fd00:244::/32")?,
        },
        masquerade_all,
        node_port_addresses: NodePortAddresses::All,
        localhost_node_ports: true,
    })
}

fn plans(
    services: &BTreeMap<String, ServiceSpec>,
    node: &NodeContext,
) -> Result<Vec<std::sync::Arc<ServicePlan>>> {
    let mut table = PlanTable::default();
    let mut names = Interner::default();
    for (key, spec) in services {
        let (mut found, mut slices) = (None, Vec::new());
        for object in expand_service(key, spec, &FAMILIES)? {
            let kind = if object["kind"] == "Service" {
                Kind::Service
            } else {
                Kind::EndpointSlice
            };
            match decode(kind, &object.to_string(), &mut names).map(|decoded| decoded.object) {
                Ok(Object::Service(service)) => found = Some(service),
                Ok(Object::EndpointSlice(slice)) => slices.push(slice),
                other => bail!("{other:?}"),
            }
        }
        let service = found.context("no Service")?;
        let planned = plan_service(&service, slices.iter().map(|slice| &**slice), node);
        table.update(&service.name, 0, planned);
    }
    Ok(table.plans().cloned().collect())
}

/// What the oracle says of one packet, as an expectation and whether it is masqueraded.
fn expectation(
    plans: &[std::sync::Arc<ServicePlan>],
    node: &NodeContext,
    packet: &Packet,
    sticky: bool,
) -> Option<(Expect, Option<bool>)> {
    let local: Vec<IpAddr> = [
        "192.168.100.11",
        "192.168.200.11",
        "127.0.0.1",
        "169.254.1.1",
    ]
    .into_iter()
    .filter_map(|text| text.parse().ok())
    .flat_map(|v4| FAMILIES.map(|family| family.twin(v4)))
    .collect();
    Some(match verdict(plans.iter(), node, &local, packet) {
        Verdict::NotOurs => return None,
        Verdict::Reject => (Expect::Reject, None),
        Verdict::Drop => (Expect::Drop, None),
        Verdict::To(targets) => {
            let masquerade = targets.first()?.1;
            // No client here is an endpoint, so it is the same for all.
            assert!(targets.iter().all(|(_, other)| *other == masquerade));
            let of: Vec<_> = targets
                .iter()
                .map(|(target, _)| SocketAddr::new(target.address, target.port).into())
                .collect();
            let expect = if sticky {
                Expect::OneOf { of, remember: None }
            } else {
                Expect::All(of)
            };
            (expect, Some(masquerade))
        }
    })
}

fn packets(
    services: &BTreeMap<String, ServiceSpec>,
    node: &NodeContext,
) -> Result<Vec<PacketSpec>> {
    let plans = plans(services, node)?;
    let mut packets = Vec::new();
    for (key, spec) in services {
        for family in FAMILIES {
            for (from, interface) in CLIENTS {
                for (port, protocol) in [(80, Protocol::Tcp), (53, Protocol::Udp)] {
                    for to in frontends(spec, port, from)? {
                        let to = family.twin_socket(to);
                        let source = if to.ip().is_loopback() {
                            to.ip()
                        } else {
                            from.address(family)
                        };
                        let packet = Packet {
                            source,
                            in_interface: interface.map(str::to_owned),
                            destination: to.ip(),
                            port: to.port(),
                            protocol: match protocol {
                                Protocol::Tcp => ClusterProtocol::Tcp,
                                Protocol::Udp => ClusterProtocol::Udp,
                            },
                        };
                        let sticky = spec.affinity_seconds.is_some();
                        if let Some((expect, masq)) = expectation(&plans, node, &packet, sticky) {
                            let mut spec = PacketSpec::new(from, protocol, to, expect);
                            spec.id = format!("{key} {}", packets.len());
                            spec.masq = masq;
                            spec.families = Some(vec![family]);
                            packets.push(spec);
                        }
                    }
                }
            }
        }
    }
    Ok(packets)
}

/// Where a client finds a Service's port, in IPv4.
fn frontends(spec: &ServiceSpec, port: u16, from: Place) -> Result<Vec<SocketAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in spec.cluster_ip.iter().chain(&spec.external_ips) {
        addresses.push(text.parse()?);
    }
    for ingress in &spec.load_balancer {
        if let IngressSpec::Address(address) = ingress {
            addresses.push(*address);
        }
    }
    let mut all: Vec<SocketAddr> = addresses
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect();
    let node_port = spec
        .ports
        .iter()
        .find(|own| own.port == port)
        .map_or(0, |own| own.node_port);
    if node_port != 0 {
        all.push(SocketAddr::new(
            Place::Node1.address(Family::IPv4),
            node_port,
        ));
        if from == Place::Node1 {
            all.push(SocketAddr::from(([127, 0, 0, 1], node_port)));
        }
    }
    // A port that the ClusterIP does not have.
    if let Some(Ok(address)) = spec.cluster_ip.as_ref().map(|text| text.parse()) {
        all.push(SocketAddr::new(address, 443));
    }
    Ok(all)
}

/// A chain of clusters, each changed into the next, as one case.
fn chain(number: usize, runner: &mut TestRunner) -> Result<Case> {
    let (masquerade_all, detector) = [(false, true), (true, true), (false, false)][number % 3];
    let node = context(masquerade_all, detector)?;
    let mut flags = Vec::new();
    if masquerade_all {
        flags.push("--masquerade-all".to_owned());
    }
    if !detector {
        flags.push("--cluster-cidr=".to_owned());
    }
    let mut steps = Vec::new();
    let mut before: BTreeMap<String, ServiceSpec> = BTreeMap::new();
    for _ in 0..CHAIN {
        let tree = cluster()
            .new_tree(runner)
            .map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let services = tree.current();
        steps.push(Step {
            name: format!("{services:#?}"),
            delete: before
                .keys()
                .filter(|key| !services.contains_key(*key))
                .cloned()
                .collect(),
            packets: packets(&services, &node)?,
            set: services.clone(),
            ..Step::default()
        });
        before = services;
    }
    Ok(Case {
        name: format!("generated {number}"),
        families: FAMILIES.to_vec(),
        flags,
        node_addresses: Vec::new(),
        services: BTreeMap::new(),
        objects: Vec::new(),
        steps,
    })
}

fn run(tool: IptablesTool) -> Result<()> {
    require_root()?;
    let chains = std::env::var("SWITCHYARD_CHAINS").map_or(Ok(CHAINS), |text| text.parse())?;
    let mut random = TestRunner::deterministic();
    let backend = Backend::ALL
        .into_iter()
        .find(|backend| backend.tool == tool)
        .context("no such backend")?;
    let bed = Testbed::build()?;
    let mut runner = CaseRunner::new(&bed, backend)?;
    for number in 0..chains {
        let case = chain(number, &mut random)?;
        let packets: usize = case.steps.iter().map(|step| step.packets.len()).sum();
        runner
            .run(&case)
            .map_err(|failure| anyhow::anyhow!("{}: {failure}", backend.name))?;
        println!(
            "{}: {}: {packets} kinds of packets did as the oracle says",
            backend.name, case.name
        );
    }
    Ok(())
}

#[test]
fn generated_clusters_do_as_the_oracle_says_over_nft() -> Result<()> {
    run(IptablesTool::Nft)
}

#[test]
fn generated_clusters_do_as_the_oracle_says_over_legacy() -> Result<()> {
    run(IptablesTool::Legacy)
}
