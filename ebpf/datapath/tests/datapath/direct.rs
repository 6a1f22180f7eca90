//! Packets that are sent on at once: as through the stack, between both hooks.

use std::net::IpAddr;

use switchyard_datapath::flow::{Routes, Through};
use switchyard_datapath::layout::{
    Address, Reason, TCP, UDP, address_flags, device_flags, flow_flags,
};
use switchyard_datapath::parse::Parsed;
use switchyard_datapath::table::Bytes;

use crate::packets::{ACK, Build, FIN, Read, SYN, icmp_error, verify, verify_ip};
use crate::world::{FAMILIES, Family, PODS, Tuple, UPLINK, WEB, World};

/// Pods are behind one device and everybody else behind another; the node's own addresses are
/// routed nowhere. Where the pods' device is a bridge, all are behind one port.
pub(crate) struct Node(pub(crate) Family);

/// The port.
const PORT: u32 = 77;

impl Routes for Node {
    fn route(&mut self, parsed: &Parsed) -> Option<u32> {
        let to = IpAddr::from(parsed.destination);
        if [self.0.node(), self.0.held()].contains(&to) {
            return None;
        }
        let is_local = (1..100).any(|n| n % 2 == 0 && self.0.endpoint(n) == to);
        Some(if is_local || to == self.0.pod() {
            PODS
        } else {
            UPLINK
        })
    }

    fn port(&mut self, bridge: u32) -> Option<u32> {
        assert_eq!(bridge, PODS);
        Some(PORT)
    }
}

/// No route at all.
pub(crate) struct Nowhere;

impl Routes for Nowhere {
    fn route(&mut self, _parsed: &Parsed) -> Option<u32> {
        None
    }

    fn port(&mut self, _bridge: u32) -> Option<u32> {
        None
    }
}

pub(crate) fn sent(world: &World, tuple: Tuple, tcp_flags: u8) -> Bytes {
    let mut build = Build::new(tuple.source, tuple.destination, world.protocol);
    build.tcp_flags = tcp_flags;
    Bytes::plain(build.whole())
}

/// A packet that is sent on: what it is then, and by which device.
pub(crate) fn forwarded(
    world: &World,
    device: u32,
    tuple: Tuple,
    tcp_flags: u8,
) -> Option<(Tuple, u32)> {
    let mut packet = sent(world, tuple, tcp_flags);
    let outcome = world
        .table
        .forward(&mut packet, device, &mut Node(world.family));
    if outcome != Through::Send {
        return None;
    }
    let device = world.table.sent_by();
    verify(&packet.bytes);
    let hops = if world.family == Family::V4 { 8 } else { 7 };
    assert_eq!(packet.bytes[hops], 63);
    let read = Read::of(&packet.bytes);
    Some((Tuple::new(read.source, read.destination), device))
}

