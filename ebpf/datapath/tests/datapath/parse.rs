//! What packets are taken for, above all odd ones.

use proptest::prelude::*;
use switchyard_datapath::layout::{Address, Hook, SCTP, TCP, UDP};
use switchyard_datapath::parse::{Fragment, IPV4, IPV6, Parsed, parse, parse_quoted};
use switchyard_datapath::table::Bytes;

use crate::packets::{ACK, Build, FIN, RST, Read, SYN};
use crate::world::{FAMILIES, Family, PODS, UPLINK, World};

fn parsed(bytes: &[u8]) -> Option<Parsed> {
    let packet = Bytes::plain(bytes.to_vec());
    let mut parsed = garbage();
    parse(&packet, 0, packet.ethertype, &mut parsed).map(|()| parsed)
}

/// What an earlier packet left behind.
fn garbage() -> Parsed {
    Parsed {
        ip: 9,
        transport: 9,
        source: Address([9; 4]),
        destination: Address([9; 4]),
        source_port: 9,
        destination_port: 9,
        protocol: 9,
        tcp_flags: 9,
        hops: 9,
        ip_checksum: 9,
        tcp_bytes: 9,
        traffic: 9,
        fragment: Fragment::Later,
        id: 9,
    }
}

fn build(family: Family, protocol: u8) -> Build {
    Build::new((family.outside(), 5000), (family.vip(), 80), protocol)
}

fn check(build: &Build) {
    let bytes = build.whole();
    let (read, parsed) = (Read::of(&bytes), parsed(&bytes).unwrap());
    assert_eq!(usize::try_from(parsed.transport).unwrap(), read.transport);
    assert_eq!(parsed.source, Address::from(read.source.0));
    assert_eq!(parsed.destination, Address::from(read.destination.0));
    assert_eq!(u16::from_be(parsed.source_port), read.source.1);
    assert_eq!(u16::from_be(parsed.destination_port), read.destination.1);
    assert_eq!(parsed.protocol, build.protocol);
    assert_eq!(parsed.hops, build.hops);
    let tcp_bytes = if build.protocol == TCP { 20 } else { 0 };
    assert_eq!(parsed.tcp_bytes, tcp_bytes);
    let is_plain = build.options == 0 && build.extensions.is_empty();
    assert_eq!(parsed.is_plain(), is_plain);
    assert_eq!(parsed.fragment, Fragment::Whole);
    let flags = if build.protocol == TCP {
        build.tcp_flags
    } else {
        0
    };
    assert_eq!(parsed.tcp_flags, flags);
    assert_eq!(parsed.is_v4(), read.source.0.is_ipv4());
    assert_eq!(parsed.has_ports(), build.protocol != 47);
    assert!(!parsed.is_icmp());
}

#[test]
fn packets_are_what_they_are() {
    for family in FAMILIES {
        for protocol in [TCP, UDP, SCTP, 47] {
            for tcp_flags in [0, SYN, SYN | ACK, ACK, FIN | ACK, RST] {
                for length in 0..=10 {
                    let mut build = build(family, protocol);
                    build.tcp_flags = tcp_flags;
                    build.options = length;
                    let kinds = [0, 43, 60, 60, 0, 43];
                    let kinds = kinds.iter().take(length.min(6));
                    build.extensions = kinds.map(|kind| (*kind, 1 + kind % 5)).collect();
                    check(&build);
                }
            }
        }
    }
}

#[test]
fn six_extension_headers_are_stepped_over_and_no_more() {
    for count in 0..12 {
        let mut build = build(Family::V6, UDP);
        build.extensions = vec![(60, 1); count];
        assert_eq!(parsed(&build.whole()).is_some(), count <= 6, "{count}");
    }
    // The longest ones, and one that ends behind the packet.
    let mut build = build(Family::V6, UDP);
    build.extensions = vec![(60, 255); 6];
    check(&build);
    let mut bytes = build.whole();
    bytes[41] = 255;
    assert!(parsed(&bytes).is_some() || parsed(&bytes).is_none());
    bytes.truncate(100);
    assert_eq!(parsed(&bytes), None);
}

#[test]
fn tcp_flags_by_name() {
    for (flags, syn, fin, rst) in [
        (SYN, true, false, false),
        (SYN | ACK, false, false, false),
        (FIN | ACK, false, true, false),
        (RST, false, false, true),
        (RST | ACK, false, false, true),
        (0, false, false, false),
    ] {
        let mut build = build(Family::V4, TCP);
        build.tcp_flags = flags;
        let parsed = parsed(&build.whole()).unwrap();
        assert_eq!(
            (parsed.is_syn(), parsed.is_fin(), parsed.is_rst()),
            (syn, fin, rst)
        );
    }
}

#[test]
fn parts_are_told_from_wholes() {
    for family in FAMILIES {
        let mut build = build(family, UDP);
        build.payload = vec![0; 100];
        build.options = 2;
        build.extensions = vec![(0, 1)];
        let [first, later] = build.parts(0x1234).map(|part| parsed(&part).unwrap());
        assert_eq!(
            (first.fragment, later.fragment),
            (Fragment::First, Fragment::Later)
        );
        assert_eq!(first.id, later.id);
        assert_ne!(first.id, 0);
        assert_eq!(u16::from_be(first.source_port), 5000);
        assert_eq!((later.source_port, later.destination_port), (0, 0));
        assert_eq!((first.protocol, later.protocol), (UDP, UDP));
    }
    // A fragment header that is about no fragment ("atomic", RFC 6946).
    let mut build = build(Family::V6, UDP);
    build.extensions = vec![(44, 1)];
    let parsed = parsed(&build.whole()).unwrap();
    assert_eq!(parsed.fragment, Fragment::Whole);
    assert_eq!(u16::from_be(parsed.destination_port), 80);
}

