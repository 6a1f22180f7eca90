use std::sync::{Arc, Mutex};
use std::time::Duration;

use switchyard_cluster::source::DnsNeeds;

use super::config::{Config, PodMode};
use super::index::{Index, IndexOptions};
use super::objects::Cluster;
use super::{Kubernetes, setup};
use crate::corefile;
use crate::feed::{FeedSource, FeedSpec};
use crate::plugin::testing::{Answers, TestBlock, block};
use crate::plugin::{BlockSettings, Environment, Plugin, Setup};
use crate::server::StreamTimeouts;
use crate::wire::{Name, Question, Rcode, Record, Rtype, Section};

/// What the tests of the reference have in their cluster, and some more.
fn cluster() -> Cluster {
    let mut it = Cluster::new(&["testns", "podns", "kube-system"]);
    it.service("testns/svc1", "10.0.0.1", "http/tcp/80");
    it.service("testns/svc6", "1234:abcd::1", "http/tcp/80");
    it.service("testns/dual", "10.0.0.3 10::3", "http/tcp/80");
    it.service(
        "testns/ports",
        "10.0.0.4",
        "dns/udp/53 dns-tcp/tcp/53 m/tcp/9153",
    );
    it.service("testns/empty", "10.0.0.5", "http/tcp/80");
    it.service("gone/svc1", "10.0.0.9", "http/tcp/80");
    it.service("testns/hdls", "None", "http/tcp/80");
    it.service("testns/noports", "None", "");
    it.slice("testns/svc1-a", "svc1", "http/tcp/80", "172.0.0.1=ep1a");
    it.slice(
        "testns/hdls-a",
        "hdls",
        "http/tcp/80",
        "172.0.0.2@a 172.0.0.3@B.b 172.0.0.4=dup 172.0.0.5=dup !172.0.0.6",
    );
    it.slice(
        "testns/hdls-b",
        "hdls",
        "http/tcp/80",
        "5678:abcd::1 5678:abcd::2",
    );
    it.slice("testns/noports-a", "noports", "", "172.0.0.20");
    it.external("testns/ext", "ext.interwebs.test");
    it.external("testns/inside", "svc1.testns.svc.Cluster.local.");
    it.external("testns/twice", "inside.testns.svc.cluster.local");
    it.external("testns/nothing", "nope.testns.svc.cluster.local");
    it.external("testns/loop", "loop2.testns.svc.cluster.local");
    it.external("testns/loop2", "loop.testns.svc.cluster.local");
    it.external("testns/ip", "1.2.3.4");
    it.slice("testns/orphan-a", "orphan", "h/tcp/80", "172.0.0.30");
    it.pod("podns/foo", "10.240.0.1");
    it
}

fn config() -> Config {
    let name = |text| Name::from_text(text).expect(text);
    Config {
        zones: ["in-addr.arpa.", "ip6.arpa.", "cluster.local."]
            .map(name)
            .to_vec(),
        primary: name("cluster.local."),
        fallthrough: Vec::new(),
        pods: PodMode::Disabled,
        options: IndexOptions {
            ttl: 5,
            pods: true,
            zonal: true,
            ..IndexOptions::default()
        },
        feed: FeedSpec {
            source: FeedSource::Manifests("/nowhere".into()),
            needs: DnsNeeds::default(),
        },
        startup_timeout: Duration::ZERO,
        bind: Vec::new(),
    }
}

/// A block of the plugin and, behind it, a server that knows two names outside.
fn server(config: Config, synced: bool) -> TestBlock {
    let index = Arc::new(Index::new(config.options.clone()));
    index.restart(&cluster().store);
    if synced {
        index.set_synced();
    }
    let own = vec!["192.0.2.1".parse().expect("an address")];
    let plugin: Arc<dyn Plugin> = Arc::new(Kubernetes::new(config, index, own));
    let answer = |question: &Question| match question.lower().to_string().as_str() {
        "ext.interwebs.test." if question.rtype == Rtype::A => {
            let owner = question.name().clone();
            let record = Record::new(owner, Rtype::A, 5, vec![1, 2, 3, 4]);
            (Rcode::NOERROR, vec![(Section::Answer, record)])
        }
        "ext.interwebs.test." => (Rcode::SERVFAIL, vec![]),
        _ => (Rcode::REFUSED, vec![]),
    };
    let outside = Answers {
        answer,
        asked: Arc::new(Mutex::default()),
    };
    block(".", "", vec![plugin, Arc::new(outside)]).expect("a block")
}

