use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use crate::plugin::trial::{Behind, Trial, query, reply, section};
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{Name, Rcode, Section};

/// Has `b.example.org`, `host.` with an alias, `empty.com`; `broken.com` fails.
fn known(exchange: &mut Exchange) -> Step {
    let soa = "ns . 60 SOA a. b. 1 2 3 4 5";
    match exchange.question.lower().to_string().as_str() {
        "b.example.org." => reply(
            exchange,
            Rcode::NOERROR,
            &["an b.example.org. 60 A 1.0.0.1"],
        ),
        "host." => {
            let records = ["an host. 60 CNAME t.", "an t. 60 A 1.0.0.2"];
            reply(exchange, Rcode::NOERROR, &records)
        }
        "here.ns.svc.cluster.local." => {
            let name = format!("an {} 60 A 1.0.0.3", exchange.question.name());
            reply(exchange, Rcode::NOERROR, &[&name])
        }
        "empty.com." => reply(exchange, Rcode::NOERROR, &[soa]),
        "broken.com." => Step::Fail(Rcode::SERVFAIL),
        _ => reply(exchange, Rcode::NXDOMAIN, &[soa]),
    }
}

fn told(exchange: &Exchange) -> String {
    let answer = section(exchange, Section::Answer).join("; ");
    let mut finished = exchange.reply.clone();
    finished.finish(&exchange.request, 65_535);
    let (name, _) = Name::read_plain(finished.octets(), 12).unwrap();
    format!("{name} {} {answer}", exchange.reply.rcode)
        .trim()
        .to_owned()
}

const RESOLV_CONF: &str = "nameserver 10.96.0.10\nsearch old\nsearch ns.svc.cluster.local Example.org com\noptions ndots:5\n";

fn with_file(zones: &str) -> (Trial, impl Fn() -> Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    fs::write(&file, RESOLV_CONF).unwrap();
    let behind = Behind::new("behind", known);
    let asked = {
        let behind = Arc::clone(&behind);
        move || std::mem::take(&mut *behind.asked.lock().unwrap())
    };
    let directives = format!("autopath {zones} {}", file.display());
    (Trial::new(&directives, vec![behind]).unwrap(), asked)
}

#[test]
fn the_first_that_is_there_is_sent_as_an_alias() {
    let (block, asked) = with_file("");
    let cases = [
        (
            "B.ns.svc.cluster.LOCAL.",
            "B.ns.svc.cluster.LOCAL. NOERROR B.ns.svc.cluster.LOCAL. 60 IN CNAME b.example.org.; b.example.org. 60 IN A 1.0.0.1",
            2,
        ),
        (
            "host.ns.svc.cluster.local.",
            "host.ns.svc.cluster.local. NOERROR host.ns.svc.cluster.local. 60 IN CNAME host.; host. 60 IN CNAME t.; t. 60 IN A 1.0.0.2",
            4,
        ),
        (
            "HERE.ns.svc.cluster.local.",
            "HERE.ns.svc.cluster.local. NOERROR HERE.ns.svc.cluster.local. 60 IN A 1.0.0.3",
            1,
        ),
        (
            "empty.ns.svc.cluster.local.",
            "empty.ns.svc.cluster.local. NOERROR",
            3,
        ),
        (
            "none.Ns.svc.cluster.local.",
            "none.Ns.svc.cluster.local. NXDOMAIN",
            4,
        ),
        (
            "broken.ns.svc.cluster.local.",
            "broken.ns.svc.cluster.local. SERVFAIL",
            3,
        ),
        // Not the first domain: the client goes on by itself.
        (
            "b.example.org.",
            "b.example.org. NOERROR b.example.org. 60 IN A 1.0.0.1",
            1,
        ),
        ("ns.svc.cluster.local.", "ns.svc.cluster.local. NXDOMAIN", 1),
        (
            "none.svc.cluster.local.",
            "none.svc.cluster.local. NXDOMAIN",
            1,
        ),
    ];
    for (name, expected, times) in cases {
        let exchange = block.ask(&format!("{name} A"));
        assert_eq!(told(&exchange), expected);
        assert_eq!(exchange.question.name().to_string(), name, "put back");
        assert_eq!(asked().len(), times, "{name}");
    }
}

#[test]
fn only_the_zones_named_are_searched_for() {
    let (block, asked) = with_file("other.org");
    let exchange = block.ask("b.ns.svc.cluster.local. A");
    assert_eq!(told(&exchange), "b.ns.svc.cluster.local. NXDOMAIN");
    assert_eq!(asked(), ["b.ns.svc.cluster.local. A"]);
}

/// Knows one client.
#[derive(Debug)]
struct Knows;

impl Plugin for Knows {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        known(exchange)
    }

    fn search_path(&self, _: &Name, client: IpAddr) -> Option<Vec<Name>> {
        let known = client == IpAddr::from([10, 240, 0, 1]);
        let path = [
            "ns.svc.cluster.local.",
            "svc.cluster.local.",
            "cluster.local.",
        ];
        known.then(|| path.map(|text| Name::from_text(text).unwrap()).to_vec())
    }
}

#[tokio::test]
async fn kubernetes_knows_the_path_of_its_pods() {
    let block = Trial::new("autopath @kubernetes", vec![Arc::new(Knows)]).unwrap();
    for (client, expected) in [
        (
            "10.240.0.1:99",
            "host.ns.svc.cluster.local. NOERROR host.ns.svc.cluster.local. 60 IN CNAME host.; host. 60 IN CNAME t.; t. 60 IN A 1.0.0.2",
        ),
        ("10.240.0.2:99", "host.ns.svc.cluster.local. NXDOMAIN"),
    ] {
        let mut exchange = query("host.ns.svc.cluster.local. A");
        exchange.request.source = client.parse().unwrap();
        let _answered = block.run(&mut exchange).await;
        assert_eq!(told(&exchange), expected, "{client}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for (directives, expected) in [
        ("autopath", "`autopath` takes a file, or `@kubernetes`"),
        ("autopath @file", "`@file` knows no search paths"),
        (
            "autopath missing.conf",
            "/nowhere/missing.conf: No such file",
        ),
        ("autopath a..b @kubernetes", "`a..b` is not a domain name"),
    ] {
        let message = Trial::refused(directives);
        assert!(message.starts_with(expected), "{directives}: {message}");
    }
}
