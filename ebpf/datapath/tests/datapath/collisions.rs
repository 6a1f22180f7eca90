//! Flows that are in each other's way, and a table that takes no more.

use std::time::Duration;

use switchyard_datapath::layout::{Reason, TCP, UDP, flow_flags};

use crate::flows::{to_other, to_vip};
use crate::packets::{ACK, FIN, RST, SYN};
use crate::world::{FAMILIES, OTHER, PODS, UPLINK, WEB, World};

/// Two VIPs with one endpoint, one client port: replies could not be told apart.
#[test]
fn a_second_vip_with_the_same_endpoint_collides() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[1]);
        world.offer(OTHER, &[1]);
        let (one, two) = (to_vip(family, family.pod()), to_other(family, family.pod()));
        let out = world.through(PODS, UPLINK, one, SYN).unwrap();
        assert_eq!(world.comes(PODS, two, SYN), None);
        assert_eq!(world.refusals(), [(Reason::Collision, false)]);
        world.assert_one_flow(2);
        assert_eq!(
            world.through(UPLINK, PODS, out.reversed(), ACK),
            Some(one.reversed())
        );
        // With another endpoint to go to there is no collision, whatever is drawn first.
        world.offer(OTHER, &[1, 3]);
        world.table.script_random([0, 1, u32::MAX, 2, 0, 3]);
        assert_eq!(world.open(PODS, two), Some(3));
        assert_eq!(world.table.flows().len(), 4);
    }
}

#[test]
fn what_was_closed_gives_way_to_another_vip_and_does_not_take_it_back() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[1]);
        world.offer(OTHER, &[1]);
        let (one, two) = (to_vip(family, family.pod()), to_other(family, family.pod()));
        world.through(PODS, UPLINK, one, SYN).unwrap();
        let out = world.through(PODS, UPLINK, one, FIN | ACK).unwrap();
        let back = world.through(UPLINK, PODS, out.reversed(), FIN | ACK);
        assert_eq!(back, Some(one.reversed()));

        assert_eq!(world.through(PODS, UPLINK, two, SYN), Some(out));
        assert_eq!(
            world.through(UPLINK, PODS, out.reversed(), ACK),
            Some(two.reversed())
        );
        // The first VIP again: the second one's connection is alive and has the endpoint.
        assert_eq!(world.comes(PODS, one, SYN), None);
        assert_eq!(world.refusals(), [(Reason::Collision, false)]);
        assert_eq!(
            world.through(UPLINK, PODS, out.reversed(), ACK),
            Some(two.reversed())
        );
        world.assert_one_flow(2);
    }
}

/// Datagrams are closed by nobody: a question and its answer give way after a second, and what
/// is sent to the first VIP later opens a flow of its own; a stream does not give way.
#[test]
fn an_idle_exchange_of_datagrams_gives_way() {
    for family in FAMILIES {
        let mut world = World::new(family, UDP);
        world.offer(WEB, &[1]);
        world.offer(OTHER, &[1]);
        let (one, two) = (to_vip(family, family.pod()), to_other(family, family.pod()));
        let out = world.through(PODS, UPLINK, one, ACK).unwrap();
        assert_eq!(
            world.through(UPLINK, PODS, out.reversed(), ACK),
            Some(one.reversed())
        );
        assert_eq!(world.comes(PODS, two, ACK), None);
        assert_eq!(world.refusals(), [(Reason::Collision, false)]);

        let later = Duration::from_millis(1500);
        world.table.advance(later);
        assert_eq!(world.through(PODS, UPLINK, two, ACK), Some(out));
        assert_eq!(
            world.through(UPLINK, PODS, out.reversed(), ACK),
            Some(two.reversed())
        );
        world.assert_one_flow(2);

        world.table.advance(later);
        world.through(PODS, UPLINK, two, ACK).unwrap();
        world.through(UPLINK, PODS, out.reversed(), ACK).unwrap();
        world.table.advance(later);
        assert_eq!(world.comes(PODS, one, ACK), None, "two is a stream");
    }
}

