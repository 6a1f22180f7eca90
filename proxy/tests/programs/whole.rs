//! Whole packets of flows, both ways.

use std::net::IpAddr;

use switchyard_datapath::layout::{Endpoint, Hook, SCTP, TCP, UDP, flow_flags};
use switchyard_datapath::table::Block;

use crate::packets::{ACK, Build, FIN, Read, SYN, verify};
use crate::pair::{Link, Pair, tuple};
use crate::world::{FAMILIES, Family, OTHER, Tuple, WEB, World};

/// A port that is in the ranges of masquerading: it is kept.
const PORT: u16 = 20_000;

/// One endpoint for each Service: what is chosen by chance is always the same.
pub(crate) fn world(family: Family, protocol: u8) -> World {
    let mut world = World::new(family, protocol);
    world.offer(WEB, &[1]);
    world.offer(OTHER, &[2]);
    world
}

/// As it would have been built.
fn assert_is(packet: Option<Vec<u8>>, build: &Build, expected: Tuple) -> Vec<u8> {
    let packet = packet.unwrap();
    let mut build = build.clone();
    (build.source, build.destination) = (expected.source, expected.destination);
    verify(&packet);
    assert_eq!(packet, build.whole(), "{expected:?}");
    packet
}

/// What packets there are of a protocol.
fn kinds(tuple: Tuple, protocol: u8) -> Vec<Build> {
    let plain = Build::new(tuple.source, tuple.destination, protocol);
    let mut kinds = vec![plain.clone()];
    for options in [1, 10] {
        kinds.push(Build {
            options,
            ..plain.clone()
        });
    }
    for extensions in [
        vec![(0, 1)],
        vec![(60, 2)],
        vec![(0, 2), (60, 1), (43, 3), (60, 1)],
    ] {
        kinds.push(Build {
            extensions,
            ..plain.clone()
        });
    }
    for payload in [Vec::new(), vec![0xff; 1200], vec![1, 2, 3]] {
        kinds.push(Build {
            payload,
            ..plain.clone()
        });
    }
    if protocol == UDP && tuple.source.0.is_ipv4() {
        kinds.push(Build {
            has_checksum: false,
            ..plain
        });
    }
    kinds
}

/// The client's packets to `vip` come to the endpoint from `seen`, and its answers come back.
fn goes_both_ways(pair: &mut Pair, sent: Tuple, out: Tuple) {
    let protocol = pair.world.protocol;
    let routed = Tuple::new(sent.source, out.destination);
    for tcp_flags in [SYN, ACK, ACK | FIN] {
        for mut build in kinds(sent, protocol) {
            build.tcp_flags = tcp_flags;
            let packet = assert_is(pair.meet(Hook::Ingress, &build.whole()), &build, routed);
            assert_is(pair.meet(Hook::Egress, &packet), &build, out);
        }
        for mut build in kinds(out.reversed(), protocol) {
            build.tcp_flags = tcp_flags | ACK;
            let packet = pair.meet(Hook::Ingress, &build.whole());
            let packet = assert_is(packet, &build, routed.reversed());
            assert_is(pair.meet(Hook::Egress, &packet), &build, sent.reversed());
        }
    }
    pair.assert_same_flows();
}

#[test]
fn a_masqueraded_flow() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let mut pair = Pair::new(world(family, protocol), Link::Ethernet);
            for (to, port) in [
                (family.vip(), 80),
                (family.balancer(), 80),
                (family.node(), 30_080),
            ] {
                // One client for each, so that each is a flow of its own.
                let client = PORT + port % 7 + u16::from(to == family.balancer());
                let sent = Tuple::new((family.outside(), client), (to, port));
                let out = Tuple::new((family.node(), client), (family.endpoint(1), 8080));
                goes_both_ways(&mut pair, sent, out);
            }
        }
    }
}

