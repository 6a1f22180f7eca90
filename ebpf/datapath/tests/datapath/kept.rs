//! Places of connections that connection tracking translates: no flow gets them, and programs leave
//! the connections' packets as they are.

use std::net::IpAddr;

use switchyard_datapath::flow::Through;
use switchyard_datapath::layout::{
    Address, FlowKey, FlowValue, Hook, Reason, TCP, device_flags, flow_flags,
};
use switchyard_datapath::{Insert, Maps as _};

use crate::direct::{Node, forwarded, sent};
use crate::packets::{ACK, SYN};
use crate::world::{FAMILIES, OTHER, PODS, Tuple, UPLINK, WEB, World};

/// Keeps the place of a connection whose endpoint sees this client.
fn keep(world: &World, hook: Hook, client: (IpAddr, u16), endpoint: u16) -> Tuple {
    let answer = Tuple::new((world.family.endpoint(endpoint), 8080), client);
    let key = FlowKey {
        source: Address::from(answer.source.0),
        destination: Address::from(answer.destination.0),
        source_port: answer.source.1.to_be(),
        destination_port: answer.destination.1.to_be(),
        protocol: TCP,
        hook: hook.number(),
        reserved: 0,
    };
    assert!(
        world
            .table
            .insert_flow(&key, &FlowValue::keeping(&key), Insert::New)
    );
    answer
}

/// The client's port, which is one of ours, would be the first that is tried.
#[test]
fn a_port_that_rules_have_masqueraded_with_is_not_chosen() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[2]);
        let answer = keep(&world, Hook::Ingress, (family.node(), 20_000), 2);
        let request = Tuple::new((family.outside(), 20_000), (family.vip(), 80));
        let out = world.through(UPLINK, PODS, request, SYN).unwrap();
        assert_eq!(out.source.0, family.node());
        assert_ne!(out.source.1, 20_000);
        // Answers are left to connection tracking, whatever they are.
        for flags in [SYN | ACK, ACK] {
            assert_eq!(world.comes(PODS, answer, flags), Some(answer));
        }
        let mut packet = sent(&world, answer, ACK);
        let before = packet.bytes.clone();
        let outcome = world.table.forward(&mut packet, PODS, &mut Node(family));
        assert_eq!((outcome, packet.bytes), (Through::Rewrite, before));
    }
}

/// The same client's port, for another Service with the endpoint of the connection: whichever
/// endpoint is drawn first, the other is found.
#[test]
fn a_client_that_rules_have_sent_to_an_endpoint_is_sent_elsewhere_from_the_same_port() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[2]);
        world.offer(OTHER, &[1, 2]);
        for port in 5000..5100 {
            let client = (family.outside(), port);
            keep(&world, Hook::Egress, client, 2);
            let request = Tuple::new(client, (family.other_vip(), 80));
            let out = world.through(UPLINK, UPLINK, request, SYN).unwrap();
            assert_eq!(out.destination.0, family.endpoint(1));
            // Where there is no other, it is refused, and the one that is open does not suffer.
            let request = Tuple::new(client, (family.vip(), 80));
            assert_eq!(world.comes(UPLINK, request, SYN), None);
            assert_eq!(world.refusals(), [(Reason::Collision, false)]);
            let there = Tuple::new(client, (family.endpoint(2), 8080));
            assert_eq!(world.goes(PODS, there, ACK), Some(there));
        }
    }
}

/// A client uses one port for a Service of rules, whose answers connection tracking turns to it before
/// they are met, and for one of ours, with the same endpoint: both kinds of answers look the same. Both
/// take the stack's way, where ours are told when they go out.
#[test]
fn answers_that_may_be_translated_by_rules_take_the_stack_s_way() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[1]);
        let request = Tuple::new((family.pod(), 5000), (family.vip(), 80));
        let (there, _) = forwarded(&world, PODS, request, SYN).unwrap();
        let answer = there.reversed();
        for device in [PODS, UPLINK] {
            world.set_device(device, device_flags::RULES);
        }
        let mut packet = sent(&world, answer, ACK);
        let before = packet.bytes.clone();
        let outcome = world.table.forward(&mut packet, UPLINK, &mut Node(family));
        assert_eq!((outcome, packet.bytes), (Through::Pass, before));
        assert_eq!(world.goes(PODS, answer, ACK), Some(request.reversed()));
        // What goes to the endpoint can't be mistaken.
        assert_eq!(forwarded(&world, PODS, request, ACK), Some((there, UPLINK)));
    }
}

/// The place of a connection that is not masqueraded is no flow's either.
#[test]
fn answers_of_a_connection_that_rules_translate_are_left_to_the_stack() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[2]);
        let answer = keep(&world, Hook::Egress, (family.outside(), 5000), 2);
        world.set_device(UPLINK, device_flags::RULES);
        let mut packet = sent(&world, answer, ACK);
        let before = packet.bytes.clone();
        let outcome = world.table.forward(&mut packet, PODS, &mut Node(family));
        assert_eq!((outcome, packet.bytes), (Through::Pass, before));
        assert_eq!(world.entries(flow_flags::KEPT).len(), 1);
    }
}
