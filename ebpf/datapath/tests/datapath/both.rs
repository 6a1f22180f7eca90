//! Masqueraded flows that are sent on at once, by entries that say both ends.

use std::time::Duration;

use proptest::prelude::*;
use switchyard_datapath::flow::Through;
use switchyard_datapath::layout::{Reason, TCP, UDP, flow_flags};

use crate::direct::{Node, Nowhere, forwarded, sent};
use crate::flows::{to_other, to_vip};
use crate::packets::{ACK, FIN, RST, Read, SYN, verify};
use crate::world::{FAMILIES, Family, OTHER, Tuple, UPLINK, WEB, World};

/// A world whose WEB is elsewhere, so that packets go out as they came in.
fn world(family: Family, protocol: u8) -> World {
    let mut world = World::new(family, protocol);
    world.offer(WEB, &[1]);
    world.offer(OTHER, &[1]);
    world
}

fn at_once(world: &World, tuple: Tuple, tcp_flags: u8) -> Tuple {
    forwarded(world, UPLINK, tuple, tcp_flags).unwrap().0
}

fn by_stack(world: &World, tuple: Tuple, tcp_flags: u8) -> Option<Tuple> {
    world.through(UPLINK, UPLINK, tuple, tcp_flags)
}

/// One id, two entries that say both ends, and as many others.
fn assert_entries(world: &World, others: usize) {
    let flows = world.table.flows();
    assert_eq!(world.entries(flow_flags::BOTH).len(), 2, "{flows:#?}");
    assert_eq!(flows.len(), 2 + others, "{flows:#?}");
    let mut ids: Vec<u64> = flows.values().map(|value| value.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{flows:#?}");
}

#[test]
fn the_stacks_way_goes_on_with_what_began_at_once() {
    for family in FAMILIES {
        let (world, other) = (world(family, TCP), world(family, TCP));
        let request = to_vip(family, family.outside());
        let there = at_once(&world, request, SYN);
        assert_eq!(there.source.0, family.node(), "masqueraded");
        assert_entries(&world, 0);
        assert_eq!(by_stack(&world, request, ACK), Some(there));
        assert_entries(&world, 2);
        let back = by_stack(&world, there.reversed(), ACK);
        assert_eq!(back, Some(request.reversed()));
        assert_entries(&world, 2);
        assert_eq!(at_once(&world, request, ACK), there);
        assert_eq!(at_once(&world, there.reversed(), ACK), request.reversed());
        assert_entries(&world, 2);
        // Counted once a packet, whichever way it took.
        let there = by_stack(&other, request, SYN).unwrap();
        for (tuple, times) in [(request, 2), (there.reversed(), 2)] {
            for _ in 0..times {
                by_stack(&other, tuple, ACK).unwrap();
            }
        }
        assert_eq!(world.counted(), other.counted());
    }
}

/// The neighbour is not known yet, say: the first packet goes through the stack.
#[test]
fn a_flow_that_begins_in_the_stack_is_the_stacks() {
    for family in FAMILIES {
        let world = world(family, TCP);
        let request = to_vip(family, family.outside());
        let mut packet = sent(&world, request, SYN);
        let outcome = world.table.forward(&mut packet, UPLINK, &mut Nowhere);
        assert_eq!(outcome, Through::Rewrite);
        verify(&packet.bytes);
        let read = Read::of(&packet.bytes);
        let routed = Tuple::new(read.source, read.destination);
        let there = world.goes(UPLINK, routed, SYN).unwrap();
        assert_eq!(there.source.0, family.node());
        world.assert_one_flow(4);
        assert_eq!(
            at_once(&world, there.reversed(), SYN | ACK),
            request.reversed()
        );
        assert_eq!(at_once(&world, request, ACK), there);
        world.assert_one_flow(4);
        assert_eq!(world.counted().connections, 1);
        assert_eq!(world.counted().packets, 3);
    }
}

#[test]
fn a_port_that_is_used_anew_leaves_nothing_behind() {
    for family in FAMILIES {
        for through_stack in [false, true] {
            let world = world(family, TCP);
            let request = to_vip(family, family.outside());
            let there = at_once(&world, request, SYN);
            if through_stack {
                by_stack(&world, request, ACK).unwrap();
                by_stack(&world, there.reversed(), ACK).unwrap();
            }
            let id = world.entries(flow_flags::REQUEST)[0].1.id;
            // A SYN that comes again opens nothing.
            assert_eq!(at_once(&world, request, SYN), there);
            assert_eq!(world.entries(flow_flags::REQUEST)[0].1.id, id);
            at_once(&world, there.reversed(), FIN | ACK);
            let again = at_once(&world, request, SYN);
            assert_entries(&world, 0);
            assert_ne!(world.entries(flow_flags::REQUEST)[0].1.id, id);
            assert_eq!(at_once(&world, again.reversed(), ACK), request.reversed());
        }
    }
}

#[test]
fn an_endpoint_that_is_gone_gets_no_new_connection() {
    for family in FAMILIES {
        let mut world = world(family, TCP);
        let request = to_vip(family, family.outside());
        let there = at_once(&world, request, SYN);
        world.offer(WEB, &[3]);
        assert_eq!(at_once(&world, request, ACK), there, "it goes on");
        let again = at_once(&world, request, SYN);
        assert_eq!(again.destination.0, family.endpoint(3));
        assert_entries(&world, 0);
    }
}

/// Each insertion fails once: the packet is lost, and nothing stays.
#[test]
fn without_room_nothing_is_entered() {
    for family in FAMILIES {
        let world = world(family, TCP);
        world.table.fail_insert(1); // the answers' is there by then
        let mut packet = sent(&world, to_vip(family, family.outside()), SYN);
        let outcome = world.table.forward(&mut packet, UPLINK, &mut Node(family));
        assert_eq!(outcome, Through::Drop);
        assert_eq!(world.refusals(), [(Reason::FlowTableFull, false)]);
        world.assert_no_flow();
        assert_eq!(world.counted().connections, 0);
    }
}

#[test]
fn without_room_nothing_is_entered_on_the_stacks_way() {
    for family in FAMILIES {
        for skip in 0..3 {
            let world = world(family, TCP);
            world.table.fail_insert(skip);
            let mut packet = sent(&world, to_vip(family, family.outside()), SYN);
            let outcome = world.table.forward(&mut packet, UPLINK, &mut Nowhere);
            assert_eq!(outcome, Through::Drop);
            assert_eq!(world.refusals(), [(Reason::FlowTableFull, false)]);
            world.assert_no_flow();
        }
    }
}

/// No packet goes out unmasked because the stack's entry can't be had.
#[test]
fn what_cannot_be_split_is_lost() {
    for family in FAMILIES {
        let world = world(family, TCP);
        let request = to_vip(family, family.outside());
        at_once(&world, request, SYN);
        world.table.fail_insert(0);
        assert_eq!(world.comes(UPLINK, request, ACK), None);
        assert_eq!(world.refusals(), [(Reason::Collision, false)]);
        assert_entries(&world, 0);
        assert!(by_stack(&world, request, ACK).is_some());
    }
}

/// Two VIPs with one endpoint, one client port: each has a port of the node's own, so they are not
/// in each other's way while both are sent on at once; on the stack's way only the first is.
#[test]
fn two_vips_with_one_endpoint() {
    for family in FAMILIES {
        let world = world(family, TCP);
        let client = family.outside();
        let (one, two) = (to_vip(family, client), to_other(family, client));
        let (first, second) = (at_once(&world, one, SYN), at_once(&world, two, SYN));
        assert_ne!(first.source.1, second.source.1);
        assert_eq!(at_once(&world, first.reversed(), ACK), one.reversed());
        assert_eq!(at_once(&world, second.reversed(), ACK), two.reversed());
        assert_eq!(by_stack(&world, one, ACK), Some(first));
        assert_eq!(world.comes(UPLINK, two, ACK), None);
        assert_eq!(world.refusals(), [(Reason::Collision, false)]);
        assert_eq!(at_once(&world, two, ACK), second);
    }
}

/// The client's other flow with the endpoint, from the same port, goes through the stack. It is in the
/// way of one that the stack sees begin only, and not when it is over.
#[test]
fn another_flow_with_the_endpoint_through_the_stack() {
    for family in FAMILIES {
        let world = world(family, TCP);
        let client = family.outside();
        let (one, two) = (to_vip(family, client), to_other(family, client));
        let first = by_stack(&world, one, SYN).unwrap();
        let begin_in_stack = || {
            let mut packet = sent(&world, two, SYN);
            world.table.forward(&mut packet, UPLINK, &mut Nowhere)
        };
        assert_eq!(begin_in_stack(), Through::Drop);
        assert_eq!(world.refusals(), [(Reason::Collision, false)]);
        world.assert_one_flow(4);

        let second = at_once(&world, two, SYN);
        assert_ne!(first.source.1, second.source.1);
        assert_entries_of_both(&world, 4);
        assert_eq!(at_once(&world, first.reversed(), ACK), one.reversed());
        assert_eq!(
            at_once(&world, second.reversed(), FIN | ACK),
            two.reversed()
        );

        at_once(&world, one, RST);
        at_once(&world, first.reversed(), RST);
        assert_eq!(begin_in_stack(), Through::Rewrite);
        let there = by_stack(&world, two, ACK).unwrap();
        assert_eq!(at_once(&world, there.reversed(), ACK), two.reversed());
    }
}

fn assert_entries_of_both(world: &World, others: usize) {
    assert_eq!(world.entries(flow_flags::BOTH).len(), 2);
    assert_eq!(world.table.flows().len(), 2 + others);
}

/// What a flow does next.
#[derive(Clone, Copy, Debug)]
struct Step {
    vip: bool,
    client_port: u16,
    is_reply: bool,
    at_once: bool,
    tcp_flags: u8,
    later: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![SYN, ACK, ACK, ACK | FIN, RST]);
    (any::<[bool; 4]>(), 0_u16..2, flags).prop_map(
        |([vip, is_reply, at_once, later], port, tcp_flags)| Step {
            vip,
            client_port: 20_000 + port,
            is_reply,
            at_once,
            tcp_flags,
            later,
        },
    )
}

proptest! {
    /// Whatever comes by whichever way: a client hears only from whom it asked, an endpoint only
    /// from the node, and a packet that is passed on is either.
    #[test]
    fn no_packet_goes_astray(
        steps in prop::collection::vec(step(), 1..40),
        is_tcp: bool,
    ) {
        for family in FAMILIES {
            let world = world(family, if is_tcp { TCP } else { UDP });
            // By what the endpoint sees, what the client sent last.
            let mut asked = std::collections::HashMap::new();
            for step in &steps {
                let client = (family.outside(), step.client_port);
                let vip = if step.vip { family.vip() } else { family.other_vip() };
                let request = Tuple::new(client, (vip, 80));
                let out = asked.iter().find(|(_, sent)| **sent == request);
                let tuple = match (step.is_reply, out) {
                    (true, Some((out, _))) => Tuple::reversed(*out),
                    _ => request,
                };
                if step.later {
                    world.table.advance(Duration::from_millis(1500));
                }
                let came = if step.at_once {
                    let mut packet = sent(&world, tuple, step.tcp_flags);
                    let outcome = world.table.forward(&mut packet, UPLINK, &mut Node(family));
                    let read = Read::of(&packet.bytes);
                    (outcome == Through::Send).then(|| Tuple::new(read.source, read.destination))
                } else {
                    by_stack(&world, tuple, step.tcp_flags)
                };
                let Some(came) = came else {
                    continue;
                };
                if tuple == request {
                    prop_assert_eq!(came.source.0, family.node());
                    prop_assert_eq!(came.destination, (family.endpoint(1), 8080));
                    asked.insert(came, request);
                } else if came != tuple {
                    prop_assert_eq!(Some(&came.reversed()), asked.get(&tuple.reversed()));
                }
            }
        }
    }
}
