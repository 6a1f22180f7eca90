//! Random clusters on the testbed: what becomes of real packets is what
//! `switchyard-proxy explain` says of them.
//!
//! `SWITCHYARD_GENERATED=<n>` tries that many clusters instead of the usual few.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};
use switchyard_tests::cases::{Backend, Manifests, node_objects};
use switchyard_tests::testbed::{
    Family, Outcome, Place, Probe, Protocol, Proxy, Testbed, require_root, wait_for,
};

const CLUSTERS: usize = 8;
/// Where the proxy tells its mode.
const METRICS: &str = "127.0.0.1:10249";
const ENDPOINTS: [(&str, &str); 4] = [
    ("10.244.1.11", "node1"),
    ("10.244.1.12", "node1"),
    ("10.244.2.21", "node2"),
    ("10.244.2.22", "node2"),
];
const TCP_TARGET: u16 = 8080;
const UDP_TARGET: u16 = 5353;
/// Outlasts the first retry of TCP, at which a refusal would show.
const DROP_TIMEOUT: Duration = Duration::from_millis(1300);
const PROBES_EACH: usize = 3;
/// Longer than conntrack is left with flows of the cluster before.
const STALE_FLOWS_GONE: Duration = Duration::from_millis(800);
const MARKER_PORTS: [u16; 2] = [7001, 7002];
const PROGRAMMED_LIMIT: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
struct Endpoint {
    place: usize,
    conditions: (bool, bool, bool),
    zone_hint: Option<&'static str>,
    node_hint: Option<&'static str>,
    node_known: bool,
}

#[derive(Clone, Debug)]
struct Service {
    port: u16,
    node_port: bool,
    load_balancer: bool,
    external_ip: bool,
    internal_local: bool,
    external_local: bool,
    sticky: bool,
    ranges: Option<Vec<&'static str>>,
    slices: Vec<Vec<Endpoint>>,
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let conditions = select(vec![
        (true, true, false),
        (true, true, false),
        (true, true, false),
        (false, true, true),
        (false, false, true),
        (false, false, false),
    ]);
    let zone_hint = option::weighted(0.5, select(vec!["zone-a", "zone-b"]));
    let node_hint = option::weighted(0.2, select(vec!["node1", "node2"]));
    (
        0..ENDPOINTS.len(),
        conditions,
        zone_hint,
        node_hint,
        prop::bool::weighted(0.9),
    )
        .prop_map(
            |(place, conditions, zone_hint, node_hint, node_known)| Endpoint {
                place,
                conditions,
                zone_hint,
                node_hint,
                node_known,
            },
        )
}

fn service() -> impl Strategy<Value = Service> {
    let ranges = subsequence(
        vec!["198.51.100.0/25", "2001:db8:51::/121", "192.168.100.0/24"],
        1..3,
    );
    (
        (
            select(vec![80_u16, 443]),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            prop::bool::weighted(0.3),
        ),
        (
            any::<bool>(),
            option::weighted(0.3, ranges),
            vec(vec(endpoint(), 0..3), 0..3),
        ),
    )
        .prop_map(|(flags, (sticky, ranges, slices))| Service {
            port: flags.0,
            node_port: flags.1,
            load_balancer: flags.2,
            internal_local: flags.3,
            external_local: flags.4,
            external_ip: flags.5,
            sticky,
            ranges,
            slices,
        })
}

/// The Services as the API server would return them, number by number.
fn objects(services: &[Service]) -> Result<Vec<Value>> {
    let mut objects = node_objects();
    for (number, service) in services.iter().enumerate() {
        objects.push(service_object(number, service)?);
        for (index, slice) in service.slices.iter().enumerate() {
            for family in [Family::IPv4, Family::IPv6] {
                objects.push(slice_object(number, index, slice, family)?);
            }
        }
    }
    Ok(objects)
}

fn vip(kind: &str, number: usize, family: Family) -> Result<IpAddr> {
    let text = match kind {
        "cluster" => format!("10.96.5.{}", number + 1),
        "external" => format!("203.0.113.{}", number + 70),
        _ => format!("203.0.113.{}", number + 50),
    };
    Ok(family.twin(text.parse()?))
}

