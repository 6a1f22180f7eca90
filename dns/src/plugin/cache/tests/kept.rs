use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::config::Config;
use super::super::store::Store;
use super::super::survey::ttl_s;
use super::{Says, Scene, asking, gone, says};
use crate::corefile;
use crate::metrics::registry;
use crate::plugin::Environment;
use crate::plugin::trial::{Trial, query, record, reply};
use crate::wire::{Kind, Rcode};

const SOA: &str = "ns o. 3600 SOA sns.o. noc.o. 1 7200 3600 1209600 3600";
const SHORT_SOA: &str = "ns o. 60 SOA sns.o. noc.o. 1 7200 3600 1209600 60";

/// Asked twice within a second: whether the second came from the cache.
async fn is_kept(scene: &Scene, question: &str) -> bool {
    let before = scene.times();
    let first = scene.at(0, question).await;
    assert_eq!(scene.times(), before + 1, "{question}");
    let second = scene.at(0, question).await;
    assert_eq!(first, second, "{question}");
    scene.times() == before + 1
}

#[tokio::test]
async fn replies_are_kept_or_not_by_what_they_are() {
    let truncated = Says {
        truncated: true,
        ..says(Rcode::NOERROR, &["an m.o. 1800 MX 1 x.o."])
    };
    let cases = [
        (
            "m.o. MX",
            says(
                Rcode::NOERROR,
                &["an m.o. 3601 MX 1 x.o.", "an m.o. 3601 MX 2 y.o."],
            ),
            true,
        ),
        (
            "M.o. MX",
            says(Rcode::NOERROR, &["an m.o. 3601 MX 1 x.o."]),
            true,
        ),
        ("m.o. MX", truncated, false),
        ("a.o. A", says(Rcode::NXDOMAIN, &[SOA]), true),
        (
            "1.1.168.192.in-addr.arpa. PTR",
            says(Rcode::NXDOMAIN, &[]),
            false,
        ),
        ("a.o. A", says(Rcode::NOERROR, &[SOA]), true),
        ("a.o. A", says(Rcode::NOERROR, &[]), true),
        ("a.o. A", says(Rcode::NOERROR, &["ns o. 60 NS ns.o."]), true),
        ("a.o. A", says(Rcode::SERVFAIL, &[]), true),
        ("a.o. A", says(Rcode::NOTIMP, &[]), true),
        ("a.o. A", says(Rcode::REFUSED, &[]), false),
        ("a.o. A", says(Rcode::FORMERR, &[]), false),
        (
            "a.o. A",
            says(Rcode::NXDOMAIN, &["an a.o. 60 A 1.2.3.4"]),
            false,
        ),
        (
            "a.o. A cd",
            says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"]),
            true,
        ),
        ("a.neg.o. A", says(Rcode::NXDOMAIN, &[SOA]), false),
        (
            "a.neg.o. A",
            says(Rcode::NOERROR, &["an a.neg.o. 60 A 1.2.3.4"]),
            true,
        ),
        (
            "pos.o. A",
            says(Rcode::NOERROR, &["an pos.o. 60 A 1.2.3.4"]),
            false,
        ),
        ("pos.o. A", says(Rcode::NXDOMAIN, &[SOA]), true),
        ("none.o. A", says(Rcode::NXDOMAIN, &[SOA]), false),
        (
            "none.o. A",
            says(Rcode::NOERROR, &["an none.o. 60 A 1.2.3.4"]),
            false,
        ),
        // CNAMEs that lead nowhere.
        (
            "a.o. A",
            says(
                Rcode::NOERROR,
                &["an a.o. 60 CNAME b.o.", "an b.o. 60 CNAME c.o."],
            ),
            false,
        ),
        (
            "a.o. A",
            says(
                Rcode::NOERROR,
                &["an a.o. 60 CNAME b.o.", "an b.o. 60 AAAA ::1"],
            ),
            false,
        ),
        (
            "a.o. MX",
            says(Rcode::NOERROR, &["an a.o. 60 CNAME b.o."]),
            false,
        ),
        (
            "a.o. MX",
            says(
                Rcode::NOERROR,
                &["an a.o. 60 CNAME b.o.", "an b.o. 60 MX 1 x.o."],
            ),
            true,
        ),
        (
            "a.o. A",
            says(
                Rcode::NOERROR,
                &["an a.o. 60 CNAME b.o.", "an c.o. 60 A 1.2.3.4"],
            ),
            false,
        ),
        (
            "a.o. A",
            says(Rcode::NOERROR, &["an b.o. 60 A 1.2.3.4"]),
            false,
        ),
        (
            "a.o. A",
            says(
                Rcode::NOERROR,
                &["an a.o. 60 CNAME b.o.", "an b.o. 60 CNAME a.o."],
            ),
            false,
        ),
        (
            "a.o. A",
            says(
                Rcode::NOERROR,
                &[
                    "an a.o. 60 CNAME b.o.",
                    "an a.o. 60 CNAME c.o.",
                    "an b.o. 60 A 1.2.3.4",
                ],
            ),
            false,
        ),
        (
            "a.o. A",
            says(
                Rcode::NOERROR,
                &[
                    "an a.o. 60 CNAME b.o.",
                    "an A.o. 60 CNAME B.o.",
                    "an b.o. 60 A 1.2.3.4",
                ],
            ),
            true,
        ),
        (
            "A.o. A",
            says(
                Rcode::NOERROR,
                &["an b.o. 60 A 1.2.3.4", "an a.o. 60 CNAME b.O."],
            ),
            true,
        ),
        (
            "a.o. CNAME",
            says(Rcode::NOERROR, &["an a.o. 60 CNAME b.o."]),
            true,
        ),
        (
            "a.o. A",
            says(Rcode::NOERROR, &["an a.o. 60 CNAME b.o.", SOA]),
            true,
        ),
        (
            "a.o. ANY",
            says(Rcode::NOERROR, &["an a.o. 60 TXT t"]),
            true,
        ),
        (
            "a.o. AXFR",
            says(Rcode::NOERROR, &["an o. 60 TXT t"]),
            false,
        ),
    ];
    let directives = "cache {\ndisable success pos.o none.o\ndisable denial neg.o none.o\n}";
    for (question, reply, kept) in cases {
        let scene = Scene::new(directives);
        scene.says(reply.clone());
        assert_eq!(
            is_kept(&scene, question).await,
            kept,
            "{question} {reply:?}"
        );
    }
}

