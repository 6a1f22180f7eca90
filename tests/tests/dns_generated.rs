//! Generated clusters: every name that exists, near-misses and noise, asked of the built server
//! while the cluster changes under it; and the oracle, which lists all records there are, must agree.
//!
//! `SWITCHYARD_SEED=<number>` repeats the run whose seed a failure names.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but not in what tests share"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use switchyard_tests::dns::oracle::{Oracle, OracleConfig, dashed, reverse_name};
use switchyard_tests::dns::{DnsServer, Query, Setup, TcpStreamClient, namespace_object, report};

const ROUNDS: u32 = 8;
/// A change must be visible by then; the machine may be busy.
const VISIBLE: Duration = Duration::from_secs(10);
const ZONE: &str = "cluster.local.";
const NAMES: [&str; 7] = ["a", "b", "web", "web-0", "db", "10-1-0-1", "svc"];
const NAMESPACES: [&str; 4] = ["one", "two", "svc", "pod"];
const PORTS: [(&str, &str, u16); 5] = [
    ("http", "TCP", 80),
    ("dns", "UDP", 53),
    ("dns-tcp", "TCP", 53),
    ("", "TCP", 9000),
    ("http", "UDP", 80),
];
const TYPES: [&str; 7] = ["A", "AAAA", "SRV", "CNAME", "TXT", "PTR", "SOA"];
const NEGATIVE_SAMPLE: usize = 150;

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A cluster under change: objects by kind, namespace and name.
#[derive(Default)]
struct World {
    objects: BTreeMap<(String, String, String), Value>,
    addresses: u32,
}

impl World {
    fn put(&mut self, object: Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        let key = (
            text(&object["kind"]),
            text(&meta["namespace"]),
            text(&meta["name"]),
        );
        self.objects.insert(key, object);
    }

    fn has_namespace(&self, name: &str) -> bool {
        let key = ("Namespace".to_owned(), String::new(), name.to_owned());
        self.objects.contains_key(&key)
    }

    fn list(&self) -> Vec<Value> {
        self.objects.values().cloned().collect()
    }

