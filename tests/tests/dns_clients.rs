//! Other people's clients against the built server, in the testbed's namespaces: the server in one
//! pod on port 53, the clients in another with a resolv.conf as the kubelet writes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use switchyard_tests::dns::{Client, DnsServer, Query, Script, Setup, Upstream, namespace_object};
use switchyard_tests::testbed::{Place, Testbed, require_tools};

const SERVER: &str = "10.244.2.21";
const SERVER_V6: &str = "fd00:244:2::21";
const PLACE: Place = Place::Pod21;
const CLIENT: Place = Place::Pod11;
const MANY: usize = 120;
/// No lookup may wait for a timeout: the shortest a resolver has is 5 s.
const QUICK: Duration = Duration::from_secs(3);

fn service(namespace: &str, name: &str, ips: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips,
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    })
}

fn slice(namespace: &str, name: &str, addresses: &[String]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address]}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
    })
}

fn objects() -> Vec<Value> {
    let many: Vec<String> = (0..MANY).map(|number| format!("10.1.0.{number}")).collect();
    let own = [SERVER.to_owned()];
    let mut objects = vec![
        service("default", "svc1", &["10.96.0.7"]),
        service("default", "dual", &["10.96.0.8", "fd00:96::8"]),
        service("other", "svc2", &["10.96.0.9"]),
        service("default", "many", &["None"]),
        slice("default", "many", &many),
        service("kube-system", "dns-service", &["10.96.0.10"]),
        slice("kube-system", "dns-service", &own),
        service("kube-system", "hdls-dns-service", &["None"]),
        slice("kube-system", "hdls-dns-service", &own),
        service("kube-system", "dns6-service", &["fd00:96::10"]),
        slice("kube-system", "dns6-service", &own),
    ];
    for namespace in ["default", "other", "kube-system"] {
        objects.push(namespace_object(namespace, &BTreeMap::new()));
    }
    objects
}

/// The server in its pod, and an upstream beside it.
struct Stand {
    bed: Testbed,
    _upstream: Upstream,
    _server: DnsServer,
}

impl Stand {
    fn start() -> Result<Self> {
        let bed = Testbed::build()?;
        let answer = |record: &str| Script {
            answer: vec![record.to_owned()],
            ..Script::default()
        };
        let scripts = BTreeMap::from([
            (
                "www.example.org. A".to_owned(),
                answer("www.example.org. 60 A 192.0.2.80"),
            ),
            (
                "www.example.org. AAAA".to_owned(),
                answer("www.example.org. 60 AAAA 2001:db8::80"),
            ),
        ]);
        let upstream = bed.in_place(PLACE, move || Upstream::start(&scripts))??;
        let corefile = format!(
            ".:53 {{
    errors
    health :$HEALTH
    ready :$READY
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    forward . {}
    cache 30 {{
        disable success cluster.local
        disable denial cluster.local
    }}
    loadbalance
}}
",
            upstream.address()
        );
        let mut setup = Setup::new(&corefile).with_objects(&objects());
        setup.address = SERVER.parse()?;
        let server = DnsServer::start_in(&bed, PLACE, setup)?;
        Ok(Self {
            bed,
            _upstream: upstream,
            _server: server,
        })
    }

    fn client(&self, command: &[&str]) -> Result<String> {
        let began = Instant::now();
        let finished = self.bed.run(CLIENT, command, "")?;
        let shown = command.join(" ");
        ensure!(
            began.elapsed() < QUICK,
            "{shown} took {:?}",
            began.elapsed()
        );
        finished.success(&shown)
    }

    /// Runs a program that finds this resolv.conf.
    fn resolving(&self, resolv_conf: &str, command: &[&str]) -> Result<String> {
        let dir = self.bed.work_dir();
        let (resolv, nsswitch) = (dir.join("resolv.conf"), dir.join("nsswitch.conf"));
        fs::write(&resolv, resolv_conf)?;
        fs::write(&nsswitch, "hosts: files dns\n")?;
        let script = format!(
            "mount --bind {} /etc/resolv.conf && mount --bind {} /etc/nsswitch.conf && exec \"$@\"",
            resolv.display(),
            nsswitch.display()
        );
        let mut whole = vec!["unshare", "-m", "sh", "-c", &script, "sh"];
        whole.extend(command);
        self.client(&whole)
    }
}

fn resolv_conf(options: &str) -> String {
    format!(
        "nameserver {SERVER}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 {options}\n"
    )
}

/// Collects what is wrong instead of ending at the first.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn check(&mut self, what: &str, output: Result<String>, needed: &[&str]) {
        match output {
            Err(error) => self.0.push(format!("{what}: {error:#}")),
            Ok(output) => {
                // Columns are nobody's business.
                let flat = output.split_whitespace().collect::<Vec<_>>().join(" ");
                for word in needed.iter().filter(|word| !flat.contains(*word)) {
                    self.0.push(format!("{what}: no `{word}` in:\n{output}"));
                }
                for bad in [
                    "malformed",
                    "bad packet",
                    "timed out",
                    "extra bytes",
                    "mismatch",
                    "unexpected source",
                ] {
                    if output.contains(bad) {
                        self.0.push(format!("{what}: `{bad}` in:\n{output}"));
                    }
                }
            }
        }
    }

    fn end(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{}", self.0.join("\n\n"));
        Ok(())
    }
}