/// Code, then sections: `NOERROR a | b ; c` has the answers a and b and the additional c.
fn told(server: &TestBlock, question: &str) -> String {
    let asked = server.ask(question).expect("a reply");
    let sorted = |records: Vec<String>| {
        let mut records = plain(records);
        records.sort();
        records.join(" | ")
    };
    let mut text = format!("{} {}", asked.rcode, sorted(asked.answer));
    for (mark, section) in [(" soa", asked.authority), (" ;", asked.additional)] {
        if !section.is_empty() {
            text += mark;
        }
        if mark == " ;" && !section.is_empty() {
            text += &format!(" {}", sorted(section));
        }
    }
    text.replace(" IN", "").trim().to_owned()
}

/// Owners have a last dot as `domain` writes them, and other names none: without.
fn plain(records: Vec<String>) -> Vec<String> {
    let without = |record: String| record.replace(". ", " ").trim_end_matches('.').to_owned();
    records.into_iter().map(without).collect()
}

fn check(server: &TestBlock, cases: &[(&str, &str)]) {
    for (question, expected) in cases {
        assert_eq!(told(server, question), *expected, "{question}");
    }
}

const ZONE: &str = "testns.svc.cluster.local";

#[test]
fn services_are_answered() {
    let of = |record: &str| format!("NOERROR {record}");
    let cases = [
        ("svc1 A", of("svc1.Z 5 A 10.0.0.1")),
        ("svc1 AAAA", "NOERROR  soa".into()),
        ("svc1 TXT", "NOERROR  soa".into()),
        ("svc6 AAAA", of("svc6.Z 5 AAAA 1234:abcd::1")),
        (
            "svc1 SRV",
            of("svc1.Z 5 SRV 0 100 80 svc1.Z ; svc1.Z 5 A 10.0.0.1"),
        ),
        (
            "_http._tcp.dual SRV",
            of(
                "_http._tcp.dual.Z 5 SRV 0 50 80 dual.Z ; dual.Z 5 A 10.0.0.3 | dual.Z 5 AAAA 10::3",
            ),
        ),
        (
            "ports SRV",
            of(
                "ports.Z 5 SRV 0 33 53 ports.Z | ports.Z 5 SRV 0 33 9153 ports.Z ; ports.Z 5 A 10.0.0.4",
            ),
        ),
        ("_http._tcp.svc1 A", of("_http._tcp.svc1.Z 5 A 10.0.0.1")),
        ("http.tcp.svc1 A", of("http.tcp.svc1.Z 5 A 10.0.0.1")),
        ("_http._udp.svc1 SRV", "NXDOMAIN  soa".into()),
        ("x.http.tcp.svc1 A", "NXDOMAIN  soa".into()),
        ("svc0 A", "NXDOMAIN  soa".into()),
        ("ep1a.svc1 A", of("ep1a.svc1.Z 5 A 172.0.0.1")),
    ];
    let server = server(config(), true);
    for (question, expected) in cases {
        let (name, rtype) = question.split_once(' ').expect("a type");
        let told = told(&server, &format!("{name}.{ZONE} {rtype}"));
        assert_eq!(told, expected.replace('Z', ZONE), "{question}");
    }
}