    /// No two endpoints or ClusterIPs share an address, unless they are to.
    fn address(&mut self, v6: bool) -> IpAddr {
        self.addresses += 1;
        let [_, _, high, low] = self.addresses.to_be_bytes();
        if v6 {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 1, u16::from(high), u16::from(low)).into()
        } else {
            Ipv4Addr::new(10, 1, high, low).into()
        }
    }

    fn change(&mut self, random: &mut Random) {
        for namespace in NAMESPACES {
            if random.one_in(12) {
                // With all that is in it, as in life.
                self.objects.retain(|(kind, of, name), _| {
                    of != namespace && (kind != "Namespace" || name != namespace)
                });
            } else {
                self.put(namespace_object(namespace, &BTreeMap::new()));
            }
        }
        for _ in 0..6 {
            self.change_service(random);
        }
        for _ in 0..3 {
            let namespace = *random.pick(&NAMESPACES);
            if !self.has_namespace(namespace) {
                continue;
            }
            let name = format!("pod-{}", random.below(5));
            let phase = *random.pick(&["Running", "Running", "Pending", "Succeeded", "Failed"]);
            let ip = Ipv4Addr::new(10, 9, 0, u8::try_from(random.below(6)).unwrap());
            self.put(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": {}},
                "spec": {"containers": []},
                "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]},
            }));
        }
    }

    fn change_service(&mut self, random: &mut Random) {
        let (name, namespace) = (*random.pick(&NAMES), *random.pick(&NAMESPACES));
        // A namespace that objects of a manifest live in is there, even if no file says so.
        if !self.has_namespace(namespace) {
            return;
        }
        let key = |kind: &str, name: &str| (kind.to_owned(), namespace.to_owned(), name.to_owned());
        for family in ["IPv4", "IPv6"] {
            self.objects
                .remove(&key("EndpointSlice", &format!("{name}-{family}")));
        }
        if random.one_in(5) {
            self.objects.remove(&key("Service", name));
            return;
        }
        let mut ports: Vec<Value> = Vec::new();
        for (name, protocol, number) in PORTS {
            if random.one_in(2) {
                ports.push(json!({"name": name, "protocol": protocol, "port": number}));
            }
        }
        let choices: [&[&str]; 4] = [&["IPv4"], &["IPv4"], &["IPv6"], &["IPv4", "IPv6"]];
        let families = *random.pick(&choices);
        let spec = match random.below(5) {
            0 => {
                let (target, other) = (*random.pick(&NAMES), *random.pick(&NAMESPACES));
                if (target, other) == (name, namespace) {
                    return;
                }
                json!({"type": "ExternalName", "externalName": format!("{target}.{other}.svc.cluster.local")})
            }
            1 | 2 => {
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "ports": ports})
            }
            _ => {
                let ips: Vec<IpAddr> = families
                    .iter()
                    .map(|family| self.address(*family == "IPv6"))
                    .collect();
                // A ClusterIP without ports does not exist.
                ports.push(json!({"name": "last", "protocol": "TCP", "port": 7777}));
                json!({"type": "ClusterIP", "clusterIP": ips.first(), "clusterIPs": ips, "ports": ports})
            }
        };
        self.put(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": {}},
            "spec": spec,
        }));
        for family in families {
            self.add_slice(random, name, namespace, family, &ports);
        }
    }

    fn add_slice(
        &mut self,
        random: &mut Random,
        name: &str,
        namespace: &str,
        family: &str,
        ports: &[Value],
    ) {
        let count = random.below(5);
        let mut endpoints = Vec::new();
        for number in 0..count {
            let address = if random.one_in(6) {
                // One that other Services' endpoints may have too.
                if family == "IPv6" {
                    "fd00::77".parse().unwrap()
                } else {
                    "10.77.0.7".parse().unwrap()
                }
            } else {
                self.address(family == "IPv6")
            };
            let mut endpoint = json!({"addresses": [address], "conditions": {}});
            if !random.one_in(3) {
                endpoint["conditions"]["ready"] = json!(!random.one_in(4));
            }
            if random.one_in(3) {
                endpoint["hostname"] = json!(format!("{name}-{number}"));
            }
            if random.one_in(2) {
                let pod = format!("{name}-pod-{number}");
                endpoint["targetRef"] = json!({"kind": "Pod", "name": pod, "namespace": namespace});
            }
            if !endpoints
                .iter()
                .any(|other: &Value| other["addresses"] == endpoint["addresses"])
            {
                endpoints.push(endpoint);
            }
        }
        self.put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{family}"), "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": ports,
        }));
    }

    /// A Service whose address says which round this is.
    fn mark(&mut self, round: u32) -> (String, String) {
        let [_, _, high, low] = round.to_be_bytes();
        let ip = Ipv4Addr::new(10, 250, high, low).to_string();
        self.put(namespace_object("marks", &BTreeMap::new()));
        self.put(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "mark", "namespace": "marks", "labels": {}},
            "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "", "protocol": "TCP", "port": 1}]},
        }));
        // Seen as ready even where empty Services are ignored.
        self.put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "mark", "namespace": "marks", "labels": {"kubernetes.io/service-name": "mark"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.251.0.1"]}],
            "ports": [{"name": "", "protocol": "TCP", "port": 1}],
        }));
        (format!("mark.marks.svc.{ZONE}"), ip)
    }
}

