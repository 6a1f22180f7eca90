use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::weights::Weights;
use crate::plugin::Plugin;
use crate::plugin::trial::{Behind, Trial, answer, reply, section};
use crate::wire::{Rcode, Section};

fn behind(rcode: Rcode, records: &'static [&'static str]) -> Vec<Arc<dyn Plugin>> {
    vec![Behind::new("behind", move |exchange| {
        reply(exchange, rcode, records)
    })]
}

fn data(records: &[String]) -> String {
    let data = records
        .iter()
        .filter_map(|record| record.split(' ').next_back());
    data.collect::<Vec<_>>().join(" ")
}

/// How often each order of the answer came.
fn orders(block: &Trial, question: &str, times: usize) -> HashMap<String, usize> {
    let mut orders = HashMap::new();
    for _ in 0..times {
        *orders
            .entry(data(&answer(&block.ask(question))))
            .or_default() += 1;
    }
    orders
}

const THREE: &[&str] = &[
    "an a. 5 A 1.0.0.1",
    "an a. 5 A 1.0.0.2",
    "an a. 5 A 1.0.0.3",
];

#[test]
fn every_order_of_addresses_comes_as_often() {
    let block = Trial::new("loadbalance", behind(Rcode::NOERROR, THREE)).unwrap();
    let orders = orders(&block, "a. A", 6_000);
    assert_eq!(orders.len(), 6);
    // Six standard deviations.
    assert!(
        orders.values().all(|times| (827..1173).contains(times)),
        "{orders:?}"
    );
}

#[test]
fn cnames_come_first_then_others_then_addresses_then_exchangers() {
    let records = &[
        "an b. 5 MX 1 x.",
        "an b. 5 A 1.0.0.1",
        "an a. 5 CNAME b.",
        "an b. 5 TXT t",
        "an b. 5 MX 1 y.",
    ];
    let block = Trial::new("loadbalance round_robin", behind(Rcode::NOERROR, records)).unwrap();
    let orders = orders(&block, "a. ANY", 100);
    let mut seen: Vec<_> = orders.keys().map(String::as_str).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["b. \"t\" 1.0.0.1 x. y.", "b. \"t\" 1.0.0.1 y. x."]);
}

#[test]
fn failures_and_transfers_stay_as_they_are() {
    let block = Trial::new("loadbalance", behind(Rcode::SERVFAIL, THREE)).unwrap();
    assert_eq!(orders(&block, "a. A", 50).len(), 1);
    let block = Trial::new("loadbalance", behind(Rcode::NOERROR, THREE)).unwrap();
    assert_eq!(orders(&block, "a. AXFR", 50).len(), 1);
    assert_eq!(orders(&block, "a. IXFR", 50).len(), 1);
}

#[test]
fn additional_addresses_are_shuffled_too() {
    let records = &["an a. 5 CNAME b.", "ex b. 5 A 1.0.0.1", "ex b. 5 A 1.0.0.2"];
    let block = Trial::new("loadbalance", behind(Rcode::NOERROR, records)).unwrap();
    let orders: HashMap<_, ()> = (0..100)
        .map(|_| (data(&section(&block.ask("a. A"), Section::Additional)), ()))
        .collect();
    assert_eq!(orders.len(), 2);
}

#[test]
fn preferred_networks_come_first() {
    let records = &[
        "an a. 5 CNAME b.",
        "an b. 5 A 1.0.0.1",
        "an b. 5 AAAA 2001:db8::1",
        "an b. 5 A 10.9.20.3",
        "an b. 5 A 10.9.20.4",
    ];
    let directives = "loadbalance {\nprefer 10.9.20.0/24 2001:db8::/32\n}";
    let block = Trial::new(directives, behind(Rcode::NOERROR, records)).unwrap();
    for order in orders(&block, "a. A", 50).keys() {
        assert!(
            order.starts_with("b. ") && order.ends_with(" 1.0.0.1"),
            "{order}"
        );
    }
}

