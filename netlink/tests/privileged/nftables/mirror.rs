use switchyard_netlink::Family;
use switchyard_netlink::nftables::{Change, Expression, Nftables, TableFamily, TableId};

use super::{nft, read};
use crate::namespace::{in_own_network, run};

/// Rules and sets of every kind that kube-proxy has, and some more.
const IPV4: &str = include_str!("ipv4.nft");
const IPV6: &str = include_str!("ipv6.nft");
const INET: &str = include_str!("inet.nft");

/// What is read of a table makes the same table again, for nft and for ourselves.
#[test]
fn a_table_made_of_what_was_read_is_shown_by_nft_as_before() {
    let tables = [
        (TableId::new(Family::V4, "services"), IPV4),
        (TableId::new(Family::V6, "services"), IPV6),
        (TableId::new(TableFamily::Inet, "mixed"), INET),
    ];
    for (table, text) in tables {
        in_own_network(move || {
            nft(text);
            let shown = run("nft list ruleset");
            let mut nftables = Nftables::open().unwrap();
            let changes = read(&mut nftables, &table);
            for change in &changes {
                if let Change::AddRule(rule) = change {
                    let other = |one: &&Expression| matches!(one, Expression::Other { .. });
                    assert_eq!(rule.expressions.iter().find(other), None);
                }
            }
            run("nft flush ruleset");
            let applied = nftables.apply(&table, &changes).unwrap();
            assert!(applied.bytes > 1_000 && applied.generation.is_some());
            // What is left of a time-out differs.
            let lines = |text: &str| -> Vec<String> {
                let line = |line: &str| line.split(" expires ").next().unwrap().to_owned();
                text.lines().map(line).collect()
            };
            assert_eq!(lines(&run("nft list ruleset")), lines(&shown));
            assert_eq!(read(&mut nftables, &table), changes);
        });
    }
}