/// Whole connections, from outside and from a pod, to endpoints here and elsewhere, masqueraded or
/// not: each packet and each count is as on the way through the stack, and so is each entry of
/// flows that are not masqueraded.
#[test]
fn it_is_what_the_stack_and_both_hooks_would_have_made_of_it() {
    for family in FAMILIES {
        for (endpoints, to, from) in [
            (&[2][..], (family.vip(), 80), (family.outside(), UPLINK)),
            (&[1][..], (family.vip(), 80), (family.outside(), UPLINK)),
            (
                &[1][..],
                (family.node(), 30_080),
                (family.outside(), UPLINK),
            ),
            (
                &[1, 2, 3][..],
                (family.external(), 80),
                (family.pod(), PODS),
            ),
            (&[2][..], (family.vip(), 80), (family.pod(), PODS)),
            // A pod that reaches itself.
            (&[2][..], (family.vip(), 80), (family.endpoint(2), PODS)),
        ] {
            let mut worlds = [TCP, TCP].map(|protocol| World::new(family, protocol));
            for world in &mut worlds {
                world.offer(WEB, endpoints);
            }
            let [stack, direct] = &worlds;
            let request = Tuple::new((from.0, 5000), to);
            for flags in [SYN, ACK, ACK, ACK | FIN] {
                let (there, out) = forwarded(direct, from.1, request, flags).unwrap();
                assert_eq!(stack.through(from.1, out, request, flags), Some(there));
                let reply = there.reversed();
                let (back, home) = forwarded(direct, out, reply, flags | ACK).unwrap();
                assert_eq!(home, from.1);
                assert_eq!(stack.through(out, home, reply, flags | ACK), Some(back));
                assert_eq!(back, request.reversed());
            }
            assert_eq!(direct.counted(), stack.counted());
            let entries = |world: &World| {
                let flows = world.table.flows().into_iter();
                let plain = flows.map(|(key, value)| (key, value.address, value.port, value.flags));
                plain.collect::<Vec<_>>()
            };
            if stack.entries(flow_flags::MASQUERADE).is_empty() {
                assert_eq!(entries(direct), entries(stack));
            } else {
                assert_eq!(direct.entries(flow_flags::BOTH).len(), 2);
                assert_eq!(direct.table.flows().len(), 2);
            }
        }
    }
}

#[test]
fn one_way_goes_on_where_the_other_began() {
    for family in FAMILIES {
        let mut world = World::new(family, UDP);
        world.offer(WEB, &[1]);
        let request = Tuple::new((family.outside(), 5000), (family.vip(), 80));
        let there = world.through(UPLINK, UPLINK, request, 0).unwrap();
        assert_eq!(there.source.0, family.node(), "masqueraded");
        let (again, _) = forwarded(&world, UPLINK, request, 0).unwrap();
        assert_eq!(again, there);
        let (back, _) = forwarded(&world, UPLINK, there.reversed(), 0).unwrap();
        assert_eq!(back, request.reversed());
        let back = world.through(UPLINK, UPLINK, there.reversed(), 0);
        assert_eq!(back, Some(request.reversed()));
        world.assert_one_flow(4);
    }
}

/// Without a route a packet is what ingress makes of it, and the stack says what is wrong.
#[test]
fn what_has_no_route_is_left_to_the_stack() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        let other = World::with_endpoints(family, TCP);
        let request = Tuple::new((family.outside(), 5000), (family.vip(), 80));
        let mut packet = sent(&world, request, SYN);
        let outcome = world.table.forward(&mut packet, UPLINK, &mut Nowhere);
        assert_eq!(outcome, Through::Rewrite);
        verify(&packet.bytes);
        let read = Read::of(&packet.bytes);
        let routed = other.comes(UPLINK, request, SYN).unwrap();
        assert_eq!(Tuple::new(read.source, read.destination), routed);
    }
}

/// Parts of datagrams, options, a TTL that ends here, and what is not ours.
#[test]
fn what_only_the_stack_can_do_it_does() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, UDP);
        let to = (family.vip(), 80);
        let build = Build::new((family.outside(), 5000), to, UDP);
        let forward = |bytes: Vec<u8>| {
            let mut packet = Bytes::plain(bytes);
            let outcome = world.table.forward(&mut packet, UPLINK, &mut Node(family));
            (outcome, packet.bytes)
        };
        let mut long = build.clone();
        long.payload = vec![7; 64];
        for part in long.parts(9) {
            let (outcome, bytes) = forward(part);
            assert_eq!(outcome, Through::Rewrite);
            verify_ip(&bytes);
        }
        let mut with_options = build.clone();
        with_options.options = 1;
        with_options.extensions = vec![(0, 1)];
        let (outcome, bytes) = forward(with_options.whole());
        assert_eq!(outcome, Through::Rewrite);
        verify(&bytes);
        let mut last_hop = build.clone();
        last_hop.hops = 1;
        let (outcome, bytes) = forward(last_hop.whole());
        assert_eq!(outcome, Through::Rewrite);
        assert_eq!(bytes[if family == Family::V4 { 8 } else { 7 }], 1);
        for destination in [family.pod(), family.node()] {
            let stranger = Build::new((family.outside(), 5000), (destination, 9), UDP).whole();
            assert_eq!(forward(stranger.clone()), (Through::Pass, stranger));
        }
    }
}