#[test]
fn headless_services_are_their_endpoints() {
    let server = server(config(), true);
    let h = "hdls.testns.svc.cluster.local";
    let all = [2, 3, 4, 5].map(|last| format!("{h} 5 A 172.0.0.{last}"));
    assert_eq!(
        told(&server, &format!("{h} A")),
        format!("NOERROR {}", all.join(" | "))
    );
    let srv = told(&server, &format!("_http._tcp.{h} SRV"));
    let labels = [
        "172-0-0-2",
        "172-0-0-3",
        "5678-abcd--1",
        "5678-abcd--2",
        "dup",
    ];
    let targets = labels.map(|label| format!("_http._tcp.{h} 5 SRV 0 16 80 {label}.{h}"));
    let glue = [
        format!("172-0-0-2.{h} 5 A 172.0.0.2"),
        format!("172-0-0-3.{h} 5 A 172.0.0.3"),
        format!("5678-abcd--1.{h} 5 AAAA 5678:abcd::1"),
        format!("5678-abcd--2.{h} 5 AAAA 5678:abcd::2"),
        format!("dup.{h} 5 A 172.0.0.4"),
        format!("dup.{h} 5 A 172.0.0.5"),
    ];
    let expected = format!("NOERROR {} ; {}", targets.join(" | "), glue.join(" | "));
    assert_eq!(srv, expected);
    let dup = format!("NOERROR dup.{h} 5 A 172.0.0.4 | dup.{h} 5 A 172.0.0.5");
    assert_eq!(told(&server, &format!("dup.{h} A")), dup);
    for (question, expected) in [
        ("172-0-0-6.hdls", "NXDOMAIN  soa"),
        ("172-0-0-4.hdls", "NXDOMAIN  soa"),
        ("bogus.hdls", "NXDOMAIN  soa"),
        (
            "172-0-0-20.noports",
            "NOERROR 172-0-0-20.noports.testns.svc.cluster.local 5 A 172.0.0.20",
        ),
    ] {
        assert_eq!(
            told(&server, &format!("{question}.{ZONE} A")),
            expected,
            "{question}"
        );
    }
    assert_eq!(
        told(&server, &format!("noports.{ZONE} SRV")),
        "NOERROR  soa"
    );
}

#[test]
fn topology_zones_have_their_endpoints() {
    let server = server(config(), true);
    let one = |name: &str, last| format!("NOERROR {name}.hdls.{ZONE} 5 A 172.0.0.{last}");
    let of = |name: &str| told(&server, &format!("{name}.hdls.{ZONE} A"));
    assert_eq!(of("a.pin._zone"), one("a.pin._zone", 2));
    assert_eq!(of("b.b.prefer._zone"), one("b.b.prefer._zone", 3));
    assert_eq!(of("c.pin._zone"), "NOERROR  soa");
    assert_eq!(of("c.prefer._zone").matches(" A ").count(), 4);
    assert_eq!(
        told(&server, &format!("a.pin._zone.svc1.{ZONE} A")),
        "NXDOMAIN  soa"
    );
}

#[test]
fn what_lies_between_exists_and_is_empty() {
    check(
        &server(config(), true),
        &[
            ("cluster.local A", "NOERROR  soa"),
            ("svc.cluster.local TXT", "NOERROR  soa"),
            ("testns.svc.cluster.local A", "NOERROR  soa"),
            ("gone.svc.cluster.local A", "NXDOMAIN  soa"),
            ("svc1.gone.svc.cluster.local A", "NXDOMAIN  soa"),
            ("testns.pod.cluster.local A", "NXDOMAIN  soa"),
            ("foo.cluster.local A", "NXDOMAIN  soa"),
            ("dns.cluster.local A", "NOERROR  soa"),
            ("dns-version.cluster.local A", "NOERROR  soa"),
            (
                "dns-version.cluster.local TXT",
                "NOERROR dns-version.cluster.local 28800 TXT \"1.1.0\"",
            ),
            (
                "Ns.dNs.cluster.local A",
                "NOERROR Ns.dNs.cluster.local 5 A 192.0.2.1",
            ),
            ("cluster.local AXFR", "REFUSED"),
        ],
    );
}