#[test]
fn dig_nslookup_host_and_drill_understand_it() -> Result<()> {
    require_tools(&["dig", "nslookup", "host", "drill", "unshare"])?;
    let stand = Stand::start()?;
    let mut findings = Findings::default();
    let at = format!("@{SERVER}");
    let at_v6 = format!("@{SERVER_V6}");
    let svc1 = "svc1.default.svc.cluster.local";
    let srv = "_http._tcp.svc1.default.svc.cluster.local";
    let many = "many.default.svc.cluster.local";
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["dig", &at, svc1],
            &[
                "status: NOERROR",
                "qr aa rd",
                "svc1.default.svc.cluster.local. 30 IN A 10.96.0.7",
                "EDNS: version: 0",
            ],
        ),
        (&["dig", &at_v6, svc1], &["status: NOERROR", "10.96.0.7"]),
        (
            &["dig", &at, "+tcp", svc1],
            &["status: NOERROR", "10.96.0.7"],
        ),
        (
            &["dig", &at, "+noedns", svc1],
            &["status: NOERROR", "10.96.0.7"],
        ),
        (
            &["dig", &at, "+dnssec", svc1],
            &["status: NOERROR", "flags: do", "10.96.0.7"],
        ),
        (
            &["dig", &at, "+short", "SRV", srv],
            &["0 100 80 svc1.default.svc.cluster.local."],
        ),
        (
            &["dig", &at, "+short", "-x", "10.96.0.7"],
            &["svc1.default.svc.cluster.local."],
        ),
        (
            &["dig", &at, "+short", "-x", "fd00:96::8"],
            &["dual.default.svc.cluster.local."],
        ),
        (
            &["dig", &at, "nope.default.svc.cluster.local"],
            &["status: NXDOMAIN", "IN SOA ns.dns.cluster.local."],
        ),
        (
            &["dig", &at, "AAAA", svc1],
            &[
                "status: NOERROR",
                "ANSWER: 0",
                "IN SOA ns.dns.cluster.local.",
            ],
        ),
        (&["dig", &at, many], &["ANSWER: 120", "retrying in TCP"]),
        (
            &["dig", &at, "+edns=1", "+noednsnegotiation", svc1],
            &["status: BADVERS"],
        ),
        (&["dig", &at, "+short", "www.example.org"], &["192.0.2.80"]),
        (
            &["dig", &at, "+short", "TXT", "dns-version.cluster.local"],
            &["\"1.1.0\""],
        ),
        (&["nslookup", svc1, SERVER], &["Address: 10.96.0.7"]),
        (
            &["nslookup", "10.96.0.7", SERVER],
            &["name = svc1.default.svc.cluster.local."],
        ),
        (
            &["nslookup", "-type=srv", srv, SERVER],
            &["service = 0 100 80 svc1.default.svc.cluster.local."],
        ),
        (
            &["host", "dual.default.svc.cluster.local", SERVER],
            &["has address 10.96.0.8", "has IPv6 address fd00:96::8"],
        ),
        (
            &["host", "10.96.0.7", SERVER],
            &["domain name pointer svc1.default.svc.cluster.local."],
        ),
        (
            &["host", "-t", "srv", srv, SERVER],
            &["has SRV record 0 100 80 svc1.default.svc.cluster.local."],
        ),
        (&["drill", &at, svc1], &["rcode: NOERROR", "10.96.0.7"]),
        (&["drill", "-t", &at, many], &["ANSWER: 120"]),
        (
            &["drill", &at, "SRV", srv],
            &["0 100 80 svc1.default.svc.cluster.local."],
        ),
    ];
    for (command, needed) in cases {
        let output = stand.client(command);
        findings.check(&command.join(" "), output, needed);
    }
    let searching = stand.resolving(&resolv_conf(""), &["nslookup", "svc1"]);
    findings.check(
        "nslookup through the search path",
        searching,
        &["Name: svc1.default.svc.cluster.local", "Address: 10.96.0.7"],
    );
    let searching = stand.resolving(&resolv_conf(""), &["nslookup", "www.example.org"]);
    findings.check(
        "nslookup of a name outside",
        searching,
        &["Address: 192.0.2.80", "Address: 2001:db8::80"],
    );
    findings.end()
}

