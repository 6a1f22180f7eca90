use std::sync::Arc;
use std::time::Duration;

use super::format::{COMMON, Format};
use crate::lines::tests::Kept;
use crate::plugin::trial::{Behind, Trial, query_with, reply};
use crate::plugin::{Exchange, Plugin, Step};
use crate::wire::{Kind, Rcode};

fn behind() -> Arc<dyn Plugin> {
    Behind::new("behind", |exchange| {
        let first = exchange
            .question
            .lower()
            .labels()
            .next()
            .map(<[u8]>::to_vec);
        match first.as_deref() {
            Some(b"none") => reply(exchange, Rcode::NXDOMAIN, &["ns . 5 SOA a. b. 1 2 3 4 5"]),
            Some(b"nodata") => reply(exchange, Rcode::NOERROR, &["ns . 5 SOA a. b. 1 2 3 4 5"]),
            Some(b"bad") => Step::Fail(Rcode::REFUSED),
            _ => reply(exchange, Rcode::NOERROR, &["an example.org. 5 A 1.2.3.4"]),
        }
    })
}

fn logged(directives: &str, questions: &[&str], number: usize) -> Vec<String> {
    let kept = Kept::default();
    let environment = kept.environment();
    let block = Trial::in_environment(directives, vec![behind()], &environment).unwrap();
    for question in questions {
        let _exchange = block.ask(question);
    }
    kept.lines(number)
}

#[test]
fn the_default_line_is_the_common_format() {
    let lines = logged("log", &["Example.org A"], 1);
    let (line, duration) = lines[0].rsplit_once(' ').unwrap();
    assert_eq!(
        line,
        "[INFO] 10.240.0.1:40212 - 7 \"A IN example.org. udp 29 false 512\" NOERROR qr,rd 56"
    );
    let seconds: f64 = duration.strip_suffix('s').unwrap().parse().unwrap();
    assert!(seconds < 5.0 && !duration.contains('e'), "{duration}");
}

#[test]
fn the_first_rule_that_fits_the_name_prints_by_class() {
    let all = ["a. A", "none. A", "nodata. A", "bad. A"];
    let cases: [(&str, &[&str], &[&str]); 7] = [
        ("log . {type}{class}{name}", &["X.y. AAAA"], &["AAAAINx.y."]),
        (
            "log . \"{name} {/log/type} {/log/class}\" {\nclass denial\n}",
            &all,
            &["none. NXDOMAIN denial", "nodata. NODATA denial"],
        ),
        (
            "log . \"{name} {rcode}\" {\nclass success error\n}",
            &all,
            &["a. NOERROR", "bad. REFUSED"],
        ),
        (
            "log . {name} {\nclass denial\nclass all\n}",
            &all,
            &["a.", "none.", "nodata.", "bad."],
        ),
        (
            "log org net {name}",
            &["a.org. A", "b.net. A", "c.com. A", "xorg. A"],
            &["a.org.", "b.net."],
        ),
        (
            "log org 1{name}\nlog . 2{name}",
            &["a.org. A", "b.net. A"],
            &["1a.org.", "2b.net."],
        ),
        (
            "log org {name} {\nclass denial\n}\nlog . 2{name}",
            &["a.org. A"],
            &[],
        ),
    ];
    for (directives, questions, expected) in cases {
        let expected: Vec<_> = expected
            .iter()
            .map(|line| format!("[INFO] {line}"))
            .collect();
        assert_eq!(
            logged(directives, questions, expected.len()),
            expected,
            "{directives}"
        );
    }
}

fn answered() -> Exchange {
    let mut exchange = query_with("example.org. A CH", Some(true), &[]);
    exchange.request.source = "[2001:db8::1]:53535".parse().unwrap();
    exchange.request.local = "[::1]:53".parse().unwrap();
    exchange.request.transport = crate::wire::Transport::Tls;
    exchange.request.id = 29008;
    exchange.request.checking_disabled = true;
    let _answered = reply(&mut exchange, Rcode(4000), &[]);
    exchange.reply.authoritative = true;
    exchange.reply.truncated = true;
    exchange.reply.recursion_available = true;
    exchange.reply.authentic_data = true;
    exchange
}

#[test]
fn placeholders_are_what_they_say() {
    let cases = [
        ("{remote}:{port} {local}", "[2001:db8::1]:53535 [::1]"),
        (
            "{proto} {size} {>do} {>bufsize} {>id} {>opcode}",
            "tcp 40 true 65535 29008 0",
        ),
        (
            "{rcode} {>rflags} {rsize} {class}",
            "4000 qr,aa,tc,rd,ra,ad,cd 29 CH",
        ),
        (
            "{/log/type} {/log/class} {/forward/upstream}",
            "OTHERERROR error -",
        ),
        ("{ {type} } {x} } {name", "{ A } {x} } {name"),
        ("{unknown}{type}", "{unknown}A"),
        ("plain", "plain"),
    ];
    for (format, expected) in cases {
        assert_eq!(
            Format::parse(format).line(&answered(), Kind::OtherError),
            expected
        );
    }
}

#[test]
fn durations_are_printed_in_seconds_without_exponents() {
    for (nanoseconds, expected) in [
        (307_000, "0.000307s"),
        (1, "0.000000001s"),
        (2_000_000_000, "2s"),
    ] {
        let seconds = Duration::from_nanos(nanoseconds).as_secs_f64();
        assert_eq!(format!("{seconds}s"), expected);
    }
    assert!(COMMON.ends_with("{duration}"));
}

#[test]
fn what_is_not_understood_is_refused() {
    let cases = [
        (
            "log . {common} {\nclass good\n}",
            "unknown class `good`; known are: success,",
        ),
        (
            "log {\nclass\n}",
            "`class` takes one class or more, but has no argument",
        ),
        (
            "log {\nclasses all\n}",
            "unknown option `classes`; known are: class",
        ),
        ("log a..b", "\"a..b\" has an empty label"),
    ];
    for (directives, expected) in cases {
        let message = Trial::refused(directives);
        assert!(message.starts_with(expected), "{directives}: {message}");
    }
}