fn block_with_weights(
    text: &str,
    options: &str,
    records: &'static [&'static str],
) -> (Trial, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights");
    fs::write(&file, text).unwrap();
    let directives = format!("loadbalance weighted {} {options}", file.display());
    (
        Trial::new(&directives, behind(Rcode::NOERROR, records)).unwrap(),
        folder,
    )
}

#[test]
fn the_first_address_is_chosen_by_weight() {
    let text = "# weights\n\nA\n1.0.0.1 3\n1.0.0.3 2\nother.\n1.0.0.2 200\n";
    let (block, _folder) = block_with_weights(text, "", THREE);
    let mut first = HashMap::new();
    for (order, times) in orders(&block, "a. A", 6_000) {
        *first
            .entry(order.split(' ').next().unwrap().to_owned())
            .or_insert(0) += times;
    }
    // 3 : 1 : 2, within six standard deviations.
    assert!((2768..3232).contains(&first["1.0.0.1"]), "{first:?}");
    assert!((827..1173).contains(&first["1.0.0.2"]), "{first:?}");
    assert!((1781..2219).contains(&first["1.0.0.3"]), "{first:?}");
}

#[tokio::test]
async fn changed_weights_are_taken_over_and_bad_ones_are_not() {
    let (block, folder) = block_with_weights("a\n1.0.0.1 1", "{\nreload 10ms\n}", THREE);
    for plugin in block.chain.plugins() {
        plugin.start();
    }
    let heavy = "a\n1.0.0.2 255\n";
    let (mut seen, file) = (0, folder.path().join("weights"));
    for text in [heavy, "nonsense with words", "a\n1.0.0.2 0\n"] {
        fs::write(&file, text).unwrap();
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            seen = 0;
            for _ in 0..200 {
                let mut exchange = crate::plugin::trial::query("a. A");
                let _answered = block.run(&mut exchange).await;
                seen += usize::from(answer(&exchange)[0].ends_with("1.0.0.2"));
            }
            if seen > 180 {
                break;
            }
        }
        assert!(seen > 180, "{text}: {seen}");
    }
}

#[test]
fn a_weight_file_is_read_or_its_line_is_named() {
    let cases = [
        ("1.2.3.4 1", "line 1: a weight before the first name"),
        ("a\n1.2.3.4", "line 2: the address `1.2.3.4` has no weight"),
        ("a\n1.2.3 4", "line 2: `1.2.3` is not an address"),
        ("a\n::1 0", "line 2: a weight is from 1 to 255, not `0`"),
        (
            "a\n\n::1 256",
            "line 3: a weight is from 1 to 255, not `256`",
        ),
        (
            "a b c",
            "line 1: expected a name, or an address and a weight",
        ),
        ("a..b", "line 1: \"a..b\" has an empty label"),
    ];
    for (text, expected) in cases {
        assert_eq!(Weights::parse(text).unwrap_err().to_string(), expected);
    }
    assert_eq!(Weights::parse("# a\n\n"), Ok(Weights::default()));
}

#[test]
fn what_is_not_understood_is_refused() {
    let cases = [
        (
            "loadbalance fastest",
            "expected `round_robin` alone, or `weighted FILE`; found `fastest`",
        ),
        ("loadbalance round_robin x", "expected `round_robin` alone"),
        ("loadbalance weighted", "`weighted` takes one file"),
        ("loadbalance weighted a b", "`weighted` takes one file"),
        (
            "loadbalance {\nreload 1s\n}",
            "unknown option `reload`; known are: prefer",
        ),
        (
            "loadbalance weighted a {\nfoo\n}",
            "unknown option `foo`; known are: reload, prefer",
        ),
        (
            "loadbalance weighted a {\nreload 5\n}",
            "reload must be a duration",
        ),
        (
            "loadbalance {\nprefer 10.0.0.0/33\n}",
            "`10.0.0.0/33` is not a network",
        ),
        (
            "loadbalance weighted a {\nreload 0s\n}",
            "/nowhere/a: No such file",
        ),
    ];
    for (directives, expected) in cases {
        let message = Trial::refused(directives);
        assert!(message.starts_with(expected), "{directives}: {message}");
    }
}
