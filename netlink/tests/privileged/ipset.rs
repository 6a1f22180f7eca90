use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use switchyard_netlink::Family;
use switchyard_netlink::ipset::{
    ENTRIES_PER_MESSAGE_MAX, Entry, Ipset, IpsetError, MESSAGES_PER_SEND_MAX, SetSpec, SetType,
};

use crate::namespace::{in_own_network, run};

const V4: SetSpec = SetSpec {
    set_type: SetType::HashIp,
    family: Family::V4,
    max_elements: 65_536,
    hash_size: 1024,
};
const V6: SetSpec = SetSpec {
    family: Family::V6,
    ..V4
};
const NAME: &str = "KUBE-CLUSTER-IPS";

fn v4(number: u32) -> Entry {
    Entry::Ip(Ipv4Addr::from_bits(Ipv4Addr::new(172, 30, 0, 1).to_bits() + number).into())
}

fn v6(number: u16) -> Entry {
    Entry::Ip(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, number).into())
}

/// The elements as `ipset` sees them.
fn members(name: &str) -> BTreeSet<IpAddr> {
    let prefix = format!("add {name} ");
    run(&format!("ipset save {name}"))
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .map(|element| element.trim().parse().expect("an address"))
        .collect()
}

fn addresses(entries: impl IntoIterator<Item = Entry>) -> BTreeSet<IpAddr> {
    entries
        .into_iter()
        .map(|entry| match entry {
            Entry::Ip(address) => address,
            other => panic!("{other} in a set of addresses"),
        })
        .collect()
}

#[test]
fn a_new_set_is_what_the_tool_sees() {
    in_own_network(|| {
        let mut ipset = Ipset::open().unwrap();
        assert_eq!(ipset.header(NAME).unwrap(), None);
        assert!(ipset.ensure(NAME, &V4).unwrap());
        assert!(!ipset.ensure(NAME, &V4).unwrap());
        ipset.create("KUBE-6-CLUSTER-IPS", &V6).unwrap();
        ipset.add(NAME, &[v4(0), v4(1), v4(1)]).unwrap();
        ipset.add("KUBE-6-CLUSTER-IPS", &[v6(1), v6(2)]).unwrap();

        let save = run("ipset save");
        assert!(
            save.contains("create KUBE-CLUSTER-IPS hash:ip family inet hashsize 1024"),
            "{save}"
        );
        assert!(
            save.contains("create KUBE-6-CLUSTER-IPS hash:ip family inet6"),
            "{save}"
        );
        assert_eq!(members(NAME), addresses([v4(0), v4(1)]));
        assert_eq!(members("KUBE-6-CLUSTER-IPS"), addresses([v6(1), v6(2)]));

        ipset.remove(NAME, &[v4(0), v4(7)]).unwrap();
        assert_eq!(members(NAME), addresses([v4(1)]));
        let header = ipset.header(NAME).unwrap().unwrap();
        assert_eq!(
            (header.type_name.as_str(), header.family),
            ("hash:ip", Some(Family::V4))
        );
        assert_eq!((header.max_elements, header.elements), (65_536, Some(1)));
        assert_eq!(header.references, 0);
    });
}

#[test]
fn reads_what_the_tool_wrote() {
    in_own_network(|| {
        run("ipset create theirs hash:ip family inet6 maxelem 10");
        run("ipset add theirs fd00::1:7");
        run("ipset add theirs fd00::1:8");
        let mut ipset = Ipset::open().unwrap();
        let entries = ipset.entries("theirs").unwrap();
        assert_eq!(addresses(entries), addresses([v6(7), v6(8)]));
        assert_eq!(ipset.header("theirs").unwrap().unwrap().max_elements, 10);
    });
}

#[test]
fn thousands_of_elements_go_in_and_come_back() {
    in_own_network(|| {
        let mut ipset = Ipset::open().unwrap();
        let count = u32::try_from(3 * ENTRIES_PER_MESSAGE_MAX * MESSAGES_PER_SEND_MAX + 7).unwrap();
        let entries: Vec<_> = (0..count).map(v4).collect();
        ipset.create(NAME, &V4).unwrap();
        ipset.add(NAME, &entries).unwrap();
        let expected = addresses(entries.iter().copied());
        assert_eq!(addresses(ipset.entries(NAME).unwrap()), expected);
        assert_eq!(members(NAME), expected);
        ipset.remove(NAME, &entries[1..]).unwrap();
        assert_eq!(members(NAME), addresses([v4(0)]));
    });
}