#[tokio::test]
async fn a_failure_without_a_reply_is_not_kept() {
    let scene = Scene::new("cache");
    scene.says(gone());
    assert!(!is_kept(&scene, "a.o. A").await);
    scene.says(Says {
        silent: true,
        ..Says::default()
    });
    assert_eq!(scene.at(0, "a.o. A").await, "silence");
    assert_eq!(scene.times(), 3);
}

#[tokio::test]
async fn what_plugins_answer_from_memory_is_not_kept_and_only_its_ttl_is_bounded() {
    for name in ["kubernetes", "hosts", "file", "template"] {
        let scene = Scene::behind_it("cache 30", name, &Environment::default());
        scene.says(says(
            Rcode::NOERROR,
            &["an v.o. 28800 TXT 1.1.0", "ex v.o. 40 A 1.2.3.4"],
        ));
        let bounded = "NOERROR v.o. 30 IN TXT \"1.1.0\"; v.o. 30 IN A 1.2.3.4";
        assert_eq!(scene.at(0, "v.o. TXT").await, bounded);
        assert_eq!(scene.at(9, "v.o. TXT").await, bounded);
        assert_eq!(scene.times(), 2);
        // An operator's `ttl 0` stays what it is.
        scene.says(says(Rcode::NOERROR, &["an a.o. 0 A 1.2.3.4"]));
        assert_eq!(scene.at(0, "a.o. A").await, "NOERROR a.o. 0 IN A 1.2.3.4");
        scene.says(says(Rcode::NOERROR, &["an o. 9000 TXT t"]));
        assert_eq!(scene.at(0, "o. AXFR").await, "NOERROR o. 9000 IN TXT \"t\"");
    }
}

