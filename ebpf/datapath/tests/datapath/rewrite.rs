//! Changed packets: right from scratch, and otherwise the same.

use std::net::IpAddr;

use proptest::prelude::*;
use switchyard_datapath::layout::{Address, Hook, SCTP, TCP, UDP};
use switchyard_datapath::parse::{Fragment, IPV4, IPV6, Parsed, parse};
use switchyard_datapath::rewrite::{Ends, Target, rewrite};
use switchyard_datapath::table::Bytes;

use crate::packets::{Build, Read, finish, join, pseudo_sum, verify, verify_ip};

/// One end of a packet: an address of both families, and a port.
#[derive(Clone, Copy, Debug)]
struct End {
    v4: [u8; 4],
    v6: [u8; 16],
    port: u16,
}

fn end() -> impl Strategy<Value = End> {
    // All ones and all zeros are where sums wrap.
    let port = prop_oneof![4 => any::<u16>(), 1 => Just(0), 1 => Just(0xffff)];
    let fill = prop::sample::select(vec![None, None, Some(0), Some(0xff)]);
    (any::<[u8; 16]>(), 0_usize..16, fill, port).prop_map(|(mut v6, from, fill, port)| {
        if let Some(fill) = fill {
            v6[from..].fill(fill);
        }
        v6[0] = 0xfd; // no mapped address
        let [.., a, b, c, d] = v6;
        let v4 = [a, b, c, d];
        End { v4, v6, port }
    })
}

impl End {
    fn at(self, v4: bool) -> (IpAddr, u16) {
        let address = if v4 {
            IpAddr::from(self.v4)
        } else {
            IpAddr::from(self.v6)
        };
        (address, self.port)
    }
}

prop_compose! {
    fn packet()(
        ends in (end(), end()),
        protocol in prop::sample::select(vec![TCP, UDP]),
        v4: bool,
        options in 0_usize..=10,
        extensions in prop::collection::vec((prop::sample::select(vec![0_u8, 43, 60]), 1_u8..4), 0..=5),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        has_checksum: bool,
    ) -> Build {
        let mut build = Build::new(ends.0.at(v4), ends.1.at(v4), protocol);
        build.options = options;
        build.extensions = extensions;
        build.payload = payload;
        build.has_checksum = has_checksum || !v4;
        build
    }
}

fn target((address, port): (IpAddr, u16)) -> Target {
    Target {
        address: Address::from(address),
        port: port.to_be(),
    }
}

/// Rewrites one end; `None` if that can't be.
fn changed(bytes: &[u8], hook: Hook, to: (IpAddr, u16)) -> Option<Vec<u8>> {
    let mut packet = Bytes::plain(bytes.to_vec());
    changed_in_place(&mut packet, hook, to).then_some(packet.bytes)
}

fn changed_in_place(packet: &mut Bytes, hook: Hook, to: (IpAddr, u16)) -> bool {
    let mut parsed = Parsed::default();
    parse(packet, packet.ip, packet.ethertype, &mut parsed).unwrap();
    if parsed.fragment == Fragment::Later {
        // As the data path finds them.
        parsed.source_port = 1;
        parsed.destination_port = 2;
    }
    let to = target(to);
    let mut old = Ends::default();
    old.set(&parsed);
    let mut new = old;
    match hook {
        Hook::Ingress => new.destination = to,
        Hook::Egress => new.source = to,
    }
    rewrite(packet, &parsed, &old, &new, false)
}

/// Where the packet's checksums stand.
fn checksums(bytes: &[u8]) -> Vec<usize> {
    let read = Read::of(bytes);
    let transport = match read.protocol {
        TCP => Some(16),
        UDP => Some(6),
        _ => None,
    };
    let mut all: Vec<usize> = transport
        .map(|at| read.transport + at)
        .into_iter()
        .collect();
    if read.source.0.is_ipv4() {
        all.push(10);
    }
    all
}

/// Compares all but checksums, of which zero has two forms.
fn assert_same(one: &[u8], two: &[u8]) {
    let (mut one, mut two) = (one.to_vec(), two.to_vec());
    for at in checksums(&one) {
        for bytes in [&mut one, &mut two] {
            if bytes[at..at + 2] == [0xff, 0xff] {
                bytes[at..at + 2].fill(0);
            }
        }
    }
    assert_eq!(one, two);
}

const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

fn replaced(build: &Build, hook: Hook, to: (IpAddr, u16)) -> Build {
    let mut build = build.clone();
    match hook {
        Hook::Ingress => build.destination = to,
        Hook::Egress => build.source = to,
    }
    build
}

