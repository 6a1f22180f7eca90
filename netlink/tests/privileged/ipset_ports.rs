//! Sets with ports in them, of every type.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use switchyard_netlink::ipset::{
    ENTRIES_PER_MESSAGE_MAX, Entry, IpPort, Ipset, IpsetError, MESSAGES_PER_SEND_MAX, SetSpec,
    SetType,
};
use switchyard_netlink::{Family, Protocol};

use crate::namespace::{in_own_network, run};

const NAME: &str = "KUBE-LOAD-BALANCER-SOURCE-CIDR";

fn spec(set_type: SetType, family: Family) -> SetSpec {
    SetSpec {
        set_type,
        family,
        max_elements: 65_536,
        hash_size: 1024,
    }
}

/// The elements as `ipset` writes them.
fn members(name: &str) -> BTreeSet<String> {
    let prefix = format!("add {name} ");
    run(&format!("ipset save {name}"))
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect()
}

fn shown<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeSet<String> {
    entries.into_iter().map(Entry::to_string).collect()
}

fn ip_ports(address: IpAddr) -> [IpPort; 3] {
    [
        (Protocol::Tcp, 80),
        (Protocol::Udp, 53),
        (Protocol::Sctp, 65_535),
    ]
    .map(|(protocol, port)| IpPort {
        address,
        protocol,
        port,
    })
}

fn address(family: Family, number: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(0x0a00_0000 + u32::from(number)).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number).into(),
    }
}

/// Elements of a type, which `ipset` knows the same.
fn examples(set_type: SetType, family: Family) -> Vec<Entry> {
    let ip_ports = ip_ports(address(family, 1));
    let (second, nets) = match family {
        Family::V4 => ("10.1.0.2", ["192.168.0.0/16", "10.0.0.1/32", "128.0.0.0/1"]),
        Family::V6 => ("fd00:1::2", ["fd00:2::/32", "fd00::1/128", "8000::/1"]),
    };
    let second = second.parse().unwrap();
    match set_type {
        SetType::HashIp => (1..4).map(|n| Entry::Ip(address(family, n))).collect(),
        SetType::HashIpPort => ip_ports.map(Entry::IpPort).to_vec(),
        SetType::HashIpPortIp => ip_ports.map(|at| Entry::IpPortIp(at, second)).to_vec(),
        SetType::HashIpPortNet => ip_ports
            .iter()
            .zip(nets)
            .map(|(at, net)| Entry::IpPortNet(*at, net.parse().unwrap()))
            .collect(),
        SetType::BitmapPort { first, last } => [first, first + 1, last].map(Entry::Port).to_vec(),
    }
}

const TYPES: [SetType; 6] = [
    SetType::HashIp,
    SetType::HashIpPort,
    SetType::HashIpPortIp,
    SetType::HashIpPortNet,
    SetType::ALL_PORTS,
    SetType::BitmapPort {
        first: 30_000,
        last: 32_767,
    },
];

#[test]
fn sets_of_every_type_are_what_the_tool_sees() {
    for (set_type, family) in TYPES
        .into_iter()
        .flat_map(|set| Family::BOTH.map(|f| (set, f)))
    {
        in_own_network(move || {
            let spec = spec(set_type, family);
            let entries = examples(set_type, family);
            let mut ipset = Ipset::open().unwrap();
            assert!(ipset.ensure(NAME, &spec).unwrap());
            assert!(!ipset.ensure(NAME, &spec).unwrap());
            ipset.add(NAME, &entries).unwrap();
            ipset.add(NAME, &entries).unwrap(); // fine
            assert_eq!(members(NAME), shown(&entries), "{spec:?}");
            let read: BTreeSet<_> = ipset.entries(NAME).unwrap().into_iter().collect();
            assert_eq!(read, entries.iter().copied().collect(), "{spec:?}");

            let (gone, left) = entries.split_first().unwrap();
            assert!(ipset.contains(NAME, gone).unwrap());
            ipset.remove(NAME, &[*gone]).unwrap();
            ipset.remove(NAME, &[*gone]).unwrap(); // fine
            assert!(!ipset.contains(NAME, gone).unwrap(), "{gone}");
            assert_eq!(members(NAME), shown(left), "{spec:?}");

            ipset.replace(NAME, &spec, &entries[..2]).unwrap();
            assert_eq!(members(NAME), shown(&entries[..2]), "{spec:?}");
            let header = ipset.header(NAME).unwrap().unwrap();
            assert_eq!(header.set_type(), Some(set_type));
            assert_eq!(header.family, set_type.has_family().then_some(family));
            assert_eq!(run("ipset list -n").trim(), NAME);
        });
    }
}