#[test]
fn libc_resolvers_understand_it() -> Result<()> {
    require_tools(&["getent", "musl-gcc", "unshare"])?;
    let stand = Stand::start()?;
    let mut findings = Findings::default();
    let musl = build_musl_lookup(stand.bed.work_dir())?;
    for options in [
        "",
        "edns0 trust-ad",
        "single-request",
        "single-request-reopen",
        "use-vc",
    ] {
        let conf = resolv_conf(options);
        let mut lookup = |command: &[&str], needed: &[&str]| {
            let what = format!("{} with options {options}", command.join(" "));
            findings.check(&what, stand.resolving(&conf, command), needed);
        };
        lookup(&["getent", "ahosts", "svc1"], &["10.96.0.7"]);
        lookup(&["getent", "ahosts", "dual"], &["10.96.0.8", "fd00:96::8"]);
        lookup(&["getent", "ahosts", "svc2.other"], &["10.96.0.9"]);
        lookup(&["getent", "ahosts", "svc2.other.svc"], &["10.96.0.9"]);
        lookup(
            &["getent", "ahosts", "svc1.default.svc.cluster.local"],
            &["10.96.0.7"],
        );
        lookup(
            &["getent", "ahosts", "www.example.org"],
            &["192.0.2.80", "2001:db8::80"],
        );
        lookup(&["getent", "ahosts", "10-1-2-3.default.pod"], &["10.1.2.3"]);
        lookup(
            &["getent", "hosts", "10.96.0.7"],
            &["svc1.default.svc.cluster.local"],
        );
        lookup(
            &["getent", "hosts", "fd00:96::8"],
            &["dual.default.svc.cluster.local"],
        );
        if options.is_empty() {
            for (name, needed) in [
                ("svc1", &["10.96.0.7"][..]),
                ("dual", &["10.96.0.8", "fd00:96::8"]),
                ("svc2.other", &["10.96.0.9"]),
                ("www.example.org", &["192.0.2.80", "2001:db8::80"]),
                ("many", &["10.1.0."]),
            ] {
                lookup(&[&musl, name], needed);
            }
        }
    }
    // An answer that needs TCP comes whole.
    let many = stand.resolving(&resolv_conf(""), &["getent", "ahostsv4", "many"])?;
    let addresses = many.lines().filter(|line| line.contains("STREAM")).count();
    ensure!(
        addresses == MANY,
        "glibc got {addresses} of {MANY} addresses"
    );
    // A and AAAA leave by one socket at the same time; neither reply may be lost.
    let hundred = stand.resolving(
        &resolv_conf(""),
        &[
            "sh",
            "-c",
            "for n in $(seq 100); do getent ahosts dual || exit 1; done",
        ],
    );
    findings.check("100 lookups of both families", hundred, &["10.96.0.8"]);
    findings.end()
}

fn build_musl_lookup(dir: &Path) -> Result<String> {
    let (source, program) = (dir.join("lookup.c"), dir.join("lookup"));
    fs::write(
        &source,
        r#"#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all, *one;
    int error = getaddrinfo(argv[argc - 1], "80", &hints, &all);
    if (error) return fprintf(stderr, "%s\n", gai_strerror(error)), 1;
    for (one = all; one; one = one->ai_next) {
        char text[NI_MAXHOST];
        if (!getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST)) puts(text);
    }
    return 0;
}
"#,
    )?;
    let output = std::process::Command::new("musl-gcc")
        .args(["-static", "-o"])
        .args([&program, &source])
        .output()?;
    ensure!(
        output.status.success(),
        "musl-gcc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program.display().to_string())
}

/// A reply comes from the address that was asked, on a machine with several; and a server that is
/// the endpoint of Services is named after them.
#[test]
fn a_server_with_several_addresses_answers_from_the_one_asked() -> Result<()> {
    let stand = Stand::start()?;
    for address in [
        "10.244.2.21",
        "10.244.2.51",
        "10.244.2.52",
        "fd00:244:2::21",
        "fd00:244:2::53",
    ] {
        let server = std::net::SocketAddr::new(address.parse()?, 53);
        // A connected socket takes replies from that address only.
        let reply = stand
            .bed
            .in_place(CLIENT, move || {
                Client::new(server).ask("svc1.default.svc.cluster.local.", "A")
            })?
            .with_context(|| format!("asking {address}"))?;
        ensure!(reply.data("A") == ["10.96.0.7"], "{reply}");
    }
    let server = std::net::SocketAddr::new(SERVER.parse()?, 53);
    let query = Query::new("cluster.local.", "NS")?;
    let reply = stand
        .bed
        .in_place(CLIENT, move || Client::new(server).query_tcp(&query))??;
    let mut glue: Vec<String> = reply
        .additional
        .iter()
        .map(|record| format!("{} {} {}", record.owner, record.rtype, record.data))
        .collect();
    glue.sort();
    let expected = [
        "10-244-2-21.hdls-dns-service.kube-system.svc.cluster.local. A 10.244.2.21",
        "dns-service.kube-system.svc.cluster.local. A 10.96.0.10",
        "dns6-service.kube-system.svc.cluster.local. AAAA fd00:96::10",
    ];
    ensure!(glue == expected, "{reply}");
    let mut owners: Vec<String> = glue
        .iter()
        .filter_map(|record| Some(record.split_once(' ')?.0.to_owned()))
        .collect();
    owners.sort();
    ensure!(reply.data("NS") == owners, "{reply}");
    Ok(())
}