fn node_port(number: usize, protocol: Protocol) -> Result<u16> {
    let base = match protocol {
        Protocol::Tcp => 30_300,
        Protocol::Udp => 30_400,
    };
    Ok(base + u16::try_from(number)?)
}

fn service_object(number: usize, service: &Service) -> Result<Value> {
    let both = [Family::IPv4, Family::IPv6];
    let cluster_ips: Vec<IpAddr> = both
        .iter()
        .map(|family| vip("cluster", number, *family))
        .collect::<Result<_>>()?;
    let external = service.node_port || service.load_balancer || service.external_ip;
    let policy = |local| if local { "Local" } else { "Cluster" };
    let mut ports = Vec::new();
    for (name, protocol, target) in [
        ("t", Protocol::Tcp, TCP_TARGET),
        ("u", Protocol::Udp, UDP_TARGET),
    ] {
        let mut port = json!({
            "name": name,
            "port": service.port,
            "targetPort": target,
            "protocol": protocol.to_string().to_uppercase(),
        });
        if service.node_port {
            port["nodePort"] = json!(node_port(number, protocol)?);
        }
        ports.push(port);
    }
    let mut spec = json!({
        "type": match (service.load_balancer, service.node_port) {
            (true, _) => "LoadBalancer",
            (false, true) => "NodePort",
            (false, false) => "ClusterIP",
        },
        "clusterIP": cluster_ips[0],
        "clusterIPs": cluster_ips,
        "ipFamilies": ["IPv4", "IPv6"],
        "ports": ports,
        "sessionAffinity": if service.sticky { "ClientIP" } else { "None" },
        "internalTrafficPolicy": policy(service.internal_local),
    });
    if external {
        spec["externalTrafficPolicy"] = json!(policy(service.external_local));
    }
    if service.external_ip {
        let ips: Vec<IpAddr> = both
            .iter()
            .map(|family| vip("external", number, *family))
            .collect::<Result<_>>()?;
        spec["externalIPs"] = json!(ips);
    }
    if let Some(ranges) = &service.ranges {
        spec["loadBalancerSourceRanges"] = json!(ranges);
    }
    let mut ingress = Vec::new();
    if service.load_balancer {
        for family in both {
            ingress.push(json!({ "ip": vip("balancer", number, family)?, "ipMode": "VIP" }));
        }
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": format!("svc{number}"), "namespace": "generated" },
        "spec": spec,
        "status": { "loadBalancer": { "ingress": ingress } },
    }))
}

fn slice_object(
    number: usize,
    index: usize,
    endpoints: &[Endpoint],
    family: Family,
) -> Result<Value> {
    let mut list = Vec::new();
    for endpoint in endpoints {
        let (address, node) = ENDPOINTS[endpoint.place];
        let (ready, serving, terminating) = endpoint.conditions;
        let mut object = json!({
            "addresses": [family.twin(address.parse()?)],
            "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
        });
        if endpoint.node_known {
            object["nodeName"] = json!(node);
        }
        if let Some(zone) = endpoint.zone_hint {
            object["hints"]["forZones"] = json!([{ "name": zone }]);
        }
        if let Some(node) = endpoint.node_hint {
            object["hints"]["forNodes"] = json!([{ "name": node }]);
        }
        list.push(object);
    }
    let v = if family == Family::IPv4 { "4" } else { "6" };
    Ok(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": format!("IPv{v}"),
        "metadata": {
            "name": format!("svc{number}-{index}-v{v}"),
            "namespace": "generated",
            "labels": { "kubernetes.io/service-name": format!("svc{number}") },
        },
        "endpoints": list,
        "ports": [
            { "name": "t", "port": TCP_TARGET, "protocol": "TCP" },
            { "name": "u", "port": UDP_TARGET, "protocol": "UDP" },
        ],
    }))
}

