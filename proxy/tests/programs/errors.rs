//! ICMP errors about translated packets, outside and in what they quote.

use std::net::IpAddr;

use switchyard_datapath::layout::{Hook, TCP, UDP};

use crate::packets::{Build, Read, SYN, icmp_error, verify, verify_ip};
use crate::pair::{Link, Pair, tuple};
use crate::whole::world;
use crate::world::{FAMILIES, Family, Tuple, World};

/// A port that is in the ranges of masquerading: it is kept.
const PORT: u16 = 20_020;
/// Bytes of an ICMP header before what it quotes.
const HEADER: usize = 8;

/// A router on the way.
fn router(family: Family) -> IpAddr {
    match family {
        Family::V4 => [172, 16, 0, 1].into(),
        Family::V6 => [0xfd00, 0x16, 0, 0, 0, 0, 0, 1].into(),
    }
}

fn kinds(family: Family) -> &'static [u8] {
    match family {
        Family::V4 => &[3, 11, 12],
        Family::V6 => &[1, 2, 3, 4],
    }
}

/// Quotes of a packet: all of it, its start; with longer headers.
fn quotes(about: Tuple, protocol: u8) -> Vec<Vec<u8>> {
    let mut quotes = Vec::new();
    for long_headers in [false, true] {
        let mut build = Build::new(about.source, about.destination, protocol);
        if long_headers {
            build.options = 3;
            build.extensions = vec![(0, 1), (60, 2)];
        }
        let whole = build.whole();
        let start = whole[..Read::of(&whole).transport + 8].to_vec();
        quotes.extend([whole, start]);
    }
    quotes
}

/// Checks all sums an error has, and says its addresses and what it is about.
fn read(error: &[u8]) -> (IpAddr, IpAddr, Tuple) {
    verify(error);
    let outer = Read::of(error);
    let quote = &error[outer.transport + HEADER..];
    verify_ip(quote);
    (outer.source.0, outer.destination.0, tuple(quote))
}

/// Where an error may differ from what came in: its addresses, sums, and the quoted end.
fn masked(error: &[u8]) -> Vec<u8> {
    let mut error = error.to_vec();
    let outer = Read::of(&error).transport;
    let quote = outer + HEADER;
    let ports = quote + Read::of(&error[quote..]).transport;
    let is_v4 = error[0] >> 4 == 4;
    for ip in [0, quote] {
        let fields = if is_v4 { 10..20 } else { 8..40 };
        error[ip + fields.start..ip + fields.end].fill(0);
        if is_v4 {
            error[ip + 10..ip + 12].fill(0);
        }
    }
    error[outer + 2..outer + 4].fill(0);
    error[ports..ports + 4].fill(0);
    error
}

struct Flow {
    pair: Pair,
    sent: Tuple,
    out: Tuple,
}

impl Flow {
    fn open(family: Family, protocol: u8, from: IpAddr, seen: IpAddr) -> Self {
        let mut pair = Pair::new(world(family, protocol), Link::Ethernet);
        let sent = Tuple::new((from, PORT), (family.vip(), 80));
        let mut build = Build::new(sent.source, sent.destination, protocol);
        build.tcp_flags = SYN;
        let out = tuple(&pair.through(&build.whole()).unwrap());
        assert_eq!(out, Tuple::new((seen, PORT), (family.endpoint(1), 8080)));
        Self { pair, sent, out }
    }

    /// Errors of all kinds from a router about a packet, through the node.
    fn errors(&mut self, about: Tuple, source: IpAddr, destination: IpAddr, becomes: Tuple) {
        let (family, protocol) = (self.pair.world.family, self.pair.world.protocol);
        for kind in kinds(family) {
            for quote in quotes(about, protocol) {
                let error = icmp_error(router(family), about.source.0, *kind, &quote);
                let out = self.pair.through(&error).unwrap();
                assert_eq!(read(&out), (source, destination, becomes));
                assert_eq!(masked(&out), masked(&error));
            }
        }
    }
}

#[test]
fn about_a_masqueraded_flow() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let mut flow = Flow::open(family, protocol, family.outside(), family.node());
            let (sent, out) = (flow.sent, flow.out);
            flow.errors(out, family.vip(), family.outside(), sent);
            flow.errors(
                sent.reversed(),
                family.node(),
                family.endpoint(1),
                out.reversed(),
            );
            flow.pair.assert_same_flows();
        }
    }
}

#[test]
fn about_a_pods_flow() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let mut flow = Flow::open(family, protocol, family.pod(), family.pod());
            let (sent, out) = (flow.sent, flow.out);
            flow.errors(out, family.vip(), family.pod(), sent);
            // To the VIP, about what came from it.
            flow.errors(
                sent.reversed(),
                router(family),
                family.endpoint(1),
                out.reversed(),
            );
        }
    }
}

/// The node's own "port unreachable", by which it refuses.
#[test]
fn that_refuse() {
    for family in FAMILIES {
        let mut pair = Pair::new(World::new(family, UDP), Link::Ethernet);
        let sent = Tuple::new((family.outside(), PORT), (family.vip(), 80));
        let build = Build::new(sent.source, sent.destination, UDP);
        let refused = pair.meet(Hook::Ingress, &build.whole()).unwrap();
        let kind = kinds(family)[0];
        let error = icmp_error(family.node(), family.outside(), kind, &refused);
        let out = pair.meet(Hook::Egress, &error).unwrap();
        assert_eq!(read(&out), (family.vip(), family.outside(), sent));
    }
}

/// Quotes too short, of nothing of ours, or of no ports, and errors that are cut off.
#[test]
fn about_anything_else_are_left_alone() {
    for family in FAMILIES {
        let mut flow = Flow::open(family, UDP, family.outside(), family.node());
        let past = Tuple::new((family.node(), 5000), (family.outside(), 53));
        let ours = flow.out;
        for kind in kinds(family) {
            let error = |quote: &[u8]| icmp_error(router(family), family.node(), *kind, quote);
            for quote in quotes(past, UDP) {
                flow.pair.leaves_alone(&error(&quote));
            }
            let whole = Build::new(ours.source, ours.destination, UDP).whole();
            for length in 0..Read::of(&whole).transport + 4 {
                flow.pair.leaves_alone(&error(&whole[..length]));
            }
            let other = Build::new(ours.source, ours.destination, 47).whole();
            flow.pair.leaves_alone(&error(&other));
        }
        let echo = if family == Family::V4 { 8 } else { 128 };
        let to_vip = icmp_error(family.outside(), family.vip(), echo, b"echo");
        assert_eq!(flow.pair.meet(Hook::Ingress, &to_vip), None);
        let to_node = icmp_error(family.outside(), family.node(), echo, b"echo");
        flow.pair.leaves_alone(&to_node);
    }
}
