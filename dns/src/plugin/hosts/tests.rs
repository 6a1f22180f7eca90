use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::source::Source;
use super::table::{Rules, Table};
use crate::plugin::testing::{Refuses, TestBlock, block};
use crate::plugin::zones::Zones;
use crate::plugin::{BlockSettings, Plugin};

/// A block of the root with a hosts file that says `text`, and `options` in braces.
fn hosts(text: &str, options: &str) -> (TestBlock, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    fs::write(&path, text).unwrap();
    let directive = format!("hosts {} {{\n{options}\n}}", path.display());
    (
        block(".", &directive, vec![Arc::new(Refuses)]).unwrap(),
        folder,
    )
}

const EXAMPLE: &str = "
127.0.0.1 localhost localhost.domain
::1 localhost localhost.domain
10.0.0.1 example.org Upper.Example.ORG # 10.9.9.9 is a comment
::FFFF:10.0.0.2 example.com
1.2.3.4 aa.example.com
5.6.7.8 *.apps.example.com *.example.com
fe80::1%lo0 zoned
10.0.0.4\ttabbed
10.0.0.5 twice
10.0.0.6 twice twice
";

#[test]
fn names_and_addresses_are_answered() {
    let (block, _folder) = hosts(EXAMPLE, "");
    let cases = [
        ("example.org A", "NOERROR example.org. 3600 IN A 10.0.0.1"),
        ("eXample.Org A", "NOERROR eXample.Org. 3600 IN A 10.0.0.1"),
        (
            "upper.example.org A",
            "NOERROR upper.example.org. 3600 IN A 10.0.0.1",
        ),
        ("example.com A", "NOERROR example.com. 3600 IN A 10.0.0.2"),
        ("localhost AAAA", "NOERROR localhost. 3600 IN AAAA ::1"),
        ("zoned AAAA", "NOERROR zoned. 3600 IN AAAA fe80::1"),
        ("tabbed A", "NOERROR tabbed. 3600 IN A 10.0.0.4"),
        (
            "twice A",
            "NOERROR twice. 3600 IN A 10.0.0.5; twice. 3600 IN A 10.0.0.6",
        ),
        // No record of the type, but the name is there.
        ("example.org AAAA", "NOERROR"),
        ("example.org MX", "NOERROR"),
        ("localhost ANY", "NOERROR"),
        // Wildcards stand for one label, and for none that is there.
        (
            "apps.example.com A",
            "NOERROR apps.example.com. 3600 IN A 5.6.7.8",
        ),
        (
            "x.apps.example.com A",
            "NOERROR x.apps.example.com. 3600 IN A 5.6.7.8",
        ),
        (
            "aa.example.com A",
            "NOERROR aa.example.com. 3600 IN A 1.2.3.4",
        ),
        (
            "*.example.com A",
            "NOERROR *.example.com. 3600 IN A 5.6.7.8",
        ),
        ("x.y.apps.example.com A", "SERVFAIL"),
        ("x.apps.example.com TXT", "NOERROR"),
        // Nothing there, and no SOA to say so.
        ("missing.org A", "SERVFAIL"),
        ("missing.org TXT", "SERVFAIL"),
        (". A", "SERVFAIL"),
        // Reverse.
        (
            "1.0.0.10.in-addr.arpa PTR",
            "NOERROR 1.0.0.10.in-addr.arpa. 3600 IN PTR example.org.; 1.0.0.10.in-addr.arpa. 3600 IN PTR upper.example.org.",
        ),
        (
            "2.0.0.10.in-addr.arpa PTR",
            "NOERROR 2.0.0.10.in-addr.arpa. 3600 IN PTR example.com.",
        ),
        (
            "1.0.0.127.in-addr.arpa PTR",
            "NOERROR 1.0.0.127.in-addr.arpa. 3600 IN PTR localhost.; 1.0.0.127.in-addr.arpa. 3600 IN PTR localhost.domain.",
        ),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa PTR",
            "NOERROR 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa. 3600 IN PTR zoned.",
        ),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.E.F.ip6.arpa PTR",
            "NOERROR 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.E.F.ip6.arpa. 3600 IN PTR zoned.",
        ),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa PTR",
            "NOERROR 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa. 3600 IN PTR localhost.; 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa. 3600 IN PTR localhost.domain.",
        ),
        // A PTR question that nothing answers goes on, with or without `fallthrough`.
        ("9.9.9.9.in-addr.arpa PTR", "REFUSED"),
        ("8.7.6.5.in-addr.arpa PTR", "REFUSED"),
        ("example.org PTR", "REFUSED"),
    ];
    for (question, expected) in cases {
        assert_eq!(block.told(question), expected, "{question}");
    }
    let asked = block.ask("example.org A").unwrap();
    assert!(asked.authoritative && asked.answered_by == "hosts");
    assert!(block.ask("example.org TXT").unwrap().authoritative);
}