#[tokio::test]
async fn ttls_are_those_of_the_lowest_record_within_bounds_and_count_down() {
    let mixed: &[&str] = &[
        "an a.o. 90 CNAME b.o.",
        "an b.o. 60 A 1.2.3.4",
        "ex c.o. 70 A 1.2.3.4",
    ];
    let cases: [(&str, Says, &str, &str); 9] = [
        (
            "cache",
            says(Rcode::NOERROR, mixed),
            "NOERROR a.o. 60 IN CNAME b.o.; b.o. 60 IN A 1.2.3.4; c.o. 60 IN A 1.2.3.4",
            "NOERROR a.o. 56 IN CNAME b.o.; b.o. 56 IN A 1.2.3.4; c.o. 56 IN A 1.2.3.4",
        ),
        (
            "cache 30",
            says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"]),
            "NOERROR a.o. 30 IN A 1.2.3.4",
            "NOERROR a.o. 26 IN A 1.2.3.4",
        ),
        (
            "cache",
            says(Rcode::NOERROR, &["an a.o. 86400 A 1.2.3.4"]),
            "NOERROR a.o. 3600 IN A 1.2.3.4",
            "NOERROR a.o. 3596 IN A 1.2.3.4",
        ),
        (
            "cache 7200",
            says(Rcode::NOERROR, &["an a.o. 86400 A 1.2.3.4"]),
            "NOERROR a.o. 7200 IN A 1.2.3.4",
            "NOERROR a.o. 7196 IN A 1.2.3.4",
        ),
        (
            "cache",
            says(Rcode::NXDOMAIN, &[SOA]),
            "NXDOMAIN o. 1800 IN SOA sns.o. noc.o. 1 7200 3600 1209600 3600",
            "NXDOMAIN o. 1796 IN SOA sns.o. noc.o. 1 7200 3600 1209600 3600",
        ),
        (
            "cache 3600 {\ndenial 5000 5 0\n}",
            says(Rcode::NXDOMAIN, &[SHORT_SOA]),
            "NXDOMAIN o. 5 IN SOA sns.o. noc.o. 1 7200 3600 1209600 60",
            "NXDOMAIN o. 1 IN SOA sns.o. noc.o. 1 7200 3600 1209600 60",
        ),
        (
            "cache",
            says(Rcode::NOERROR, &["an a.o. 1 A 1.2.3.4"]),
            "NOERROR a.o. 5 IN A 1.2.3.4",
            "NOERROR a.o. 1 IN A 1.2.3.4",
        ),
        (
            "cache {\nkeepttl\n}",
            says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"]),
            "NOERROR a.o. 60 IN A 1.2.3.4",
            "NOERROR a.o. 60 IN A 1.2.3.4",
        ),
        (
            "cache {\nsuccess 1024 3600 20\n}",
            says(Rcode::NOERROR, &["an a.o. 9 A 1.2.3.4"]),
            "NOERROR a.o. 20 IN A 1.2.3.4",
            "NOERROR a.o. 16 IN A 1.2.3.4",
        ),
    ];
    for (directives, reply, first, later) in cases {
        let scene = Scene::new(directives);
        scene.says(reply);
        assert_eq!(scene.at(0, "a.o. A").await, first, "{directives}");
        assert_eq!(scene.at(4, "a.o. A").await, later, "{directives}");
        assert_eq!(scene.times(), 1, "{directives}");
    }
}

#[tokio::test]
async fn an_entry_ends_with_its_ttl() {
    let scene = Scene::new("cache");
    scene.says(says(Rcode::NOERROR, &["an a.o. 30 A 1.2.3.4"]));
    for (at, times) in [(0, 1), (29, 1), (30, 2), (59, 2), (61, 3)] {
        let _told = scene.at(at, "a.o. A").await;
        assert_eq!(scene.times(), times, "after {at} s");
    }
}