#[test]
fn a_set_in_use_is_replaced_in_one_step_and_grows() {
    in_own_network(|| {
        let small = SetSpec {
            max_elements: 2,
            ..V4
        };
        let mut ipset = Ipset::open().unwrap();
        ipset.create(NAME, &small).unwrap();
        ipset.add(NAME, &[v4(0), v4(1)]).unwrap();
        run(&format!(
            "iptables-nft -A FORWARD -m set --match-set {NAME} dst -j REJECT"
        ));
        let full = ipset.add(NAME, &[v4(1), v4(2)]).unwrap_err();
        assert!(
            matches!(&full, IpsetError::Full { name, entry } if name == NAME && *entry == Some(v4(2))),
            "{full}"
        );

        assert!(!ipset.ensure(NAME, &V4).unwrap());
        ipset.add(NAME, &[v4(2)]).unwrap();
        assert_eq!(members(NAME), addresses([v4(0), v4(1), v4(2)]));
        ipset.replace(NAME, &V4, &[v4(9)]).unwrap();
        assert_eq!(members(NAME), addresses([v4(9)]));
        // The rule still uses the set under this name, and no helper is left behind.
        assert_eq!(ipset.header(NAME).unwrap().unwrap().references, 1);
        assert_eq!(run("ipset list -n").trim(), NAME);
        assert!(matches!(ipset.destroy(NAME), Err(IpsetError::InUse { .. })));
        run("iptables-nft -F FORWARD");
        ipset.destroy(NAME).unwrap();
        assert_eq!(run("ipset list -n").trim(), "");
    });
}

#[test]
fn a_replacement_survives_what_a_killed_run_left() {
    in_own_network(|| {
        let mut ipset = Ipset::open().unwrap();
        ipset.create(NAME, &V4).unwrap();
        run(&format!("ipset create {NAME}~ hash:ip family inet6"));
        ipset.replace(NAME, &V4, &[v4(3)]).unwrap();
        assert_eq!(members(NAME), addresses([v4(3)]));
        assert_eq!(run("ipset list -n").trim(), NAME);
    });
}

#[test]
fn a_set_of_another_type_is_a_typed_error_and_stays() {
    in_own_network(|| {
        run(&format!("ipset create {NAME} hash:net"));
        run("ipset create six hash:ip family inet6");
        let mut ipset = Ipset::open().unwrap();
        let error = ipset.ensure(NAME, &V4).unwrap_err();
        assert!(matches!(error, IpsetError::TypeMismatch { .. }));
        assert_eq!(
            error.to_string(),
            "the set KUBE-CLUSTER-IPS is a hash:net of IPv4, where a hash:ip of IPv4 is needed; \
             remove or rename it"
        );
        assert!(matches!(
            ipset.ensure("six", &V4),
            Err(IpsetError::TypeMismatch { .. })
        ));
        assert!(matches!(
            ipset.replace("six", &V4, &[]),
            Err(IpsetError::TypeMismatch { .. })
        ));
        assert!(matches!(
            ipset.create("six", &V6),
            Err(IpsetError::Exists { .. })
        ));
        assert!(matches!(
            ipset.entries(NAME),
            Err(IpsetError::TypeUnknown { .. })
        ));
        assert_eq!(run("ipset list -n").lines().count(), 2);
    });
}

#[test]
fn refusals_name_the_set_and_the_element() {
    in_own_network(|| {
        let mut ipset = Ipset::open().unwrap();
        assert!(matches!(
            ipset.add("absent", &[v4(1)]),
            Err(IpsetError::Missing { name }) if name == "absent"
        ));
        assert!(matches!(
            ipset.entries("absent"),
            Err(IpsetError::Missing { .. })
        ));
        assert!(matches!(
            ipset.swap("absent", "gone"),
            Err(IpsetError::Missing { .. })
        ));
        assert!(matches!(
            ipset.destroy("absent"),
            Err(IpsetError::Missing { .. })
        ));

        ipset.create(NAME, &V4).unwrap();
        let error = ipset.add(NAME, &[v4(1), v6(1), v4(2)]).unwrap_err();
        assert!(
            matches!(&error, IpsetError::BadEntry { entry, .. } if *entry == v6(1)),
            "{error:?}"
        );
        let error = ipset
            .add(NAME, &[Entry::Ip([0, 0, 0, 0].into())])
            .unwrap_err();
        assert!(matches!(&error, IpsetError::BadEntry { .. }), "{error:?}");
        assert_eq!(members(NAME), addresses([v4(1)]));
        // The socket is as good as before.
        ipset.add(NAME, &[v4(2)]).unwrap();
        assert_eq!(members(NAME), addresses([v4(1), v4(2)]));
    });
}