/// A Service whose endpoint's port tells which cluster is in the kernel.
fn marker(round: usize) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    let both = [Family::IPv4, Family::IPv6];
    let ips: Vec<IpAddr> = both
        .iter()
        .map(|family| Ok(family.twin("10.96.0.99".parse()?)))
        .collect::<Result<_>>()?;
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "marker", "namespace": "zz-last" },
        "spec": {
            "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips,
            "ports": [{ "name": "m", "port": 80, "protocol": "TCP" }],
        },
    }));
    for (family, ip) in both.iter().zip(["10.244.2.22", "10.244.2.22"]) {
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "addressType": if *family == Family::IPv4 { "IPv4" } else { "IPv6" },
            "metadata": {
                "name": format!("marker-{}", if *family == Family::IPv4 { 4 } else { 6 }),
                "namespace": "zz-last",
                "labels": { "kubernetes.io/service-name": "marker" },
            },
            "endpoints": [{ "addresses": [family.twin(ip.parse()?)], "nodeName": "node2" }],
            "ports": [{ "name": "m", "port": MARKER_PORTS[round % 2], "protocol": "TCP" }],
        }));
    }
    Ok(objects)
}

/// A packet to send, and how `explain` is asked about it.
struct Packet {
    from: Place,
    source: IpAddr,
    to: SocketAddr,
    protocol: Protocol,
    /// It goes to a LoadBalancer address that keeps somebody out.
    ranged: bool,
}

impl Packet {
    /// Whether its socket is translated, in place of its packets.
    fn is_at_the_socket(&self, backend: Backend) -> bool {
        let left_to_the_device = self.ranged && self.from != Place::Node1;
        backend.is_at_the_socket() && self.from.lives_on_node1() && !left_to_the_device
    }

    fn question(&self) -> String {
        // Only whether the node itself sends it matters: pods are told by their addresses.
        let interface = if self.from == Place::Node1 {
            ""
        } else {
            "@eth0"
        };
        format!("{}{interface}>{}/{}", self.source, self.to, self.protocol)
    }
}

fn packets(services: &[Service]) -> Result<Vec<Packet>> {
    let mut packets = Vec::new();
    for (number, service) in services.iter().enumerate() {
        for family in [Family::IPv4, Family::IPv6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let mut to = vec![
                    SocketAddr::new(vip("cluster", number, family)?, service.port),
                    SocketAddr::new(vip("cluster", number, family)?, 81),
                ];
                if service.external_ip {
                    to.push(SocketAddr::new(
                        vip("external", number, family)?,
                        service.port,
                    ));
                }
                if service.load_balancer {
                    to.push(SocketAddr::new(
                        vip("balancer", number, family)?,
                        service.port,
                    ));
                }
                if service.node_port {
                    let port = node_port(number, protocol)?;
                    to.push(SocketAddr::new(Place::Node1.address(family), port));
                }
                for to in to {
                    let ranged =
                        to.ip() == vip("balancer", number, family)? && has_range(service, family);
                    for from in [Place::Pod12, Place::Node1, Place::Client, Place::Blocked] {
                        packets.push(Packet {
                            from,
                            source: from.address(family),
                            to,
                            protocol,
                            ranged,
                        });
                    }
                }
            }
        }
    }
    Ok(packets)
}

fn has_range(service: &Service, family: Family) -> bool {
    let mut ranges = service.ranges.iter().flatten();
    ranges.any(|range| range.contains(':') == (family == Family::IPv6))
}

/// What `explain` answered.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Endpoints, each with whether the source is hidden from it.
    To(BTreeSet<(SocketAddr, bool)>),
    Rejected,
    Dropped,
    NotOurs,
}

fn understand(line: &str, question: &str) -> Result<Wanted> {
    let says = line.strip_prefix(question).context(line.to_owned())?.trim();
    if says.starts_with("is rejected") {
        return Ok(Wanted::Rejected);
    }
    if says.starts_with("is dropped") {
        return Ok(Wanted::Dropped);
    }
    if says.starts_with("is none of ours") {
        return Ok(Wanted::NotOurs);
    }
    let list = says
        .strip_prefix("goes to one of:")
        .context(line.to_owned())?;
    let mut targets = BTreeSet::new();
    let mut words = list.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let masqueraded = words.next_if_eq(&"(masqueraded)").is_some();
        targets.insert((word.parse()?, masqueraded));
    }
    Ok(Wanted::To(targets))
}