#[tokio::test]
async fn a_ttl_of_zero_and_servfail_0_keep_nothing() {
    let scene = Scene::new("cache {\nsuccess 1024 3600 0\nservfail 0\n}");
    scene.says(says(Rcode::NOERROR, &["an a.o. 0 A 1.2.3.4"]));
    assert!(!is_kept(&scene, "a.o. A").await);
    scene.says(says(Rcode::SERVFAIL, &[]));
    assert!(!is_kept(&scene, "a.o. A").await);
    let scene = Scene::new("cache {\nservfail 20s\n}");
    scene.says(says(Rcode::SERVFAIL, &[]));
    for (at, times) in [(0, 1), (19, 1), (20, 2)] {
        assert_eq!(scene.at(at, "a.o. A").await, "SERVFAIL");
        assert_eq!(scene.times(), times);
    }
}

#[tokio::test]
async fn questions_with_other_answers_are_kept_apart() {
    let scene = Scene::new("cache");
    scene.says(says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"]));
    let apart = ["a.o. A", "a.o. A do", "a.o. A cd", "a.o. A do cd", "b.o. A"];
    for (index, question) in apart.iter().enumerate() {
        scene.says(match *question {
            "b.o. A" => says(Rcode::NOERROR, &["an b.o. 60 A 1.2.3.4"]),
            _ => says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"]),
        });
        let _told = scene.at(0, question).await;
        assert_eq!(scene.times(), index + 1, "{question}");
    }
    for question in apart
        .into_iter()
        .chain(["A.O. A", "a.o. A ad", "a.o. A edns", "b.O. A"])
    {
        let _told = scene.at(1, question).await;
        assert_eq!(scene.times(), apart.len(), "{question}");
    }
    let _other_type = scene.at(1, "a.o. AAAA").await;
    assert_eq!(scene.times(), apart.len() + 1);
}

#[tokio::test]
async fn a_reply_has_the_case_of_the_question_it_answers() {
    let scene = Scene::new("cache");
    scene.says(says(
        Rcode::NOERROR,
        &["an WwW.o. 60 CNAME x.o.", "an x.o. 60 A 1.2.3.4"],
    ));
    assert_eq!(
        scene.at(0, "WwW.o. A").await,
        "NOERROR WwW.o. 60 IN CNAME x.o.; x.o. 60 IN A 1.2.3.4"
    );
    assert_eq!(
        scene.at(1, "wWw.o. A").await,
        "NOERROR wWw.o. 59 IN CNAME x.o.; x.o. 59 IN A 1.2.3.4"
    );
    assert_eq!(scene.times(), 1);
}

#[tokio::test]
async fn authentic_data_is_told_to_who_asks_for_it() {
    let authentic = Says {
        authentic: true,
        ..says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"])
    };
    let plain = "NOERROR a.o. 60 IN A 1.2.3.4";
    let told = "NOERROR ad a.o. 60 IN A 1.2.3.4";
    for (first, second) in [("a.o. A", "a.o. A ad"), ("a.o. A ad", "a.o. A")] {
        let scene = Scene::new("cache");
        scene.says(authentic.clone());
        for question in [first, second, first] {
            let expected = if question.ends_with("ad") {
                told
            } else {
                plain
            };
            assert_eq!(scene.at(0, question).await, expected, "{question}");
        }
        assert_eq!(scene.times(), 1);
        assert_eq!(scene.at(0, "a.o. A do").await, told);
        assert_eq!(scene.at(0, "a.o. A do").await, told);
    }
}

#[tokio::test]
async fn hits_are_authoritative_and_have_the_other_flags_they_came_with() {
    let scene = Scene::new("cache");
    scene.says(says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"]));
    let mut flags = Vec::new();
    for _ in 0..2 {
        let mut exchange = asking("a.o. A");
        let _answered = scene.block.run(&mut exchange).await;
        let reply = &exchange.reply;
        flags.push((
            exchange.answered_by,
            reply.authoritative,
            reply.recursion_available,
        ));
    }
    assert_eq!(flags, [("forward", false, true), ("cache", true, true)]);
}

#[tokio::test]
async fn expired_signatures_are_not_kept_for_those_who_check_them() {
    let signature = |expires: u32, begins: u32| {
        let mut signature = record("m.o. 60 TXT t");
        signature.rtype = crate::wire::Rtype::RRSIG;
        let times = [expires.to_be_bytes(), begins.to_be_bytes()].concat();
        signature.data = [&[0; 8][..], &times, b"\x00\x00\x01o\x00sig"].concat();
        signature
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = u32::try_from(now.as_secs()).unwrap();
    for (expires, begins, question, lasting) in [
        (now + 100, now - 100, "m.o. TXT do", true),
        (now - 100, now - 200, "m.o. TXT do", false),
        (now + 200, now + 100, "m.o. TXT do", false),
        (now - 100, now - 200, "m.o. TXT", true),
    ] {
        let mut exchange = asking(question);
        let _answered = reply(&mut exchange, Rcode::NOERROR, &["an m.o. 60 TXT t"]);
        exchange
            .reply
            .push(crate::wire::Section::Answer, &signature(expires, begins));
        exchange.answered_by = "forward";
        let survey = super::super::handler::Core::survey(&exchange);
        assert_eq!(survey.lasting, lasting, "{question}");
    }
}

#[tokio::test]
async fn only_the_zones_named_are_covered() {
    let scene = Scene::new("cache 30 o");
    scene.says(says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"]));
    assert!(is_kept(&scene, "a.o. A").await);
    scene.says(says(Rcode::NOERROR, &["an a.p. 60 A 1.2.3.4"]));
    assert!(!is_kept(&scene, "a.p. A").await);
    assert_eq!(scene.at(0, "a.p. A").await, "NOERROR a.p. 60 IN A 1.2.3.4");
}

#[tokio::test]
async fn a_reload_keeps_what_is_there_while_the_line_stays_the_same() {
    let environment = Environment::default();
    let scene = Scene::behind_it("cache 30", "forward", &environment);
    scene.says(says(Rcode::NOERROR, &["an a.o. 60 A 1.2.3.4"]));
    assert!(is_kept(&scene, "a.o. A").await);
    for (directives, asked) in [("cache 30", 0), ("cache 31", 1)] {
        let next = Environment {
            carried: environment.carried.pass_on(),
            ..Environment::default()
        };
        let scene = Scene::behind_it(directives, "forward", &next);
        let _told = scene.at(1, "a.o. A").await;
        assert_eq!(scene.times(), asked, "{directives}");
    }
}

#[tokio::test]
async fn a_cache_keeps_no_more_than_its_capacity_and_its_octets() {
    let scene = Scene::new("cache 3600 cap.o {\nsuccess 1000\ndenial 1000\n}");
    let value = |start: &str| {
        let text = registry().render().unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with(start));
        let line = lines.find(|line| line.contains("cap.o")).expect(start);
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let (least, most) = (256 * 2, 256 * 4);
    for (round, text) in [(1, "t".to_owned()), (2, "t".repeat(250))] {
        for number in 0..3_000 {
            let name = format!("n{round}-{number}.cap.o.");
            let records: Vec<&'static str> = (0..round * 4)
                .map(|_| &*format!("an {name} 60 TXT {text}").leak())
                .collect();
            scene.says(says(Rcode::NOERROR, &records));
            let _told = scene.at(0, &format!("{name} TXT")).await;
        }
        let entries = value("coredns_cache_entries{server=\"dns://:53\",type=\"success\"");
        let evictions =
            value("coredns_cache_evictions_total{server=\"dns://:53\",type=\"success\"");
        let octets = value("switchyard_dns_cache_octets");
        assert_eq!(entries + evictions, round * 3_000);
        assert!(octets <= most * 1_024, "{octets}");
        assert!(entries <= most, "{entries}");
        // Eight texts of 250 octets: it is the octets that bound them.
        assert!(entries > least || round == 2, "{entries}");
        assert!(entries <= least || round == 1, "{entries}");
    }
}

#[tokio::test]
async fn metrics_count_what_happened_under_the_reference_names() {
    let directives = "cache 30 met.o";
    let scene = Scene::new(directives);
    scene.says(says(Rcode::NOERROR, &["an a.met.o. 60 A 1.2.3.4"]));
    for _ in 0..3 {
        let _told = scene.at(0, "a.met.o. A").await;
    }
    scene.says(says(Rcode::NXDOMAIN, &[SOA]));
    for _ in 0..2 {
        let _told = scene.at(0, "b.met.o. A").await;
    }
    let text = registry().render().unwrap();
    for line in [
        r#"coredns_cache_entries{server="dns://:53",type="denial",view="",zones="met.o."} 1"#,
        r#"coredns_cache_entries{server="dns://:53",type="success",view="",zones="met.o."} 1"#,
        r#"coredns_cache_hits_total{server="dns://:53",type="denial",view="",zones="met.o."} 1"#,
        r#"coredns_cache_hits_total{server="dns://:53",type="success",view="",zones="met.o."} 2"#,
        r#"coredns_cache_misses_total{server="dns://:53",view="",zones="met.o."} 2"#,
        r#"coredns_cache_requests_total{server="dns://:53",view="",zones="met.o."} 5"#,
        r#"coredns_cache_drops_total{server="dns://:53",view="",zones="met.o."} 0"#,
        r#"coredns_cache_prefetch_total{server="dns://:53",view="",zones="met.o."} 0"#,
        r#"coredns_cache_served_stale_total{server="dns://:53",view="",zones="met.o."} 0"#,
        r#"coredns_cache_evictions_total{server="dns://:53",type="denial",view="",zones="met.o."} 0"#,
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}

fn config(text: &str) -> Config {
    let corefile = corefile::parse(&format!(".\n{text}"), "Corefile", Path::new("")).unwrap();
    Config::read(&corefile.blocks[0].directives[0], &[".".to_owned()]).unwrap()
}

#[test]
fn options_are_read() {
    let cases = [
        ("cache", (9_984, 3_600, 5), (9_984, 1_800, 5)),
        (
            "cache example.nl {\nsuccess 10\n}",
            (10, 3_600, 5),
            (9_984, 1_800, 5),
        ),
        (
            "cache {\nsuccess 10 1800 30\n}",
            (10, 1_800, 30),
            (9_984, 1_800, 5),
        ),
        (
            "cache {\nsuccess 10\ndenial 10 15 2\n}",
            (10, 3_600, 5),
            (10, 15, 2),
        ),
        (
            "cache 25 example.nl {\nsuccess 10\ndenial 10 15\n}",
            (10, 25, 5),
            (10, 15, 5),
        ),
        ("cache aaa example.nl", (9_984, 3_600, 5), (9_984, 1_800, 5)),
    ];
    for (text, success, denial) in cases {
        let config = config(text);
        let [is_success, is_denial] = [&config.success, &config.denial]
            .map(|side| (side.capacity, side.max_ttl_s, side.min_ttl_s));
        assert_eq!((is_success, is_denial), (success, denial), "{text}");
    }
    assert_eq!(config("cache 30 A.b c").zones_label, "a.b.,c.");
    assert_eq!(ttl_s(Kind::Delegation, Some(60), &config("cache")), 5);
}

#[test]
fn stale_options_are_read() {
    let (hour, ms) = (Duration::from_secs(3_600), Duration::from_millis);
    let cases = [
        ("serve_stale", Some((hour, None, 0, 0))),
        ("serve_stale 20m", Some((ms(1_200_000), None, 0, 0))),
        ("serve_stale 0", None),
        ("serve_stale 0 VERIFY", None),
        (
            "serve_stale 1h immediate 30s 20s",
            Some((hour, None, 30, 20)),
        ),
        (
            "serve_stale 1h immediate 4294967295s",
            Some((hour, None, u32::MAX, 0)),
        ),
        ("serve_stale 1h verify", Some((hour, Some(ms(0)), 0, 0))),
        (
            "serve_stale 1h VERIFY 100ms",
            Some((hour, Some(ms(100)), 0, 0)),
        ),
        (
            "serve_stale 1h verify 0 1m 30s",
            Some((hour, Some(ms(0)), 60, 30)),
        ),
    ];
    for (text, expected) in cases {
        let stale = config(&format!("cache {{\n{text}\n}}")).stale;
        let is = stale.map(|it| (it.up_to, it.verify, it.ttl_s, it.recheck.as_secs()));
        assert_eq!(is, expected, "{text}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let cases = [
        ("success", "`success` takes a capacity"),
        ("denial aaa", "the capacity of `denial` must be a number"),
        (
            "positive 15",
            "unknown option `positive`; known are: success, denial, prefetch,",
        ),
        (
            "success 1 0",
            "the TTL of `success` must be a number from 1",
        ),
        (
            "denial 1 1 -1",
            "the least TTL of `denial` must be a number from 0",
        ),
        ("prefetch", "`prefetch` takes an amount"),
        ("prefetch -1", "the amount of `prefetch` must be a number"),
        (
            "prefetch 0 blurp",
            "the duration of `prefetch` must be a duration",
        ),
        ("prefetch 1 1m 50", "expected 10% to 90%, found `50`"),
        ("prefetch 1 1m 9%", "expected 10% to 90%, found `9%`"),
        ("serve_stale 20", "serve_stale must be a duration"),
        (
            "serve_stale 1m nono",
            "expected `immediate` or `verify`, found `nono`",
        ),
        (
            "serve_stale 1h immediate 100ms",
            "a TTL is a whole number of seconds",
        ),
        (
            "serve_stale 1h immediate 4294967296s",
            "a TTL is a whole number of seconds",
        ),
        (
            "serve_stale 1h immediate -1s",
            "the TTL of stale replies must be a duration",
        ),
        (
            "serve_stale 1h immediate 30s 1s more",
            "`more` is one argument too many",
        ),
        (
            "serve_stale 1h immediate 30s 6m",
            "the time until the next attempt may be 300s at most",
        ),
        (
            "serve_stale 1h verify -1ms",
            "the timeout of `verify` must be a duration",
        ),
        (
            "serve_stale 1h verify 100ms 500ms",
            "a TTL is a whole number of seconds",
        ),
        (
            "serve_stale_policy prefer_positive",
            "`serve_stale_policy` needs `serve_stale`",
        ),
        ("serve_stale\nserve_stale_policy x", "unknown policy `x`"),
        ("servfail 6m", "servfail may be 300s at most"),
        ("servfail", "`servfail` takes a duration"),
        ("disable", "`disable` takes `success` or `denial`"),
        ("disable all", "expected `success` or `denial`, found `all`"),
        ("keepttl 1", "`keepttl` takes no argument"),
    ];
    for (option, expected) in cases {
        let message = Trial::refused(&format!("cache {{\n{option}\n}}"));
        assert!(message.starts_with(expected), "{option}: {message}");
    }
    for (directives, expected) in [
        (
            "cache 0 example.nl",
            "the TTL of `cache` must be a number from 1",
        ),
        ("cache -1", "the TTL of `cache` must be a number from 1"),
        ("cache\ncache", "`cache` may be given once"),
    ] {
        let message = Trial::refused(directives);
        assert!(message.starts_with(expected), "{directives}: {message}");
    }
}

#[test]
fn threads_that_use_one_cache_see_whole_replies() {
    let store = Arc::new(Store::new(["s".to_owned(), "z".to_owned()], 1_024, 1_024));
    let key = store.key(&query("a.o. A").question, false, false);
    assert_ne!(key, store.key(&query("a.o. A").question, true, false));
    assert_eq!(key, store.key(&query("A.O. A").question, false, false));
}
