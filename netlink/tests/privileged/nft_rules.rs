use std::collections::BTreeMap;

use switchyard_netlink::Family;
use switchyard_netlink::nft_rules::RuleLister;

use crate::namespace::{in_own_network, run};

type Handles = BTreeMap<String, Vec<u64>>;

fn handles(lister: &mut RuleLister, family: Family, table: &str) -> Handles {
    lister
        .for_each_rule(family, table, None, Handles::new, |all, rule| {
            all.entry(rule.chain.to_owned())
                .or_default()
                .push(rule.handle);
        })
        .unwrap()
}

/// The same from `nft -a list table`.
fn handles_by_nft(family: &str, table: &str) -> Handles {
    let mut all = Handles::new();
    let mut chain = None;
    for line in run(&format!("nft -a list table {family} {table}")).lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.split(' ').next().map(str::to_owned);
        } else if let (Some(chain), Some((_, handle))) = (&chain, line.rsplit_once("# handle ")) {
            all.entry(chain.clone())
                .or_default()
                .push(handle.parse().unwrap());
        }
    }
    all
}

#[test]
fn handles_are_those_that_nft_shows() {
    in_own_network(|| {
        let mut lister = RuleLister::open().unwrap();
        assert_eq!(handles(&mut lister, Family::V4, "nat"), Handles::new());
        for (tool, family, name) in [
            ("iptables-nft", Family::V4, "ip"),
            ("ip6tables-nft", Family::V6, "ip6"),
        ] {
            for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS"] {
                run(&format!("{tool} -t nat -N {chain}"));
                for _ in 0..3 {
                    run(&format!(
                        "{tool} -t nat -A {chain} -p tcp --dport 80 -j RETURN"
                    ));
                }
            }
            run(&format!("{tool} -t filter -A FORWARD -j ACCEPT"));
            let read = handles(&mut lister, family, "nat");
            assert_eq!(read, handles_by_nft(name, "nat"));
            assert_eq!(read.values().map(Vec::len).sum::<usize>(), 6);
        }
    });
}

#[test]
fn a_foreign_change_shows_in_its_chain_only_and_traffic_does_not() {
    in_own_network(|| {
        run("ip link set lo up");
        for chain in ["A", "B"] {
            run(&format!("iptables-nft -N {chain}"));
            run(&format!("iptables-nft -A {chain} -j RETURN"));
        }
        run("iptables-nft -A OUTPUT -j A");
        let mut lister = RuleLister::open().unwrap();
        let mut fingerprints = || {
            let start = BTreeMap::<String, Vec<(u64, u64)>>::new;
            lister
                .for_each_rule(Family::V4, "filter", None, start, |all, rule| {
                    let place = (rule.handle, rule.fingerprint);
                    all.entry(rule.chain.to_owned()).or_default().push(place);
                })
                .unwrap()
        };
        let before = fingerprints();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"counted", "127.0.0.1:9999").unwrap();
        assert_eq!(fingerprints(), before);
        run("iptables-nft -R B 1 -j ACCEPT");
        let after = fingerprints();
        assert_eq!(before["A"], after["A"]);
        assert_ne!(before["B"], after["B"]);
    });
}

#[test]
fn thousands_of_rules_are_listed() {
    in_own_network(|| {
        let mut text = "*nat\n:BIG - [0:0]\n".to_owned();
        for port in 1..=5_000 {
            text += &format!(
                "-A BIG -p tcp -m comment --comment \"ns/svc:port-{port}\" --dport {port} -j RETURN\n"
            );
        }
        text += "COMMIT\n";
        let file = std::env::temp_dir().join(format!("switchyard-rules-{}", std::process::id()));
        std::fs::write(&file, text).unwrap();
        run(&format!(
            "iptables-nft-restore --noflush {}",
            file.display()
        ));
        std::fs::remove_file(&file).unwrap();
        let mut lister = RuleLister::open().unwrap();
        let read = handles(&mut lister, Family::V4, "nat");
        assert_eq!(read["BIG"].len(), 5_000);
        assert!(read["BIG"].is_sorted());
    });
}

#[test]
fn chains_show_where_rules_came_or_went_and_are_read_alone() {
    in_own_network(|| {
        for chain in ["A", "B"] {
            run(&format!("iptables-nft -t nat -N {chain}"));
            run(&format!("iptables-nft -t nat -A {chain} -j RETURN"));
        }
        run("iptables-nft -N A");
        let mut lister = RuleLister::open().unwrap();
        let chains = |lister: &mut RuleLister| {
            lister
                .for_each_chain(Family::V4, "nat", BTreeMap::new, |all, chain| {
                    all.insert(chain.name.to_owned(), (chain.handle, chain.uses));
                })
                .unwrap()
        };
        let before = chains(&mut lister);
        assert_eq!(before.keys().collect::<Vec<_>>(), ["A", "B"]);
        run("iptables-nft -t nat -A B -j ACCEPT");
        let after = chains(&mut lister);
        assert_eq!((before["A"], before["B"].1 + 1), (after["A"], after["B"].1));

        let rules = |lister: &mut RuleLister, chain| {
            let count = |count: &mut usize, rule: switchyard_netlink::nft_rules::Rule<'_>| {
                assert_eq!(rule.chain, chain);
                *count += 1;
            };
            lister
                .for_each_rule(Family::V4, "nat", Some(chain), || 0, count)
                .unwrap()
        };
        assert_eq!((rules(&mut lister, "A"), rules(&mut lister, "B")), (1, 2));
        assert_eq!(rules(&mut lister, "absent"), 0);
        assert_eq!(chains(&mut lister), after);
    });
}