/// Cut at any length: none, or what the whole is; and the programs leave it alone or lose it.
#[test]
fn cut_off_packets_are_left_alone() {
    for family in FAMILIES {
        for (protocol, needs) in [(TCP, 14), (UDP, 4), (SCTP, 4), (47, 0)] {
            let world = World::with_endpoints(family, protocol);
            let mut build = build(family, protocol);
            build.options = 4;
            build.extensions = vec![(0, 1), (60, 3)];
            let whole = build.whole();
            let complete = Read::of(&whole).transport;
            let checksum = match protocol {
                TCP => 18,
                UDP => 8,
                _ => needs,
            };
            // Of options, and of extension headers but their first two bytes, nothing is read.
            let header = match (protocol, family) {
                (47, Family::V4) => 20,
                (47, Family::V6) => 50,
                _ => complete,
            };
            for length in 0..whole.len() {
                let cut = &whole[..length];
                let expected = (length >= header + needs).then(|| parsed(&whole).unwrap());
                assert_eq!(
                    parsed(cut),
                    expected,
                    "{family:?} {protocol} cut at {length}"
                );
                let mut packet = Bytes::plain(cut.to_vec());
                packet.ethertype = if family == Family::V4 { IPV4 } else { IPV6 };
                let goes_on = world.table.meet(&mut packet, Hook::Ingress, PODS);
                if length < complete + checksum {
                    assert_eq!(packet.bytes, cut);
                    assert_eq!(goes_on, length < header + needs || protocol == 47);
                }
            }
        }
    }
}

#[test]
fn versions_and_lengths_that_cannot_be() {
    let good = build(Family::V4, UDP).whole();
    for first in 0..=255_u8 {
        let mut bytes = good.clone();
        bytes[0] = first;
        let mut packet = Bytes::plain(bytes);
        packet.ethertype = IPV4;
        let result = parse(&packet, 0, IPV4, &mut garbage());
        let is_good = first >> 4 == 4 && first & 15 >= 5 && first & 15 <= 7;
        assert_eq!(result.is_some(), is_good, "{first:#x}");
    }
    let good = build(Family::V6, UDP).whole();
    for first in 0..=255_u8 {
        let mut bytes = good.clone();
        bytes[0] = first;
        let result = parse(&Bytes::plain(bytes), 0, IPV6, &mut garbage());
        assert_eq!(result.is_some(), first >> 4 == 6, "{first:#x}");
    }
    for ethertype in [0, 0x0806, 0x8100, u16::MAX] {
        let packet = Bytes::plain(good.clone());
        assert_eq!(parse(&packet, 0, ethertype, &mut garbage()), None);
    }
}

/// A mapped address on the wire would be taken for IPv4.
#[test]
fn mapped_addresses_are_not_ours() {
    let mapped = "::ffff:10.96.0.10".parse().unwrap();
    let other = "fd00::1".parse().unwrap();
    for (source, destination) in [(mapped, other), (other, mapped), (mapped, mapped)] {
        let build = Build::new((source, 1), (destination, 80), UDP);
        assert_eq!(parsed(&build.whole()), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever comes: no panic, and what can't be read is not changed.
    #[test]
    fn random_bytes_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        v4: bool,
        looks_right: bool,
        to_vip: bool,
        egress: bool,
    ) {
        let family = if v4 { Family::V4 } else { Family::V6 };
        if let (Some(first), true) = (bytes.first_mut(), looks_right) {
            *first = if v4 { 0x45 } else { 0x60 };
        }
        if let (true, std::net::IpAddr::V4(vip)) = (to_vip && bytes.len() >= 20, family.vip()) {
            bytes[16..20].copy_from_slice(&vip.octets());
        }
        if let (true, std::net::IpAddr::V6(vip)) = (to_vip && bytes.len() >= 40, family.vip()) {
            bytes[24..40].copy_from_slice(&vip.octets());
        }
        let world = World::with_endpoints(family, TCP);
        let ethertype = if v4 { IPV4 } else { IPV6 };
        for start in [0, 14, 100, u32::MAX - 20] {
            let packet = Bytes::plain(bytes.clone());
            if start < 1000 {
                let _ = parse(&packet, start, ethertype, &mut garbage());
                let _ = parse_quoted(&packet, start, ethertype, &mut garbage());
            }
        }
        let mut packet = Bytes::plain(bytes.clone());
        packet.ethertype = ethertype;
        let hook = if egress { Hook::Egress } else { Hook::Ingress };
        world.table.meet(&mut packet, hook, UPLINK);
        prop_assert_eq!(packet.bytes.len(), bytes.len());
        if egress || !to_vip {
            prop_assert_eq!(packet.bytes, bytes);
        }
    }

    /// A valid packet with any one byte changed.
    #[test]
    fn a_wrong_byte_does_no_harm(at in 0_usize..80, to: u8, v4: bool, tcp: bool, hook_in: bool) {
        let family = if v4 { Family::V4 } else { Family::V6 };
        let protocol = if tcp { TCP } else { UDP };
        let world = World::with_endpoints(family, protocol);
        let mut build = build(family, protocol);
        build.extensions = vec![(0, 1), (60, 1)];
        let mut bytes = build.whole();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        let mut packet = Bytes::plain(bytes.clone());
        packet.ethertype = if v4 { IPV4 } else { IPV6 };
        let hook = if hook_in { Hook::Ingress } else { Hook::Egress };
        world.table.meet(&mut packet, hook, UPLINK);
        prop_assert_eq!(packet.bytes.len(), bytes.len());
    }
}