#[test]
fn options_change_what_is_answered() {
    let cases = [
        // (options, question, answer)
        (
            "ttl 7",
            "example.org A",
            "NOERROR example.org. 7 IN A 10.0.0.1",
        ),
        (
            "ttl 7",
            "2.0.0.10.in-addr.arpa PTR",
            "NOERROR 2.0.0.10.in-addr.arpa. 7 IN PTR example.com.",
        ),
        ("no_reverse", "2.0.0.10.in-addr.arpa PTR", "REFUSED"),
        (
            "no_reverse",
            "example.org A",
            "NOERROR example.org. 3600 IN A 10.0.0.1",
        ),
        ("fallthrough", "missing.org A", "REFUSED"),
        ("fallthrough", "missing.org TXT", "REFUSED"),
        ("fallthrough", "example.org AAAA", "NOERROR"),
        ("fallthrough", "example.org TXT", "NOERROR"),
        (
            "fallthrough example.net",
            "missing.example.net A",
            "REFUSED",
        ),
        ("fallthrough example.net", "missing.org A", "SERVFAIL"),
        (
            "fallthrough\nfallthrough_unsupported",
            "example.org TXT",
            "REFUSED",
        ),
        (
            "fallthrough\nfallthrough_unsupported",
            "example.org AAAA",
            "NOERROR",
        ),
        (
            "fallthrough example.net\nfallthrough_unsupported",
            "example.org TXT",
            "NOERROR",
        ),
        // Lines of the Corefile beside those of the file, the file's first.
        (
            "10.0.0.9 inline",
            "inline A",
            "NOERROR inline. 3600 IN A 10.0.0.9",
        ),
        (
            "10.0.0.9 inline\nttl 5",
            "inline A",
            "NOERROR inline. 5 IN A 10.0.0.9",
        ),
        (
            "10.0.0.9 example.org",
            "example.org A",
            "NOERROR example.org. 3600 IN A 10.0.0.1; example.org. 3600 IN A 10.0.0.9",
        ),
        (
            "10.0.0.1 example.org",
            "example.org A",
            "NOERROR example.org. 3600 IN A 10.0.0.1",
        ),
        (
            "10.0.0.2 other",
            "2.0.0.10.in-addr.arpa PTR",
            "NOERROR 2.0.0.10.in-addr.arpa. 3600 IN PTR example.com.; 2.0.0.10.in-addr.arpa. 3600 IN PTR other.",
        ),
        (
            "::9 example.org",
            "example.org AAAA",
            "NOERROR example.org. 3600 IN AAAA ::9",
        ),
        (
            "10.0.0.9 *.wild",
            "x.wild A",
            "NOERROR x.wild. 3600 IN A 10.0.0.9",
        ),
        ("10.0.0.9 *.wild", "x.wild AAAA", "NOERROR"),
        (
            "10.0.0.9 a b\nfallthrough",
            "b A",
            "NOERROR b. 3600 IN A 10.0.0.9",
        ),
    ];
    for (options, question, expected) in cases {
        let (block, _folder) = hosts(EXAMPLE, options);
        assert_eq!(block.told(question), expected, "{options}: {question}");
    }
}

#[test]
fn only_names_of_the_zones_are_known() {
    let text = "10.0.0.1 a.example.org a.example.net a.example.com";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    fs::write(&path, text).unwrap();
    let ask = |zones: &str, question: &str| {
        let directive = format!("hosts {} {zones}", path.display());
        block(
            "example.org example.com",
            &directive,
            vec![Arc::new(Refuses)],
        )
        .unwrap()
        .told(question)
    };
    // The zones of the block, or those given.
    assert_eq!(
        ask("", "a.example.org A"),
        "NOERROR a.example.org. 3600 IN A 10.0.0.1"
    );
    assert_eq!(ask("", "a.example.net A"), "REFUSED");
    assert_eq!(
        ask("example.net", "a.example.net A"),
        "NOERROR a.example.net. 3600 IN A 10.0.0.1"
    );
    assert_eq!(ask("example.net", "a.example.org A"), "REFUSED");
    // Reverse names need no zone, but give names of the zones only.
    assert_eq!(
        ask("example.net", "1.0.0.10.in-addr.arpa PTR"),
        "NOERROR 1.0.0.10.in-addr.arpa. 3600 IN PTR a.example.net."
    );
}