/// All questions to one cluster: what exists, and what nearly does.
fn questions(oracle: &Oracle, random: &mut Random) -> Vec<(String, &'static str)> {
    let mut names: Vec<String> = oracle.names();
    let mut near = Vec::new();
    for name in &names {
        let labels: Vec<&str> = name.split('.').collect();
        near.push(format!("x.{name}"));
        near.push(format!("x{name}"));
        near.push(labels[1..].join("."));
        near.push(name.replacen("_tcp", "_udp", 1));
        near.push(name.replacen(".svc", ".pod", 1));
        near.push(format!("{name}.svc"));
        near.push(format!("{name}.cluster.local.one.svc"));
        near.push(format!("www.example.org.{}", labels[1..].join(".")));
    }
    for namespace in oracle
        .namespaces()
        .iter()
        .map(String::as_str)
        .chain(NAMESPACES)
    {
        near.push(format!("{namespace}.svc"));
        near.push(format!("{namespace}.pod"));
        for last in 0..7 {
            near.push(format!("10-9-0-{last}.{namespace}.pod"));
        }
        near.push(format!("fd00--{}.{namespace}.pod", random.below(9)));
        near.push(format!("*.{namespace}.svc"));
    }
    for at in 0..near.len() {
        let other = random.below(at + 1);
        near.swap(at, other);
    }
    // What extra labels in front of a pod's name mean is left to the case files too.
    near.retain(|name| !name.ends_with(".pod") || name.split('.').count() <= 3);
    near.truncate(NEGATIVE_SAMPLE);
    names.append(&mut near);
    names.extend(["", "svc", "pod", "dns", "ns.dns", "dns-version", "xyz"].map(str::to_owned));
    let mut all = Vec::new();
    for name in names {
        // What follows the reference's own taste is left to the case files: other types than SRV
        // of a port's name.
        let only_srv = name.starts_with('_');
        let dot = if name.is_empty() { "" } else { "." };
        let name = mixed_case(&format!("{name}{dot}{ZONE}"), random);
        for rtype in if only_srv { &["SRV"][..] } else { &TYPES[..] } {
            all.push((name.clone(), *rtype));
        }
    }
    for ip in oracle.reverse_addresses() {
        all.push((mixed_case(&reverse_name(ip), random), "PTR"));
        all.push((reverse_name(ip), "TXT"));
    }
    all.push((reverse_name(Ipv4Addr::new(10, 200, 0, 1).into()), "PTR"));
    all
}

fn mixed_case(name: &str, random: &mut Random) -> String {
    if !random.one_in(4) {
        return name.to_owned();
    }
    let case = |letter: char| {
        if random.one_in(2) {
            letter.to_ascii_uppercase()
        } else {
            letter
        }
    };
    name.chars().map(case).collect()
}

fn seed() -> Result<u64> {
    match std::env::var("SWITCHYARD_SEED") {
        Ok(text) => text.parse().context("SWITCHYARD_SEED"),
        Err(_) => Ok(0x5eed),
    }
}

fn config(pods: &'static str) -> OracleConfig {
    OracleConfig {
        zone: ZONE.to_owned(),
        ttl: 5,
        pods,
        endpoint_pod_names: false,
        ignore_empty_service: false,
        own: vec![Ipv4Addr::LOCALHOST.into()],
    }
}

fn corefile(config: &OracleConfig) -> String {
    let mut options = format!("pods {}\n        ttl {}\n", config.pods, config.ttl);
    for (name, on) in [
        ("endpoint_pod_names", config.endpoint_pod_names),
        ("ignore empty_service", config.ignore_empty_service),
    ] {
        if on {
            let _ = writeln!(options, "        {name}");
        }
    }
    format!(
        ".:$DNS {{\n    bind 127.0.0.1\n    ready 127.0.0.1:$READY\n    kubernetes cluster.local in-addr.arpa ip6.arpa {{\n        {options}    }}\n    loadbalance\n}}\n"
    )
}