#[test]
fn refusals_and_losses_stay_what_they_are() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        let request = Tuple::new((family.outside(), 5000), (family.vip(), 80));
        let mut packet = sent(&world, request, SYN);
        let mut node = Node(family);
        let outcome = world.table.forward(&mut packet, UPLINK, &mut node);
        assert_eq!(outcome, Through::Rewrite);
        let to = Read::of(&packet.bytes).destination;
        assert_eq!(to, (family.node(), 0), "refused by the node itself");
        assert_eq!(world.refusals(), [(Reason::NoEndpoints, true)]);
        // No port to masquerade with: nothing goes out unmasked.
        world.offer(WEB, &[1]);
        world.set_ports([(1, 0), (1, 0)]);
        let request = Tuple::new((family.outside(), 5001), (family.vip(), 80));
        let mut packet = sent(&world, request, SYN);
        let outcome = world.table.forward(&mut packet, UPLINK, &mut node);
        assert_eq!(outcome, Through::Drop);
        assert_eq!(world.refusals(), [(Reason::NoMasqueradePort, false)]);
    }
}

/// An endpoint that is the node itself (hostNetwork) has no route out.
#[test]
fn the_nodes_own_endpoints_are_reached_by_the_stack() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        let own = family.held();
        world
            .table
            .add_address(own.into(), address_flags::LOCAL | address_flags::EXTERNAL);
        let mut block = world.block(&[2]);
        for list in [&mut block.cluster, &mut block.local, &mut block.serving] {
            list[0].address = Address::from(own);
        }
        world.table.write_block(WEB, &block);
        let request = Tuple::new((family.outside(), 5000), (family.vip(), 80));
        let mut packet = sent(&world, request, SYN);
        let outcome = world.table.forward(&mut packet, UPLINK, &mut Node(family));
        assert_eq!(outcome, Through::Rewrite);
        assert_eq!(Read::of(&packet.bytes).destination.0, own);
    }
}

/// Errors about packets go through the stack, translated as ever.
#[test]
fn errors_are_translated() {
    for family in FAMILIES {
        let mut world = World::new(family, UDP);
        world.offer(WEB, &[2]);
        let request = Tuple::new((family.outside(), 5000), (family.vip(), 80));
        let (there, _) = forwarded(&world, UPLINK, request, 0).unwrap();
        let quote = Build::new(there.source, there.destination, UDP).whole();
        let kind = if family == Family::V4 { 3 } else { 1 };
        let error = icmp_error(there.destination.0, there.source.0, kind, &quote[..]);
        let mut packet = Bytes::plain(error);
        let outcome = world.table.forward(&mut packet, PODS, &mut Node(family));
        assert_eq!(outcome, Through::Pass);
        verify(&packet.bytes);
        // From the node's masquerading address it goes to the client.
        assert_eq!(Read::of(&packet.bytes).destination.0, family.outside());
    }
}

#[test]
fn a_device_with_a_far_end_is_handed_the_packet() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[2]);
        for (flags, expected, near) in [
            (0, Through::Send, 0),
            (device_flags::PEER, Through::HandOver, PODS),
            (device_flags::BRIDGE, Through::HandOver, PORT),
        ] {
            world.set_device(PODS, flags);
            let request = Tuple::new((family.outside(), 5000), (family.vip(), 80));
            let mut packet = sent(&world, request, SYN);
            let outcome = world.table.forward(&mut packet, UPLINK, &mut Node(family));
            assert_eq!((outcome, world.table.sent_by()), (expected, PODS));
            if outcome == Through::HandOver {
                assert_eq!(world.table.handed_to(), near);
            }
        }
    }
}