#[test]
fn what_is_wrong_in_the_corefile_is_said_with_its_line() {
    let cases = [
        (
            "hosts {\n ttl\n}",
            "Corefile:3: `ttl` takes a number of seconds, but has no argument",
        ),
        (
            "hosts {\n ttl 0\n}",
            "Corefile:3: ttl must be a number from 1 to 65535, not `0`",
        ),
        (
            "hosts {\n ttl 65536\n}",
            "Corefile:3: ttl must be a number from 1 to 65535, not `65536`",
        ),
        (
            "hosts {\n reload 5\n}",
            "Corefile:3: reload must be a duration such as 30s, 1m30s or 500ms, but `5` has no unit",
        ),
        (
            "hosts {\n fallthrough_unsupported\n}",
            "Corefile:3: `fallthrough_unsupported` needs a `fallthrough` beside it",
        ),
        (
            "hosts {\n no_reverse x\n}",
            "Corefile:3: `no_reverse` takes no argument, but has `x`",
        ),
        (
            "hosts {\n 10.0.0.1\n}",
            "Corefile:3: an address without a name",
        ),
        (
            "hosts {\n 10.0.0.1 a..b\n}",
            "Corefile:3: \"a..b\" has an empty label",
        ),
        (
            "hosts {\n 10.0.0 a\n}",
            "Corefile:3: unknown option `10.0.0`; known are: an address with its names, ttl, no_reverse, reload, fallthrough, fallthrough_unsupported",
        ),
        (
            "hosts\nhosts",
            "Corefile:3: `hosts` may be given once in a server block",
        ),
        (
            "hosts /etc/hosts a..b",
            "Corefile:2: `a..b` is not a domain name",
        ),
    ];
    for (directive, expected) in cases {
        let error = block(".", directive, Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{directive}: {error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_no_error() {
    let block = block(".", "hosts not-there {\n 10.0.0.1 a\n}", Vec::new()).unwrap();
    assert_eq!(block.told("a A"), "NOERROR a. 3600 IN A 10.0.0.1");
}

fn rules() -> Rules {
    Rules {
        zones: Zones::from_args(&[], &[".".to_owned()]).unwrap(),
        ttl_s: 60,
        reverse: true,
    }
}

#[test]
fn the_file_is_read_again_when_it_changed_and_kept_when_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    let mut source = Source::new(path.clone(), rules(), 0);
    let entries = |table: Option<Table>| table.map(|table| table.entries());
    assert_eq!(entries(source.refresh()), None);
    fs::write(&path, "10.0.0.1 a b\n::1 a").unwrap();
    assert_eq!(entries(source.refresh()), Some(6));
    assert_eq!(entries(source.refresh()), None, "nothing changed");
    fs::write(&path, "10.0.0.1 a b").unwrap();
    assert_eq!(entries(source.refresh()), Some(4));
    fs::remove_file(&path).unwrap();
    assert_eq!(entries(source.refresh()), None, "what was known goes on");
    fs::write(&path, "10.0.0.1 *.wild\n").unwrap();
    assert_eq!(
        entries(source.refresh()),
        Some(1),
        "no reverse of a wildcard"
    );
}

#[test]
fn bad_lines_are_passed_over() {
    let mut source = Source::new("/nowhere/hosts".into(), rules(), 0);
    let text = b"10.0.0.1 good\n123.123.123 loki\n321.321.321.321\n10.0.0.2\n10.0.0.3 a..b also-good\n\xff\xff x\n# 10.0.0.4 x\n";
    assert_eq!(source.parse(text).entries(), 4);
}

#[test]
fn an_address_with_very_many_names_keeps_what_fits_a_message() {
    let names: String = (0..6000)
        .map(|number| format!("0.0.0.0 ads{number}.example\n"))
        .collect();
    let table = Source::new("/nowhere/hosts".into(), rules(), 0).parse(names.as_bytes());
    assert_eq!(
        table.names("0.0.0.0".parse().unwrap()).unwrap().records(),
        4096
    );
    let last = crate::wire::Name::from_text("ads5999.example").unwrap();
    assert!(table.addresses(&last, super::table::Family::V4).is_some());
}

#[tokio::test]
async fn a_changed_file_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    fs::write(&path, "10.0.0.1 a").unwrap();
    let (text, block) = (
        format!("hosts {} {{\n reload 100ms\n}}", path.display()),
        settings(),
    );
    let corefile =
        crate::corefile::parse(&format!(".\n{text}"), "Corefile", folder.path()).unwrap();
    let config = super::config::Config::read(&corefile.blocks[0].directives[0], &block).unwrap();
    let hosts = super::handler::Hosts::new(config).unwrap();
    hosts.start();
    fs::write(&path, "10.0.0.1 a b c").unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while hosts.entries_of_file() != 6 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the change was not seen"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn settings() -> BlockSettings {
    BlockSettings {
        zones: vec![".".to_owned()],
        server: "".into(),
        directives: Vec::new(),
        root: "/".into(),
        bind: Vec::new(),
        tls: None,
        timeouts: crate::server::StreamTimeouts::default(),
        debug: false,
        metrics: false,
    }
}
