//! Errors about translated packets, and echo.

use std::net::IpAddr;

use switchyard_datapath::layout::{Hook, TCP, UDP, flow_flags};
use switchyard_datapath::table::Bytes;

use crate::direct::forwarded;
use crate::packets::{Build, Read, SYN, icmp_error, verify, verify_ip};
use crate::world::{FAMILIES, Family, PODS, Tuple, UPLINK, World};

/// A router on the way.
fn router(family: Family) -> IpAddr {
    match family {
        Family::V4 => "172.16.0.1".parse().unwrap(),
        Family::V6 => "fd00:16::1".parse().unwrap(),
    }
}

fn kinds(family: Family) -> &'static [u8] {
    match family {
        Family::V4 => &[3, 11, 12],
        Family::V6 => &[1, 2, 3, 4],
    }
}

/// How much of a packet an error quotes.
#[derive(Clone, Copy, Debug)]
enum Quote {
    EightBytes,
    All,
}

fn quote(tuple: Tuple, protocol: u8, how: Quote, long_headers: bool) -> Vec<u8> {
    let mut build = Build::new(tuple.source, tuple.destination, protocol);
    if long_headers {
        build.options = 3;
        build.extensions = vec![(0, 1), (60, 2)];
    }
    let mut bytes = build.whole();
    if let Quote::EightBytes = how {
        bytes.truncate(Read::of(&bytes).transport + 8);
    }
    bytes
}

fn meet(world: &World, hook: Hook, device: u32, error: Vec<u8>) -> Option<Vec<u8>> {
    let mut packet = Bytes::plain(error);
    let goes_on = world.table.meet(&mut packet, hook, device);
    goes_on.then_some(packet.bytes)
}

/// The outer addresses, and what the quote is about.
fn read(error: &[u8]) -> (IpAddr, IpAddr, Tuple) {
    verify(error);
    let outer = Read::of(error);
    let inner = &error[outer.transport + 8..];
    verify_ip(inner);
    let inner = Read::of(inner);
    let about = Tuple::new(inner.source, inner.destination);
    (outer.source.0, outer.destination.0, about)
}

struct Case {
    world: World,
    /// As the client sends it.
    sent: Tuple,
    /// As the endpoint gets it.
    out: Tuple,
    protocol: u8,
    how: Quote,
    long_headers: bool,
    kind: u8,
}

impl Case {
    /// Of flows that began on either way: through the stack, and sent on at once.
    fn all(client: fn(Family) -> IpAddr) -> Vec<Self> {
        let begun: [fn(&World, Tuple) -> Tuple; 2] = [
            |world, sent| world.through(UPLINK, PODS, sent, SYN).unwrap(),
            |world, sent| forwarded(world, UPLINK, sent, SYN).unwrap().0,
        ];
        let of = |begin: &fn(&World, Tuple) -> Tuple| Self::begun(client, *begin);
        begun.iter().flat_map(of).collect()
    }

    fn begun(client: fn(Family) -> IpAddr, begin: fn(&World, Tuple) -> Tuple) -> Vec<Self> {
        let mut all = Vec::new();
        for family in FAMILIES {
            for protocol in [TCP, UDP] {
                for how in [Quote::EightBytes, Quote::All] {
                    for (kind, long_headers) in kinds(family)
                        .iter()
                        .flat_map(|kind| [(*kind, false), (*kind, true)])
                    {
                        let world = World::with_endpoints(family, protocol);
                        let sent = Tuple::new((client(family), 5000), (family.vip(), 80));
                        let out = begin(&world, sent);
                        all.push(Self {
                            world,
                            sent,
                            out,
                            protocol,
                            how,
                            long_headers,
                            kind,
                        });
                    }
                }
            }
        }
        all
    }

    fn error(&self, from: IpAddr, about: Tuple) -> Vec<u8> {
        let quote = quote(about, self.protocol, self.how, self.long_headers);
        icmp_error(from, about.source.0, self.kind, &quote)
    }

    /// Sends an error through the node; nothing but addresses, the port and checksums differs.
    fn through(&self, from: u32, to: u32, error: &[u8]) -> (IpAddr, IpAddr, Tuple) {
        let mut packet = error.to_vec();
        for (hook, device) in [(Hook::Ingress, from), (Hook::Egress, to)] {
            packet = meet(&self.world, hook, device, packet).unwrap();
            read(&packet);
        }
        assert_eq!(packet.len(), error.len());
        let (_, _, about) = read(&packet);
        let expected = self.error(Read::of(&packet).source.0, about);
        let transport = Read::of(error).transport;
        let inner = Read::of(&error[transport + 8..]).transport + transport + 8;
        assert_eq!(packet[..10], expected[..10]);
        assert_eq!(
            packet[transport..transport + 2],
            expected[transport..transport + 2]
        );
        // The quote's own transport checksum is the sender's, and stays.
        assert_eq!(packet[inner..inner + 4], expected[inner..inner + 4]);
        assert_eq!(packet[inner + 4..], error[inner + 4..]);
        read(&packet)
    }
}

#[test]
fn an_error_about_a_request_comes_to_the_client_as_about_the_vip() {
    for case in Case::all(Family::outside) {
        let family = case.world.family;
        // From the endpoint itself, or from a router before it.
        for from in [case.out.destination.0, router(family)] {
            let error = case.error(from, case.out);
            let (source, destination, about) = case.through(PODS, UPLINK, &error);
            assert_eq!((source, destination), (family.vip(), case.sent.source.0));
            assert_eq!(about, case.sent);
        }
        if case.world.entries(flow_flags::BOTH).is_empty() {
            case.world.assert_one_flow(4);
        } else {
            assert_eq!(case.world.table.flows().len(), 4, "two more, for egress");
        }
    }
}