fn is_as_wanted(backend: Backend, wanted: &Wanted, packet: &Packet, outcome: &Outcome) -> bool {
    let at_the_socket = packet.is_at_the_socket(backend);
    match (wanted, outcome) {
        (Wanted::Rejected, Outcome::Refused) | (Wanted::Dropped, Outcome::TimedOut) => true,
        // The socket program refuses the call itself.
        (Wanted::Dropped, Outcome::Denied) if at_the_socket => true,
        // Both kinds of refusal in OUTPUT reach a datagram socket of the node as EPERM.
        (Wanted::Rejected | Wanted::Dropped, Outcome::Denied) => {
            packet.from == Place::Node1
                && packet.protocol == Protocol::Udp
                && !backend.is_at_the_socket()
        }
        (Wanted::To(targets), Outcome::Answered(answer)) => {
            let hidden = answer.seen.ip() != answer.own.ip();
            // The node's own packets carry an address of the node either way; a socket that was
            // translated keeps its own, and the answer comes straight back.
            let any_source = packet.from == Place::Node1 || at_the_socket;
            targets.iter().any(|(target, masqueraded)| {
                *target == answer.by && (any_source || *masqueraded == hidden)
            })
        }
        _ => false,
    }
}

struct Round<'a> {
    bed: &'a Testbed,
    backend: Backend,
    proxy: &'a Proxy,
    manifests: &'a Manifests,
}

impl Round<'_> {
    fn check(&self, round: usize, services: &[Service]) -> Result<()> {
        let objects = [objects(services)?, marker(round)?].concat();
        self.manifests.replace(&objects)?;
        self.wait_programmed(round)?;
        let packets = packets(services)?;
        let wanted = self.explain(&packets)?;
        let ours: Vec<(&Packet, &Wanted)> = packets
            .iter()
            .zip(&wanted)
            .filter(|(_, wanted)| **wanted != Wanted::NotOurs)
            .collect();
        let mut wrong = self.send(&ours)?;
        if !wrong.is_empty() {
            // A new socket may get the port of one that talked to the cluster before this
            // one, and with it a UDP flow that is about to be cleaned.
            std::thread::sleep(STALE_FLOWS_GONE);
            let again: Vec<(&Packet, &Wanted)> = wrong.iter().map(|(at, _)| ours[*at]).collect();
            wrong = self.send(&again)?;
        }
        let mut wrong: Vec<String> = wrong.into_iter().map(|(_, text)| text).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.truncate(12);
        bail!(
            "cluster {round}: {services:#?}\n{}\n{}",
            wrong.join("\n"),
            self.proxy.log_tail(10)
        );
    }

    /// Sends packets, and returns the places of those that came to something else, with what.
    fn send(&self, packets: &[(&Packet, &Wanted)]) -> Result<Vec<(usize, String)>> {
        let mut probes = Vec::new();
        let mut places = Vec::new();
        for (place, (packet, wanted)) in packets.iter().enumerate() {
            let probe = Probe::new(packet.from, packet.protocol, packet.to)
                .source(SocketAddr::new(packet.source, 0));
            let (probe, count) = match wanted {
                Wanted::To(_) => (probe, PROBES_EACH),
                Wanted::Dropped => (probe.timeout(DROP_TIMEOUT), 1),
                Wanted::Rejected | Wanted::NotOurs => (probe, 1),
            };
            probes.extend(vec![probe; count]);
            places.extend(vec![place; count]);
        }
        let mut wrong = Vec::new();
        for (place, outcome) in places.into_iter().zip(self.bed.probe_all(&probes)?) {
            let (packet, wanted) = packets[place];
            if !is_as_wanted(self.backend, wanted, packet, &outcome) {
                let text = format!("{}: {wanted:?}, but {outcome}", packet.question());
                wrong.push((place, text));
            }
        }
        Ok(wrong)
    }

    fn wait_programmed(&self, round: usize) -> Result<()> {
        // IPv6 is written last.
        let to = SocketAddr::new(Family::IPv6.twin("10.96.0.99".parse()?), 80);
        let port = MARKER_PORTS[round % 2];
        wait_for(
            "the cluster to be programmed",
            PROGRAMMED_LIMIT,
            Duration::from_millis(20),
            || {
                let probe =
                    Probe::new(Place::Pod12, Protocol::Tcp, to).timeout(Duration::from_millis(250));
                let outcome = self.bed.probe(&probe)?;
                Ok(matches!(outcome, Outcome::Answered(answer) if answer.by.port() == port))
            },
        )
    }

    fn explain(&self, packets: &[Packet]) -> Result<Vec<Wanted>> {
        let questions: Vec<String> = packets.iter().map(Packet::question).collect();
        let options = self.proxy.options();
        let binary = options.binary.display().to_string();
        let mut command = vec![binary, "explain".to_owned()];
        command.extend(options.arguments());
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let answers = self
            .bed
            .run(Place::Node1, &command, &questions.join("\n"))?
            .success("switchyard-proxy explain")?;
        let lines: Vec<&str> = answers.lines().collect();
        if lines.len() != questions.len() {
            bail!(
                "{} answers to {} questions:\n{answers}",
                lines.len(),
                questions.len()
            );
        }
        lines
            .iter()
            .zip(&questions)
            .map(|(line, question)| understand(line, question))
            .collect()
    }
}