fn run(config: &OracleConfig, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let mut world = World::default();
    world.change(&mut random);
    world.mark(0);
    let setup = Setup::new(&corefile(config)).with_objects(&world.list());
    let server = DnsServer::start(setup)?;
    let mut asked = 0;
    for round in 1..=ROUNDS {
        world.change(&mut random);
        let (mark, ip) = world.mark(round);
        let objects = world.list();
        server.manifests().replace(&objects)?;
        wait_for_mark(&server, &mark, &ip)?;
        let oracle = Oracle::new(config.clone(), &objects);
        let questions = questions(&oracle, &mut random);
        asked += questions.len();
        let wrong = ask_all(&server, &oracle, &questions)?;
        if !wrong.is_empty() {
            bail!(
                "seed {seed}, round {round}, {config:?}: {} of {} answers are wrong:\n{}",
                wrong.len(),
                questions.len(),
                wrong.into_iter().take(20).collect::<Vec<_>>().join("\n")
            );
        }
    }
    println!("{asked} questions");
    Ok(())
}

fn wait_for_mark(server: &DnsServer, mark: &str, ip: &str) -> Result<()> {
    let deadline = Instant::now() + VISIBLE;
    while server.client().ask(mark, "A")?.data("A") != [ip] {
        if Instant::now() > deadline {
            bail!("a change was not visible after {VISIBLE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Asks over one TCP connection; a wrong answer is asked again for a while, for a change may come
/// in parts.
fn ask_all(
    server: &DnsServer,
    oracle: &Oracle,
    questions: &[(String, &'static str)],
) -> Result<Vec<String>> {
    let mut stream = server.client().tcp()?;
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut wrong = Vec::new();
    for (name, rtype) in questions {
        loop {
            let Err(text) = ask_one(&mut stream, oracle, name, rtype)? else {
                break;
            };
            if Instant::now() > deadline {
                wrong.push(text);
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(wrong)
}

fn ask_one(
    stream: &mut TcpStreamClient,
    oracle: &Oracle,
    name: &str,
    rtype: &str,
) -> Result<Result<(), String>> {
    let query = Query::new(name, rtype)?;
    let reply = stream
        .ask(&query)
        .with_context(|| format!("{name} {rtype}"))?;
    let differences = oracle.answer(name, rtype).differences(&reply);
    if differences.is_empty() {
        return Ok(Ok(()));
    }
    Ok(Err(report(
        &format!("{name} {rtype}"),
        &differences,
        &reply,
    )))
}

#[test]
fn a_generated_cluster_with_pods_insecure() -> Result<()> {
    run(&config("insecure"), seed()?)
}

#[test]
fn a_generated_cluster_with_pods_verified_and_pod_names() -> Result<()> {
    let config = OracleConfig {
        endpoint_pod_names: true,
        ..config("verified")
    };
    run(&config, seed()? + 1)
}

#[test]
fn a_generated_cluster_without_pods_and_empty_services() -> Result<()> {
    let config = OracleConfig {
        ignore_empty_service: true,
        ttl: 30,
        ..config("disabled")
    };
    run(&config, seed()? + 2)
}

/// The oracle itself, against answers written down by hand.
#[test]
fn the_oracle_knows_a_few_answers() {
    let mut world = World::default();
    let (mark, ip) = world.mark(7);
    let oracle = Oracle::new(config("insecure"), &world.list());
    assert_eq!(
        oracle.answer(&mark, "A").answer,
        [format!("{mark} 5 A {ip}")]
    );
    assert_eq!(oracle.answer(&mark, "AAAA").rcode, "NOERROR");
    assert_eq!(
        oracle.answer("nope.marks.svc.cluster.local.", "A").rcode,
        "NXDOMAIN"
    );
    let ptr = oracle.answer("7.0.250.10.in-addr.arpa.", "PTR").answer;
    assert_eq!(ptr, [format!("7.0.250.10.in-addr.arpa. 5 PTR {mark}")]);
    let endpoint = oracle.answer("10-251-0-1.MARK.marks.svc.Cluster.local.", "SRV");
    assert_eq!(
        endpoint.answer,
        [
            "10-251-0-1.MARK.marks.svc.Cluster.local. 5 SRV 0 100 1 10-251-0-1.mark.marks.svc.Cluster.local."
        ]
    );
    assert_eq!(dashed("2001:db8::".parse().unwrap()), "2001-db8--0");
}