#[test]
fn case_is_kept_where_the_reference_keeps_it() {
    let server = server(config(), true);
    let asked = server
        .ask("SVC1.testns.svc.cLuStEr.LoCaL SRV")
        .expect("a reply");
    let records = plain([asked.answer, asked.additional].concat()).join(" ; ");
    let expected = "SVC1.testns.svc.cLuStEr.LoCaL 5 IN SRV 0 100 80 \
                    svc1.testns.svc.cLuStEr.LoCaL ; svc1.testns.svc.cLuStEr.LoCaL 5 IN A 10.0.0.1";
    assert_eq!(records, expected);
    let soa = server
        .ask("nope.Cluster.Local A")
        .expect("a reply")
        .authority
        .join("");
    let soa = plain(vec![soa]).concat();
    let soa = soa.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
    assert_eq!(
        soa,
        "Cluster.Local 5 IN SOA ns.dns.Cluster.Local hostmaster.Cluster.Local"
    );
    let apex = server.ask("cLuster.local NS").expect("a reply");
    assert_eq!(
        plain(apex.answer).join(""),
        "cLuster.local 5 IN NS ns.dns.cLuster.local"
    );
    assert_eq!(
        plain(apex.additional).join(""),
        "ns.dns.cLuster.local 5 IN A 192.0.2.1"
    );
}

#[test]
fn aliases_are_followed() {
    let inside = "inside.testns.svc.cluster.local";
    let end = format!(
        "{inside} 5 CNAME svc1.testns.svc.Cluster.local | svc1.testns.svc.Cluster.local 5 A 10.0.0.1"
    );
    let twice = format!("twice.{ZONE} 5 CNAME {inside}");
    let parts: Vec<_> = end.split(" | ").collect();
    let ext = format!("ext.{ZONE} 5 CNAME ext.interwebs.test");
    check(
        &server(config(), true),
        &[
            (&format!("inside.{ZONE} A"), &format!("NOERROR {end}")),
            (&format!("inside.{ZONE} AAAA"), "NOERROR  soa"),
            (
                &format!("twice.{ZONE} A"),
                &format!("NOERROR {} | {} | {twice}", parts[0], parts[1]),
            ),
            (&format!("nothing.{ZONE} A"), "NOERROR  soa"),
            (&format!("loop.{ZONE} A"), "NOERROR  soa"),
            (&format!("ip.{ZONE} A"), "NXDOMAIN  soa"),
            (&format!("ext.{ZONE} CNAME"), &format!("NOERROR {ext}")),
            (
                &format!("ext.{ZONE} A"),
                &format!("NOERROR ext.interwebs.test 5 A 1.2.3.4 | {ext}"),
            ),
            (&format!("ext.{ZONE} AAAA"), &format!("NOERROR {ext}")),
            (&format!("ext.{ZONE} MX"), "NOERROR  soa"),
            (&format!("x.ext.{ZONE} CNAME"), "NXDOMAIN  soa"),
        ],
    );
}

#[test]
fn addresses_have_names() {
    check(
        &server(config(), true),
        &[
            (
                "1.0.0.10.in-addr.arpa PTR",
                "NOERROR 1.0.0.10.in-addr.arpa 5 PTR svc1.testns.svc.cluster.local",
            ),
            (
                "4.0.0.172.in-addr.arpa PTR",
                "NOERROR 4.0.0.172.in-addr.arpa 5 PTR dup.hdls.testns.svc.cluster.local",
            ),
            ("1.0.0.10.in-addr.arpa A", "NOERROR  soa"),
            ("9.0.0.10.in-addr.arpa PTR", "NXDOMAIN  soa"),
            ("30.0.0.172.in-addr.arpa PTR", "NXDOMAIN  soa"),
            ("0.0.10.in-addr.arpa PTR", "NXDOMAIN  soa"),
        ],
    );
}

