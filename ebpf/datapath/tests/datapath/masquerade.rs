//! Ports in place of clients' own.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use switchyard_datapath::layout::{Reason, TCP, UDP, flow_flags};

use crate::packets::SYN;
use crate::world::{BARE, FAMILIES, Family, PODS, Tuple, UPLINK, WEB, World};

fn world(family: Family, ranges: [(u16, u16); 2]) -> World {
    let mut world = World::new(family, TCP);
    world.offer(WEB, &[1]);
    world.set_ports(ranges);
    world
}

/// The port a client gets.
fn port_of(world: &World, client_port: u16) -> Option<u16> {
    let family = world.family;
    let sent = Tuple::new((family.outside(), client_port), (family.vip(), 80));
    let routed = world.comes(UPLINK, sent, SYN)?;
    let out = world.goes(PODS, routed, SYN)?;
    assert_eq!(out.source.0, family.node());
    Some(out.source.1)
}

/// Ranges of up to 32 ports in all: each is used once, and only then is it over.
#[test]
fn every_port_is_used_once_before_it_fails() {
    for low in 0..=16_u16 {
        for high in 0..=16_u16 {
            let of = |first: u16, count: u16| {
                if count == 0 {
                    (1, 0)
                } else {
                    (first, first + (count - 1))
                }
            };
            let ranges = [of(20_000, low), of(u16::MAX - 15, high)];
            let world = world(Family::V4, ranges);
            let mut seen = BTreeSet::new();
            for client in 0..low + high {
                let port = port_of(&world, 5000 + client);
                let port = port.unwrap_or_else(|| panic!("{ranges:?}: the {client}-th failed"));
                assert!(
                    ranges
                        .iter()
                        .any(|(first, last)| (*first..=*last).contains(&port))
                );
                assert!(seen.insert(port), "{port} twice");
            }
            assert_eq!(port_of(&world, 4999), None);
            let refusals = world.refusals();
            assert_eq!(refusals, [(Reason::NoMasqueradePort, false)]);
        }
    }
}

/// A range as long as the distance of two tries: each try must still be another port.
#[test]
fn tries_are_different_ports_whatever_the_ranges() {
    for count in [7919, 2 * 7919, 28_000, 64_000] {
        let world = world(Family::V4, [(1000, 1000 + count - 1), (1, 0)]);
        for client in 0..20 {
            // The same start each time: all earlier ones are taken.
            let sent = Tuple::new((Family::V4.outside(), 100 + client), (Family::V4.vip(), 80));
            let routed = world.comes(UPLINK, sent, SYN).unwrap();
            world.table.script_random([0]);
            assert!(world.goes(PODS, routed, SYN).is_some(), "{count}: {client}");
        }
    }
}

#[test]
fn a_client_keeps_its_port_where_that_is_one_of_ours_and_free() {
    for family in FAMILIES {
        let world = world(family, [(20_000, 20_009), (61_000, 61_009)]);
        for port in [20_000, 20_009, 61_000, 61_009] {
            assert_eq!(port_of(&world, port), Some(port));
        }
        for port in [19_999, 20_010, 60_999, 61_010] {
            assert_ne!(port_of(&world, port), Some(port));
        }
        // Another client with a port that is taken.
        let sent = Tuple::new((family.held(), 20_000), (family.vip(), 80));
        let out = world.through(UPLINK, PODS, sent, SYN).unwrap();
        assert_ne!(out.source.1, 20_000);
    }
}

#[test]
fn a_port_serves_again_for_another_endpoint() {
    for family in FAMILIES {
        let mut world = world(family, [(20_000, 20_000), (1, 0)]);
        assert_eq!(port_of(&world, 5000), Some(20_000));
        assert_eq!(port_of(&world, 5001), None);
        world.offer(WEB, &[3]);
        assert_eq!(port_of(&world, 5002), Some(20_000));
    }
}

#[test]
fn a_closed_connections_port_is_free_again() {
    for family in FAMILIES {
        let world = world(family, [(20_000, 20_000), (1, 0)]);
        for _ in 0..3 {
            assert_eq!(port_of(&world, 5000), Some(20_000));
            let sent = Tuple::new((family.outside(), 5000), (family.vip(), 80));
            world
                .through(UPLINK, PODS, sent, crate::packets::RST)
                .unwrap();
        }
        world.assert_one_flow(4);
    }
}

/// No address to masquerade with is like no port; nothing goes out with the client's address.
#[test]
fn a_device_without_an_address_loses_what_must_be_masqueraded() {
    for family in FAMILIES {
        let world = world(family, [(20_000, 20_009), (1, 0)]);
        for device in [BARE, 99] {
            let sent = Tuple::new((family.outside(), 5000), (family.vip(), 80));
            let routed = world.comes(UPLINK, sent, SYN).unwrap();
            assert_eq!(world.goes(device, routed, SYN), None);
            assert_eq!(world.refusals(), [(Reason::NoMasqueradePort, false)]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whoever comes in whichever order: an endpoint sees no two clients with one port, and each
    /// reply comes to the client it is for.
    #[test]
    fn no_two_clients_share_a_port_of_an_endpoint(
        clients in prop::collection::vec((0_usize..3, prop_oneof![20_000_u16..20_012, 5000_u16..5010]), 1..60),
        v4: bool,
        udp: bool,
    ) {
        let family = if v4 { Family::V4 } else { Family::V6 };
        let mut world = World::new(family, if udp { UDP } else { TCP });
        world.offer(WEB, &[1, 2]);
        world.set_ports([(20_000, 20_007), (61_000, 61_003)]);
        let hosts = [family.outside(), family.held(), family.external()];
        let mut flows = BTreeMap::new();
        for (host, port) in clients {
            let sent = Tuple::new((hosts[host], port), (family.vip(), 80));
            let Some(out) = world.through(UPLINK, PODS, sent, SYN) else { continue };
            let key = (out.source.1, out.destination.0);
            let before = flows.insert(key, (sent, out));
            prop_assert!(before.is_none_or(|(old, _)| old == sent));
        }
        for (sent, out) in flows.values() {
            prop_assert_eq!(world.through(PODS, UPLINK, out.reversed(), 0), Some(sent.reversed()));
        }
        prop_assert_eq!(world.entries(flow_flags::UNMASQUERADE).len(), flows.len());
    }
}