/// The same where both are masqueraded: the entries of the first that the second does not
/// replace must not be left behind.
#[test]
fn what_gives_way_leaves_no_masquerade_behind() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[1]);
        world.offer(OTHER, &[1]);
        let (one, two) = (
            to_vip(family, family.outside()),
            to_other(family, family.outside()),
        );
        let out = world.through(UPLINK, UPLINK, one, SYN).unwrap();
        let back = world.through(UPLINK, UPLINK, out.reversed(), RST);
        assert_eq!(back, Some(one.reversed()));
        let new = world.through(UPLINK, UPLINK, two, SYN).unwrap();
        assert_eq!(new.destination, out.destination);
        let unmasquerades = world.entries(flow_flags::UNMASQUERADE);
        assert_eq!(unmasquerades.len(), 1, "{unmasquerades:#?}");
        assert_eq!(
            world.through(UPLINK, UPLINK, new.reversed(), ACK),
            Some(two.reversed())
        );
    }
}

#[test]
fn a_full_table_keeps_nothing_of_a_new_flow() {
    for family in FAMILIES {
        for (client, entries) in [(family.pod(), 2), (family.outside(), 3)] {
            for fails in 0..entries {
                for by_size in [true, false] {
                    let world = World::with_endpoints(family, TCP);
                    if by_size {
                        world.table.limit_flows(usize::try_from(fails).unwrap());
                    } else {
                        world.table.fail_insert(fails);
                    }
                    let sent = to_vip(family, client);
                    assert_eq!(world.comes(PODS, sent, SYN), None);
                    world.assert_no_flow();
                    assert_eq!(world.refusals(), [(Reason::FlowTableFull, false)]);
                    assert_eq!(world.table.counters().len(), 0);
                    // And with room again it goes on.
                    world.table.limit_flows(10);
                    assert!(world.open(PODS, sent).is_some());
                }
            }
        }
    }
}

#[test]
fn a_full_table_keeps_nothing_of_a_flow_that_takes_over_another() {
    for family in FAMILIES {
        for (client, inserts) in [(family.pod(), 3), (family.outside(), 4)] {
            for fails in 0..inserts {
                let mut world = World::new(family, TCP);
                world.offer(WEB, &[1]);
                world.offer(OTHER, &[1]);
                let one = to_vip(family, client);
                let out = world.through(PODS, UPLINK, one, SYN).unwrap();
                let back = world.through(UPLINK, PODS, out.reversed(), RST);
                assert_eq!(back, Some(one.reversed()));
                // The first one is refused by the old entry anyway.
                world.table.fail_insert(fails);
                let two = to_other(family, client);
                if let Some(out) = world.comes(PODS, two, SYN) {
                    assert_eq!(fails, 0);
                    let out = world.goes(UPLINK, out, SYN).unwrap();
                    let back = world.through(UPLINK, PODS, out.reversed(), ACK);
                    assert_eq!(back, Some(two.reversed()));
                    continue;
                }
                assert_eq!(world.refusals(), [(Reason::FlowTableFull, false)]);
                let left = world.table.flows().into_values();
                assert_eq!(
                    left.filter(|value| value.service == OTHER).count(),
                    0,
                    "{fails}"
                );
            }
        }
    }
}

#[test]
fn a_full_table_while_a_port_is_chosen_loses_only_that_packet() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        let sent = to_vip(family, family.outside());
        world.table.limit_flows(3);
        let routed = world.comes(UPLINK, sent, SYN).unwrap();
        assert_eq!(world.goes(PODS, routed, SYN), None);
        assert_eq!(world.refusals(), [(Reason::NoMasqueradePort, false)]);
        world.table.limit_flows(4);
        let out = world.through(UPLINK, PODS, sent, SYN).unwrap();
        assert_eq!(out.source.0, family.node());
        world.assert_one_flow(4);
    }
}