#[test]
fn a_flow_of_a_pod_keeps_its_source() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let mut pair = Pair::new(world(family, protocol), Link::Ethernet);
            let sent = Tuple::new((family.pod(), PORT), (family.vip(), 80));
            let out = Tuple::new(sent.source, (family.endpoint(1), 8080));
            goes_both_ways(&mut pair, sent, out);
            // To itself, which is masqueraded.
            let sent = Tuple::new((family.endpoint(2), PORT), (family.other_vip(), 80));
            let out = Tuple::new((family.node(), PORT), (family.endpoint(2), 8080));
            goes_both_ways(&mut pair, sent, out);
        }
    }
}

#[test]
fn on_devices_without_an_ethernet_header() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let (client, endpoint): (IpAddr, IpAddr) = match family {
                Family::V4 => ([8, 0, 0, 9].into(), [8, 0, 1, 1].into()),
                Family::V6 => (
                    [0x2001, 0xdb8, 0x86dd, 0, 0, 0, 0, 9].into(),
                    [0x2001, 0xdb8, 0x86dd, 0, 0, 0, 1, 1].into(),
                ),
            };
            let mut world = world(family, protocol);
            let block = Block {
                cluster: vec![Endpoint::new(endpoint.into(), 8080_u16.to_be())],
                ..Block::default()
            };
            world.table.write_block(WEB, &block);
            let mut pair = Pair::new(world, Link::Plain);
            let sent = (client, PORT);
            let build = Build {
                tcp_flags: SYN,
                ..Build::new(sent, (family.vip(), 80), protocol)
            };
            let routed = Tuple::new(sent, (endpoint, 8080));
            let packet = assert_is(pair.meet(Hook::Ingress, &build.whole()), &build, routed);
            let out = Tuple::new((family.node(), PORT), (endpoint, 8080));
            assert_is(pair.meet(Hook::Egress, &packet), &build, out);
            let reply = Build {
                tcp_flags: SYN | ACK,
                ..Build::new((endpoint, 8080), (family.node(), PORT), protocol)
            };
            let packet = pair.meet(Hook::Ingress, &reply.whole());
            let packet = assert_is(packet, &reply, routed.reversed());
            let back = Tuple::new((family.vip(), 80), sent);
            assert_is(pair.meet(Hook::Egress, &packet), &reply, back);
            pair.assert_same_flows();
        }
    }
}

/// To a port of the node where nobody listens; what the node answers comes from the VIP.
#[test]
fn what_is_refused() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let mut pair = Pair::new(World::new(family, protocol), Link::Ethernet);
            for port in [80, 81] {
                let sent = Tuple::new((family.outside(), PORT), (family.vip(), port));
                for mut build in kinds(sent, protocol) {
                    build.tcp_flags = SYN;
                    let nobody = Tuple::new(sent.source, (family.node(), 0));
                    assert_is(pair.meet(Hook::Ingress, &build.whole()), &build, nobody);
                    let mut answer = Build::new((family.node(), 0), sent.source, protocol);
                    answer.tcp_flags = ACK;
                    let packet = pair.meet(Hook::Egress, &answer.whole());
                    assert_is(packet, &answer, sent.reversed());
                }
            }
            let flows = pair.world.entries(flow_flags::REFUSED);
            assert!(!flows.is_empty(), "nothing was refused");
            pair.assert_same_flows();
        }
    }
}

/// SCTP's checksum can't follow a port, so it only goes to the same one.
#[test]
fn sctp() {
    for family in FAMILIES {
        let mut world = world(family, SCTP);
        let mut pair_with = |port: u16| {
            let block = Block {
                cluster: vec![Endpoint::new(family.endpoint(1).into(), port.to_be())],
                ..Block::default()
            };
            world.table.write_block(WEB, &block);
            let build = Build::new((family.outside(), PORT), (family.vip(), 80), SCTP);
            let mut pair = Pair::new(
                std::mem::replace(&mut world, self::world(family, SCTP)),
                Link::Ethernet,
            );
            pair.through(&build.whole())
        };
        let out = pair_with(80).unwrap();
        let expected = Tuple::new((family.node(), PORT), (family.endpoint(1), 80));
        assert_eq!(tuple(&out), expected);
        let build = Build::new(expected.source, expected.destination, SCTP);
        assert_eq!(out, build.whole());
        assert_eq!(pair_with(8080), None);
        assert_eq!(Read::of(&out).protocol, SCTP);
    }
}