#[test]
fn our_sets_are_created_as_the_tool_creates_them() {
    in_own_network(|| {
        let options = "hashsize 1024 maxelem 65536";
        let of_the_tool = [
            format!("hash:ip,port family inet {options}"),
            format!("hash:ip,port,ip family inet6 {options}"),
            format!("hash:ip,port,net family inet {options}"),
            "bitmap:port range 0-65535".to_owned(),
        ];
        let ours = [
            spec(SetType::HashIpPort, Family::V4),
            spec(SetType::HashIpPortIp, Family::V6),
            spec(SetType::HashIpPortNet, Family::V4),
            spec(SetType::ALL_PORTS, Family::V6),
        ];
        let mut ipset = Ipset::open().unwrap();
        for (theirs, ours) in of_the_tool.iter().zip(ours) {
            ipset.create("ours", &ours).unwrap();
            assert!(
                run("ipset save ours").starts_with(&format!("create ours {theirs}")),
                "{theirs}: {}",
                run("ipset save ours")
            );
            run(&format!("ipset create theirs {theirs}"));
            assert!(!ipset.ensure("theirs", &ours).unwrap());
            // Of the same type for the kernel too.
            ipset.swap("ours", "theirs").unwrap();
            ipset.destroy("ours").unwrap();
            ipset.destroy("theirs").unwrap();
        }
    });
}

#[test]
fn what_others_put_into_a_set_is_no_obstacle() {
    in_own_network(|| {
        run("ipset create theirs hash:ip,port,net counters comment timeout 600");
        for element in [
            "10.0.0.1,tcp:80,10.1.0.0/16 comment of-somebody timeout 300 packets 3",
            "10.0.0.2,icmp:echo-request,10.1.0.0/16",
            "10.0.0.3,udplite:80,10.1.0.0/16",
            "10.0.0.1,tcp:80,10.1.2.0/24 nomatch",
        ] {
            run(&format!("ipset add theirs {element}"));
        }
        let wanted = |net: &str| {
            let [tcp, ..] = ip_ports([10, 0, 0, 1].into());
            Entry::IpPortNet(tcp, net.parse().unwrap())
        };
        let mut ipset = Ipset::open().unwrap();
        let wide = wanted("10.1.0.0/16");
        assert_eq!(ipset.entries("theirs").unwrap(), [wide]);
        // A network that was not to match does when it is added.
        let narrow = wanted("10.1.2.0/24");
        ipset.add("theirs", &[narrow]).unwrap();
        let all: BTreeSet<_> = ipset.entries("theirs").unwrap().into_iter().collect();
        assert_eq!(all, BTreeSet::from([wide, narrow]));
        ipset.remove("theirs", &[wide, narrow]).unwrap();
        assert_eq!(ipset.entries("theirs").unwrap(), []);
    });
}

#[test]
fn rules_of_both_families_use_a_set_of_ports() {
    in_own_network(|| {
        let mut ipset = Ipset::open().unwrap();
        let ports = spec(SetType::ALL_PORTS, Family::V4);
        ipset.create(NAME, &ports).unwrap();
        for tool in ["iptables-nft", "ip6tables-nft"] {
            run(&format!(
                "{tool} -A INPUT -p tcp -m set --match-set {NAME} dst -j ACCEPT"
            ));
        }
        assert_eq!(ipset.header(NAME).unwrap().unwrap().references, 2);
    });
}

#[test]
fn a_range_of_ports_ends_where_it_ends_and_can_be_widened() {
    in_own_network(|| {
        let (first, last) = (30_000, 30_010);
        let narrow = spec(SetType::BitmapPort { first, last }, Family::V4);
        let mut ipset = Ipset::open().unwrap();
        ipset.create(NAME, &narrow).unwrap();
        ipset.add(NAME, &[Entry::Port(last)]).unwrap();
        let error = ipset.add(NAME, &[Entry::Port(last + 1)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the set {NAME} does not take the element 30011: it is outside of the set's range"
            )
        );
        let wide = spec(SetType::ALL_PORTS, Family::V4);
        assert!(!ipset.ensure(NAME, &wide).unwrap());
        ipset.add(NAME, &[Entry::Port(0)]).unwrap();
        assert_eq!(
            ipset.entries(NAME).unwrap(),
            [Entry::Port(0), Entry::Port(last)]
        );
        // A wider one is as good.
        assert!(!ipset.ensure(NAME, &narrow).unwrap());
        let header = ipset.header(NAME).unwrap().unwrap();
        assert_eq!(header.ports, Some((0, u16::MAX)));
    });
}