proptest! {
    #[test]
    fn a_changed_packet_is_as_one_that_was_built_so(build in packet(), to in end()) {
        for hook in HOOKS {
            let before = build.whole();
            let is_v4 = build.source.0.is_ipv4();
            let to = to.at(is_v4);
            let after = changed(&before, hook, to).unwrap();
            verify(&after);
            assert_same(&after, &replaced(&build, hook, to).whole());
            if build.protocol == UDP {
                let at = Read::of(&after).transport + 6;
                let had = build.has_checksum;
                prop_assert_eq!(after[at..at + 2] != [0, 0], had, "a checksum stays one");
            }
            // The reply: the same change the other way round at the other end.
            let old = match hook {
                Hook::Ingress => build.destination,
                Hook::Egress => build.source,
            };
            let back = changed(&after, hook, old).unwrap();
            assert_same(&back, &before);
            verify(&back);
        }
    }

    /// Both ends at once, and a hop further: what is sent on past the stack.
    #[test]
    fn both_ends_and_a_hop_are_right_too(build in packet(), ends in (end(), end()), hops in 2_u8..) {
        let is_v4 = build.source.0.is_ipv4();
        let (source, destination) = (ends.0.at(is_v4), ends.1.at(is_v4));
        let mut build = build;
        build.hops = hops;
        let mut packet = Bytes::plain(build.whole());
        let mut parsed = Parsed::default();
        parse(&packet, packet.ip, packet.ethertype, &mut parsed).unwrap();
        let (mut old, mut new) = (Ends::default(), Ends::default());
        old.set(&parsed);
        prop_assert_eq!(old.source, target(build.source));
        new.source = target(source);
        new.destination = target(destination);
        prop_assert!(rewrite(&mut packet, &parsed, &old, &new, true));
        verify(&packet.bytes);
        let mut expected = build;
        (expected.source, expected.destination) = (source, destination);
        expected.hops -= 1;
        assert_same(&packet.bytes, &expected.whole());
    }

    #[test]
    fn parts_are_right_together(build in packet(), to in end()) {
        for hook in HOOKS {
            let mut build = build.clone();
            build.payload.resize(40, 5);
            build.extensions.truncate(3);
            let to = to.at(build.source.0.is_ipv4());
            let parts = build.parts(77).map(|part| {
                let after = changed(&part, hook, to).unwrap();
                verify_ip(&after);
                assert_eq!(after.len(), part.len());
                after
            });
            let whole = join(&parts);
            verify(&whole);
            let mut expected = replaced(&build, hook, to);
            (expected.options, expected.extensions) = (0, Vec::new());
            assert_same(&whole, &expected.whole());
        }
    }

    /// Packets of the node itself leave their checksum to the device.
    #[test]
    fn what_the_device_sums_up_is_right_too(build in packet(), to in end()) {
        let mut build = build;
        build.has_checksum = true;
        for hook in HOOKS {
            let to = to.at(build.source.0.is_ipv4());
            let mut bytes = build.whole();
            let at = checksums(&bytes)[0];
            let sum = pseudo_sum(&bytes);
            prop_assume!(sum != 0);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            let mut packet = Bytes::plain(bytes);
            packet.is_partial = true;
            prop_assert!(changed_in_place(&mut packet, hook, to));
            let sum = u16::from_be_bytes([packet.bytes[at], packet.bytes[at + 1]]);
            prop_assert_eq!(sum, pseudo_sum(&packet.bytes));
            finish(&mut packet.bytes);
            verify(&packet.bytes);
        }
    }

    #[test]
    fn under_an_ethernet_header_it_is_the_same(build in packet(), to in end()) {
        let is_v4 = build.source.0.is_ipv4();
        let to = to.at(is_v4);
        let plain = build.whole();
        let mut header = vec![2; 12];
        header.extend(if is_v4 { IPV4 } else { IPV6 }.to_be_bytes());
        let mut packet = Bytes::ethernet([header.clone(), plain.clone()].concat());
        prop_assert!(changed_in_place(&mut packet, Hook::Ingress, to));
        let expected = changed(&plain, Hook::Ingress, to).unwrap();
        prop_assert_eq!(packet.bytes, [header, expected].concat());
    }

    /// SCTP's checksum does not cover addresses, and its ports can't change.
    #[test]
    fn sctp_keeps_its_port_or_is_not_changed(build in packet(), to in end()) {
        let mut build = build;
        build.protocol = SCTP;
        for hook in HOOKS {
            let (address, port) = to.at(build.source.0.is_ipv4());
            let old = match hook {
                Hook::Ingress => build.destination.1,
                Hook::Egress => build.source.1,
            };
            let after = changed(&build.whole(), hook, (address, old)).unwrap();
            verify_ip(&after);
            assert_same(&after, &replaced(&build, hook, (address, old)).whole());
            prop_assert_eq!(changed(&build.whole(), hook, (address, port)).is_some(), port == old);
        }
    }

    /// A packet that ends before its checksum can't be changed.
    #[test]
    fn what_is_cut_off_before_its_checksum_is_not_changed(build in packet(), to in end()) {
        let to = to.at(build.source.0.is_ipv4());
        let whole = build.whole();
        let read = Read::of(&whole);
        let checksum = read.transport + if build.protocol == TCP { 16 } else { 6 };
        prop_assume!(to != read.destination);
        let start = read.transport + if build.protocol == TCP { 14 } else { 4 };
        for length in start..checksum + 2 {
            let mut packet = Bytes::plain(whole[..length].to_vec());
            prop_assert!(!changed_in_place(&mut packet, Hook::Ingress, to));
            prop_assert_eq!(&packet.bytes, &whole[..length]);
        }
    }
}