#[test]
fn an_error_about_a_request_that_is_not_masqueraded() {
    for case in Case::all(Family::pod) {
        let family = case.world.family;
        let error = case.error(router(family), case.out);
        let (source, destination, about) = case.through(UPLINK, PODS, &error);
        assert_eq!((source, destination), (family.vip(), family.pod()));
        assert_eq!(about, case.sent);
    }
}

#[test]
fn an_error_about_a_reply_comes_to_the_endpoint_as_about_the_node() {
    for case in Case::all(Family::outside) {
        let family = case.world.family;
        let error = case.error(router(family), case.sent.reversed());
        let (source, destination, about) = case.through(UPLINK, PODS, &error);
        assert_eq!(
            (source, destination),
            (family.node(), case.out.destination.0)
        );
        assert_eq!(about, case.out.reversed());
    }
}

/// The node's own "port unreachable", by which it refuses.
#[test]
fn a_refusal_comes_from_the_vip() {
    for family in FAMILIES {
        let world = World::new(family, UDP);
        let sent = Tuple::new((family.outside(), 5000), (family.vip(), 80));
        let out = world.comes(UPLINK, sent, 0).unwrap();
        let kind = if family == Family::V4 { 3 } else { 1 };
        let error = icmp_error(
            family.node(),
            family.outside(),
            kind,
            &quote(out, UDP, Quote::All, false),
        );
        let error = meet(&world, Hook::Egress, UPLINK, error).unwrap();
        let (source, destination, about) = read(&error);
        assert_eq!((source, destination), (family.vip(), family.outside()));
        assert_eq!(about, sent);
    }
}

#[test]
fn an_error_before_a_port_was_chosen_goes_on_as_it_is() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        let sent = Tuple::new((family.outside(), 5000), (family.vip(), 80));
        let routed = world.comes(UPLINK, sent, SYN).unwrap();
        let quote = quote(routed.reversed(), TCP, Quote::All, false);
        let error = icmp_error(
            router(family),
            routed.destination.0,
            kinds(family)[0],
            &quote,
        );
        assert_eq!(meet(&world, Hook::Egress, PODS, error.clone()), Some(error));
    }
}

#[test]
fn errors_about_anything_else_go_on_as_they_are() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, UDP);
        let node = family.node();
        let past = Tuple::new((node, 5000), (family.outside(), 53));
        let mut errors = Vec::new();
        for kind in kinds(family) {
            errors.push(icmp_error(
                router(family),
                node,
                *kind,
                &quote(past, UDP, Quote::All, false),
            ));
            // Too short a quote, none at all, one of no protocol with ports, a later part.
            let whole = quote(past, UDP, Quote::All, false);
            for length in 0..Read::of(&whole).transport + 4 {
                errors.push(icmp_error(router(family), node, *kind, &whole[..length]));
            }
            errors.push(icmp_error(
                router(family),
                node,
                *kind,
                &quote(past, 47, Quote::All, false),
            ));
            let mut build = Build::new(past.source, past.destination, UDP);
            build.payload = vec![0; 100];
            let [_, later] = build.parts(3);
            errors.push(icmp_error(router(family), node, *kind, &later));
        }
        for error in errors {
            for hook in [Hook::Ingress, Hook::Egress] {
                assert_eq!(
                    meet(&world, hook, UPLINK, error.clone()),
                    Some(error.clone())
                );
            }
        }
        // Errors that are in parts themselves, or cut off behind the IP header.
        let error = icmp_error(router(family), node, kinds(family)[0], &[]);
        let header = error[..Read::of(&error).transport].to_vec();
        assert_eq!(
            meet(&world, Hook::Ingress, UPLINK, header.clone()),
            Some(header)
        );
    }
}

#[test]
fn echo_to_a_vip_is_lost_and_to_the_node_it_is_not() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        let (request, reply) = if family == Family::V4 {
            (8, 0)
        } else {
            (128, 129)
        };
        for (address, goes_on) in [
            (family.vip(), false),
            (family.external(), false),
            (family.balancer(), false),
            (family.held(), true),
            (family.node(), true),
            (family.pod(), true),
        ] {
            let echo = icmp_error(family.outside(), address, request, b"echo");
            let out = meet(&world, Hook::Ingress, UPLINK, echo.clone());
            assert_eq!(out, goes_on.then_some(echo.clone()), "{address}");
            assert_eq!(meet(&world, Hook::Egress, UPLINK, echo.clone()), Some(echo));
            let answer = icmp_error(family.outside(), address, reply, b"echo");
            assert_eq!(
                meet(&world, Hook::Ingress, UPLINK, answer.clone()),
                Some(answer)
            );
        }
    }
}

/// Neighbours are found by ICMPv6; the other family's ICMP is not ICMP at all.
#[test]
fn other_kinds_and_the_other_familys_go_on_as_they_are() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        for kind in [5, 13, 133, 134, 135, 136] {
            if family == Family::V6 && kind < 128 {
                continue;
            }
            let packet = icmp_error(family.outside(), family.node(), kind, &[0; 24]);
            assert_eq!(
                meet(&world, Hook::Ingress, UPLINK, packet.clone()),
                Some(packet)
            );
        }
        let other = if family == Family::V4 { 58 } else { 1 };
        let build = Build::new((family.outside(), 0), (family.vip(), 0), other);
        let packet = build.whole();
        assert_eq!(
            meet(&world, Hook::Ingress, UPLINK, packet.clone()),
            Some(packet)
        );
    }
}