#[test]
fn seventy_thousand_ports_of_addresses_fit_into_a_set_that_grows_in_use() {
    in_own_network(|| {
        const COUNT: u16 = 35_000;
        let mut ipset = Ipset::open().unwrap();
        let mut spec = spec(SetType::HashIpPort, Family::V6);
        ipset.create(NAME, &spec).unwrap();
        run(&format!(
            "ip6tables-nft -A FORWARD -m set --match-set {NAME} dst,dst -j ACCEPT"
        ));
        let entries: Vec<_> = (1..=COUNT)
            .flat_map(|n| ip_ports(address(Family::V6, n)).into_iter().take(2))
            .map(Entry::IpPort)
            .collect();
        let (first, second) = entries.split_at(50_000);
        assert!(!ipset.make_room(NAME, &mut spec, first.len()).unwrap());
        ipset.add(NAME, first).unwrap();
        assert!(matches!(
            ipset.add(NAME, second),
            Err(IpsetError::Full { name, .. }) if name == NAME
        ));
        assert!(ipset.make_room(NAME, &mut spec, entries.len()).unwrap());
        assert_eq!(spec.max_elements, 140_000);
        ipset.add(NAME, second).unwrap();
        let header = ipset.header(NAME).unwrap().unwrap();
        assert_eq!((header.max_elements, header.references), (140_000, 1));
        let listed: BTreeSet<_> = ipset.entries(NAME).unwrap().into_iter().collect();
        assert_eq!(listed, entries.iter().copied().collect());
        assert_eq!(run("ipset list -n").trim(), NAME);
    });
}

#[test]
fn the_largest_messages_may_all_be_refused_at_once() {
    in_own_network(|| {
        let mut ipset = Ipset::open().unwrap();
        let v6 = spec(SetType::HashIpPortNet, Family::V6);
        ipset.create(NAME, &v6).unwrap();
        let [tcp, ..] = ip_ports(address(Family::V6, 1));
        let count = u16::try_from(ENTRIES_PER_MESSAGE_MAX * MESSAGES_PER_SEND_MAX).unwrap();
        let mut entries: Vec<_> = (0..count)
            .map(|port| Entry::IpPortNet(IpPort { port, ..tcp }, "fd00::/16".parse().unwrap()))
            .collect();
        // Each message's first element has a network that the kernel does not take.
        for first in entries.iter_mut().step_by(ENTRIES_PER_MESSAGE_MAX) {
            if let Entry::IpPortNet(_, net) = first {
                *net = "::/0".parse().unwrap();
            }
        }
        let error = ipset.add(NAME, &entries).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the set {NAME} does not take the element fd00::1,tcp:0,::/0: the kernel takes \
                 no network with a prefix of 0 bits"
            )
        );
        assert_eq!(members(NAME), BTreeSet::new());
        // The socket is as good as before.
        ipset.add(NAME, &entries[1..2]).unwrap();
        assert_eq!(members(NAME), shown(&entries[1..2]));
    });
}

#[test]
fn all_sets_are_listed_with_types_of_others() {
    in_own_network(|| {
        let mut ipset = Ipset::open().unwrap();
        assert_eq!(ipset.headers().unwrap(), []);
        run("ipset create nets hash:net");
        run("ipset create list list:set");
        run("ipset create ips bitmap:ip range 10.0.0.0/24");
        ipset.create(NAME, &spec(TYPES[5], Family::V4)).unwrap();
        let mut found: Vec<_> = ipset
            .headers()
            .unwrap()
            .into_iter()
            .map(|header| (header.name.clone(), header.set_type()))
            .collect();
        found.sort_by(|left, right| left.0.cmp(&right.0));
        let expected = [
            (NAME, Some(TYPES[5])),
            ("ips", None),
            ("list", None),
            ("nets", None),
        ];
        assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
    });
}