#[test]
fn pods_are_answered_as_far_as_asked_for() {
    let (known, unknown) = (
        "10-240-0-1.podns.pod.cluster.local",
        "10-240-0-2.podns.pod.cluster.local",
    );
    let of = |name: &str, ip| format!("NOERROR {name} 5 A {ip}");
    for (mode, first, second) in [
        (
            PodMode::Disabled,
            "NXDOMAIN  soa".to_owned(),
            "NXDOMAIN  soa".to_owned(),
        ),
        (
            PodMode::Insecure,
            of(known, "10.240.0.1"),
            of(unknown, "10.240.0.2"),
        ),
        (
            PodMode::Verified,
            of(known, "10.240.0.1"),
            "NXDOMAIN  soa".to_owned(),
        ),
    ] {
        let pods = Config {
            pods: mode,
            ..config()
        };
        let server = server(pods, true);
        assert_eq!(told(&server, &format!("{known} A")), first, "{mode:?}");
        assert_eq!(told(&server, &format!("{unknown} A")), second, "{mode:?}");
        let other = told(&server, "10-240-0-1.gone.pod.cluster.local A");
        assert_eq!(other, "NXDOMAIN  soa", "{mode:?}");
    }
}

#[test]
fn missing_names_are_failures_until_all_is_read() {
    let server = server(config(), false);
    check(
        &server,
        &[
            (&format!("svc0.{ZONE} A"), "SERVFAIL  soa"),
            (
                &format!("svc1.{ZONE} A"),
                &format!("NOERROR svc1.{ZONE} 5 A 10.0.0.1"),
            ),
        ],
    );
    let asked = server
        .ask_with(&format!("svc0.{ZONE} A"), Some(&[]))
        .expect("a reply");
    let (code, content) = asked.options.first().expect("an EDE");
    assert_eq!((*code, content.get(..2)), (15, Some(&[0, 14][..])));
}

#[test]
fn missing_names_fall_through_where_they_should() {
    let through = Config {
        fallthrough: vec![Name::from_text("in-addr.arpa.").expect("a zone")],
        ..config()
    };
    check(
        &server(through, true),
        &[
            ("9.9.9.10.in-addr.arpa PTR", "REFUSED"),
            ("nope.cluster.local A", "NXDOMAIN  soa"),
            ("example.org A", "REFUSED"),
        ],
    );
}

#[test]
fn options_narrow_what_exists() {
    let mut only = config();
    only.options.namespaces = Some(["podns".to_owned()].into());
    let server_only = server(only, true);
    assert_eq!(
        told(&server_only, &format!("svc1.{ZONE} A")),
        "NXDOMAIN  soa"
    );
    assert_eq!(
        told(&server_only, "1.0.0.10.in-addr.arpa PTR"),
        "NXDOMAIN  soa"
    );
    let mut full = config();
    full.options.ignore_empty_service = true;
    let server_full = server(full, true);
    assert_eq!(
        told(&server_full, &format!("empty.{ZONE} A")),
        "NXDOMAIN  soa"
    );
    assert_ne!(
        told(&server_full, &format!("svc1.{ZONE} A")),
        "NXDOMAIN  soa"
    );
    let mut pods = config();
    pods.options.endpoint_pod_names = true;
    let server_pods = server(pods, true);
    let named = told(&server_pods, &format!("pod-x.noports.{ZONE} A"));
    assert_eq!(
        named,
        format!("NOERROR pod-x.noports.{ZONE} 5 A 172.0.0.20")
    );
}

