use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::config;
use crate::corefile;
use crate::plugin::Step;
use crate::plugin::trial::{Behind, Trial, query, reply, section};
use crate::wire::{Rcode, Rtype, Section};

/// What a client over IPv6, or IPv4, is told when upstream answers so for AAAA and A.
async fn told(
    directives: &str,
    client: &str,
    aaaa: (Rcode, &'static [&'static str]),
    a: (Rcode, &'static [&'static str]),
) -> String {
    let behind = Behind::new("behind", move |exchange| {
        let (rcode, records) = if exchange.question.rtype == Rtype::A {
            a
        } else {
            aaaa
        };
        if rcode == Rcode::NOTAUTH {
            return Step::Fail(Rcode::SERVFAIL);
        }
        reply(exchange, rcode, records)
    });
    let block = Trial::new(directives, vec![behind]).unwrap();
    let mut exchange = query("x.o. AAAA");
    exchange.request.source = client.parse().unwrap();
    let _answered = block.run(&mut exchange).await;
    let records = [Section::Answer, Section::Authority].map(|it| section(&exchange, it));
    format!("{} {}", exchange.reply.rcode, records.concat().join("; "))
        .trim()
        .to_owned()
}

const SIX: &str = "[2001:db8::1]:5000";
const FOUR: &str = "10.0.0.1:5000";
const SOA: &[&str] = &["ns o. 70 SOA a. b. 1 2 3 4 70"];
const A: &[&str] = &["an x.o. 300 CNAME y.o.", "an y.o. 300 A 192.0.2.42"];
const AAAA: &[&str] = &["an x.o. 300 AAAA 2001:db8::2"];

#[tokio::test]
async fn addresses_are_made_where_there_are_none() {
    let ok = Rcode::NOERROR;
    let made = "NOERROR x.o. 300 IN CNAME y.o.; y.o. 70 IN AAAA 64:ff9b::c000:22a";
    let none = "NOERROR o. 70 IN SOA a. b. 1 2 3 4 70";
    let cases = [
        ("dns64", SIX, (ok, SOA), (ok, A), made),
        ("dns64", FOUR, (ok, SOA), (ok, A), none),
        ("dns64 {\nallow_ipv4\n}", FOUR, (ok, SOA), (ok, A), made),
        (
            "dns64",
            SIX,
            (ok, AAAA),
            (ok, A),
            "NOERROR x.o. 300 IN AAAA 2001:db8::2",
        ),
        (
            "dns64 {\ntranslate_all\n}",
            SIX,
            (ok, AAAA),
            (ok, A),
            "NOERROR x.o. 300 IN CNAME y.o.; y.o. 300 IN AAAA 64:ff9b::c000:22a",
        ),
        (
            "dns64",
            SIX,
            (ok, &[]),
            (ok, &["an x.o. 900 A 192.0.2.42"]),
            "NOERROR x.o. 600 IN AAAA 64:ff9b::c000:22a",
        ),
        (
            "dns64 64:1337::/96",
            SIX,
            (ok, &[]),
            (ok, &["an x.o. 9 A 192.0.2.42"]),
            "NOERROR x.o. 9 IN AAAA 64:1337::c000:22a",
        ),
        (
            "dns64",
            SIX,
            (Rcode::NXDOMAIN, SOA),
            (ok, A),
            "NXDOMAIN o. 70 IN SOA a. b. 1 2 3 4 70",
        ),
        (
            "dns64",
            SIX,
            (Rcode::SERVFAIL, &[]),
            (ok, A),
            "NOERROR x.o. 300 IN CNAME y.o.; y.o. 300 IN AAAA 64:ff9b::c000:22a",
        ),
        ("dns64", SIX, (ok, SOA), (ok, SOA), none),
        ("dns64", SIX, (ok, SOA), (Rcode::NOTAUTH, &[]), none),
        ("dns64", SIX, (Rcode::NOTAUTH, &[]), (ok, A), "SERVFAIL"),
    ];
    for (directives, client, aaaa, a, expected) in cases {
        assert_eq!(
            told(directives, client, aaaa, a).await,
            expected,
            "{directives} {client}"
        );
    }
}

fn prefix(text: &str) -> config::Prefix {
    let corefile = corefile::parse(&format!(".\ndns64 {text}"), "Corefile", Path::new(""));
    config::read(&corefile.unwrap().blocks[0].directives[0])
        .unwrap()
        .prefix
}

#[test]
fn addresses_are_embedded_as_rfc_6052_says() {
    let address = Ipv4Addr::new(192, 0, 2, 33);
    for (text, expected) in [
        ("64:ff9b::/96", "64:ff9b::c000:221"),
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ] {
        let expected: Ipv6Addr = expected.parse().unwrap();
        assert_eq!(prefix(text).with(address), expected, "{text}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let network = "expected an IPv6 network of 32 to 96 bits";
    for (directives, expected) in [
        ("dns64 foobar", network),
        ("dns64 10.0.0.0/8", network),
        ("dns64 64:ff9b::/97", network),
        ("dns64 64:ff9b::/24", network),
        ("dns64 64:ff9b::/33", network),
        ("dns64 a b", "`dns64` takes a prefix, but has 2 arguments"),
        ("dns64 {\nprefix\n}", "`prefix` takes a network"),
        (
            "dns64 {\nfoobar\n}",
            "unknown option `foobar`; known are: prefix, translate_all,",
        ),
        ("dns64 {\nallow_ipv4 x\n}", "`allow_ipv4` takes no argument"),
    ] {
        let message = Trial::refused(directives);
        assert!(message.starts_with(expected), "{directives}: {message}");
    }
}