/// By design, ipvs mode masquerades what an endpoint sends to itself only where the endpoint's
/// node is given.
fn name_nodes_of_clients(services: &mut [Service]) {
    for endpoint in services
        .iter_mut()
        .flat_map(|service| service.slices.iter_mut().flatten())
    {
        let address = ENDPOINTS[endpoint.place].0.parse();
        endpoint.node_known |= address == Ok(Place::Pod12.address(Family::IPv4));
    }
}

fn run(backend: Backend, seed: u64) -> Result<()> {
    require_root()?;
    let clusters = match std::env::var("SWITCHYARD_GENERATED") {
        Ok(number) => number.parse()?,
        Err(_) => CLUSTERS,
    };
    let bed = Testbed::build()?;
    for family in [Family::IPv4, Family::IPv6] {
        for (address, _) in ENDPOINTS {
            let address = family.twin(address.parse()?);
            bed.serve_endpoint(Protocol::Tcp, SocketAddr::new(address, TCP_TARGET))?;
            bed.serve_endpoint(Protocol::Udp, SocketAddr::new(address, UDP_TARGET))?;
        }
        for port in MARKER_PORTS {
            let marker = SocketAddr::new(family.twin("10.244.2.22".parse()?), port);
            bed.serve_endpoint(Protocol::Tcp, marker)?;
        }
    }
    let manifests = Manifests::create(bed.work_dir(), "generated")?;
    manifests.replace(&node_objects())?;
    let proxy = Proxy::start(&bed, backend.options(&bed, manifests.dir())?)?;
    // None that took its place.
    let mode = bed.http_get(Place::Node1, METRICS.parse()?, "/proxyMode")?;
    ensure!(mode.body.trim() == backend.mode, "it runs in {}", mode.body);
    let config = Config {
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let mut random = TestRunner::new(config);
    let strategy = vec(service(), 1..6);
    let round = Round {
        bed: &bed,
        backend,
        proxy: &proxy,
        manifests: &manifests,
    };
    for number in 0..clusters {
        let tree = strategy
            .new_tree(&mut random)
            .map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let mut services = tree.current();
        if backend.is_ipvs() {
            name_nodes_of_clients(&mut services);
        }
        round.check(number, &services)?;
    }
    println!("{clusters} generated clusters, as the oracle says");
    Ok(())
}

#[test]
fn generated_clusters_on_iptables_nft() -> Result<()> {
    run(Backend::IPTABLES_NFT, 1)
}

#[test]
fn generated_clusters_on_iptables_legacy() -> Result<()> {
    run(Backend::IPTABLES_LEGACY, 2)
}

#[test]
fn generated_clusters_on_ebpf() -> Result<()> {
    run(Backend::EBPF, 3)
}

/// Needs a kernel with IPVS; run in a guest by `cargo xtask test`.
#[test]
#[ignore = "needs a kernel with IPVS"]
fn generated_clusters_on_ipvs() -> Result<()> {
    run(Backend::IPVS, 4)
}

#[test]
fn generated_clusters_on_nftables() -> Result<()> {
    run(Backend::NFTABLES, 4)
}