#[test]
fn a_transfer_has_what_answers_have() {
    let server = server(config(), true);
    let plugin = server.chain.plugins().first().expect("the plugin");
    let zone = Name::from_text("cluster.local.").expect("a zone");
    let records = plugin.zone_records(&zone).expect("records");
    assert_eq!(records[0].rtype, Rtype::SOA);
    let has = |name: &str, rtype| {
        let is_it = |record: &&Record| record.owner.to_string() == name && record.rtype == rtype;
        records.iter().filter(is_it).count()
    };
    assert_eq!(has("ports.testns.svc.cluster.local.", Rtype::SRV), 2);
    assert_eq!(has("dup.hdls.testns.svc.cluster.local.", Rtype::A), 2);
    assert_eq!(has("ext.testns.svc.cluster.local.", Rtype::CNAME), 1);
    assert_eq!(has("svc1.gone.svc.cluster.local.", Rtype::A), 0);
    let others = records.iter().filter(|record| record.rtype != Rtype::TXT);
    assert!(others.into_iter().all(|record| record.ttl == 5));
    let reverse = Name::from_text("in-addr.arpa.").expect("a zone");
    let reverse = plugin.zone_records(&reverse).expect("records");
    assert!(reverse.iter().any(|record| record.rtype == Rtype::PTR));
}

#[test]
fn clients_that_are_pods_have_a_search_path() {
    let verified = Config {
        pods: PodMode::Verified,
        ..config()
    };
    let server = server(verified, true);
    let plugin = server.chain.plugins().first().expect("the plugin");
    let name = Name::from_text("x.podns.svc.cluster.local.").expect("a name");
    let of = |client: &str| plugin.search_path(&name, client.parse().expect(client));
    let path = of("10.240.0.1").expect("a pod");
    let path: Vec<_> = path.iter().map(ToString::to_string).collect();
    let expected = [
        "podns.svc.cluster.local.",
        "svc.cluster.local.",
        "cluster.local.",
    ];
    assert_eq!(path, expected);
    assert_eq!(of("10.240.0.2"), None);
}

fn refused(directive: &str) -> String {
    let text = format!(".:53 {{\n{directive}\n}}");
    let parsed = corefile::parse(&text, "Corefile", std::path::Path::new("/nowhere"));
    let parsed = parsed.expect(directive);
    let lines: Vec<_> = parsed.blocks[0].directives.iter().collect();
    let environment = Environment {
        manifests: Some(std::env::temp_dir()),
        ..Environment::default()
    };
    let mut settings = BlockSettings {
        zones: vec![".".to_owned()],
        server: "dns://:53".into(),
        directives: Vec::new(),
        root: "/nowhere".into(),
        bind: Vec::new(),
        tls: None,
        timeouts: StreamTimeouts::default(),
        debug: false,
        metrics: false,
    };
    let made = setup(&mut Setup {
        lines: &lines,
        block: &mut settings,
        environment: &environment,
    });
    made.err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

#[test]
fn wrong_options_are_refused_with_what_to_do() {
    for (option, expected) in [
        (
            "ttl 3601",
            "ttl must be a number from 0 to 3600, not `3601`",
        ),
        (
            "pods maybe",
            "wrong value for pods: expected disabled, insecure or verified, not `maybe`",
        ),
        ("resyncperiod 5m", "`resyncperiod` was removed from CoreDNS"),
        ("upstream", "`upstream` was removed from CoreDNS"),
        (
            "transfer to *",
            "write `transfer { to … }` beside `kubernetes`",
        ),
        ("federation x", "`federation` was removed from CoreDNS"),
        (
            "multicluster clusterset.local",
            "`multicluster` can't be had yet",
        ),
        (
            "nonsense",
            "unknown option `nonsense`; known are: apiserver_burst",
        ),
        ("ignore x", "expected `empty_service`, not `x`"),
        ("labels a=b=c", "unable to parse label selector"),
        (
            "namespaces a\nnamespace_labels b",
            "namespaces and namespace_labels cannot both be set",
        ),
        ("zonal\nnoendpoints", "zonal requires the endpoint cache"),
    ] {
        let said = refused(&format!("kubernetes cluster.local {{\n{option}\n}}"));
        assert!(said.contains(expected), "{option}: {said}");
        assert!(said.starts_with("Corefile:"), "{said}");
    }
    assert!(refused("kubernetes in-addr.arpa").contains("non-reverse zone name must be used"));
    assert_eq!(refused("kubernetes cluster.local"), "");
}
