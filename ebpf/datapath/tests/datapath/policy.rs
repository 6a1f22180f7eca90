//! Which endpoints which clients get: traffic policies, source ranges, affinity.

use std::collections::BTreeSet;
use std::time::Duration;

use switchyard_datapath::layout::{Reason, TCP, flow_flags, header_flags, settings_flags};

use crate::packets::SYN;
use crate::world::{FAMILIES, Family, PODS, Tuple, UPLINK, WEB, World};

/// Endpoints on this node among those of [`world`].
const LOCAL: [u16; 2] = [2, 4];
const ALL: [u16; 4] = [1, 2, 3, 4];
const FLOWS: u16 = 60;

fn world(family: Family, header: u16, settings: u32) -> World {
    let mut world = World::new(family, TCP);
    let mut block = world.block(&ALL);
    block.flags = header;
    block.maglev = true;
    world.table.write_block(WEB, &block);
    world.set_settings(settings);
    world
}

/// Opens flows from many ports: the endpoints they came to, and whether they are masqueraded.
fn spread(
    world: &World,
    device: u32,
    from: std::net::IpAddr,
    to: (std::net::IpAddr, u16),
) -> (BTreeSet<u16>, bool) {
    let mut seen = BTreeSet::new();
    for port in 5000..5000 + FLOWS {
        seen.insert(world.open(device, Tuple::new((from, port), to)).unwrap());
    }
    let masqueraded = world.entries(flow_flags::MASQUERADE).len();
    assert!(masqueraded == 0 || masqueraded == usize::from(FLOWS));
    world.table.forget_flows();
    (seen, masqueraded != 0)
}

#[test]
fn lists_and_masquerading_by_kind_policy_and_sender() {
    use header_flags::{EXTERNAL_LOCAL, INTERNAL_LOCAL};
    use settings_flags::{MASQUERADE_ALL, PODS_BY_CIDR, PODS_BY_DEVICE};
    // What is sent to, policies, settings, from a pod (else from outside), endpoints on this
    // node only, masqueraded.
    let cases = [
        ("cluster", 0, PODS_BY_CIDR, true, false, false),
        ("cluster", 0, PODS_BY_CIDR, false, false, true),
        ("cluster", 0, PODS_BY_DEVICE, true, false, false),
        ("cluster", 0, PODS_BY_DEVICE, false, false, true),
        ("cluster", 0, 0, true, false, false),
        ("cluster", 0, 0, false, false, false),
        (
            "cluster",
            0,
            PODS_BY_CIDR | MASQUERADE_ALL,
            true,
            false,
            true,
        ),
        ("cluster", 0, MASQUERADE_ALL, false, false, true),
        ("cluster", EXTERNAL_LOCAL, PODS_BY_CIDR, false, false, true),
        ("cluster", INTERNAL_LOCAL, PODS_BY_CIDR, true, true, false),
        ("cluster", INTERNAL_LOCAL, PODS_BY_CIDR, false, true, true),
        ("external", 0, PODS_BY_CIDR, true, false, true),
        ("external", 0, 0, false, false, true),
        ("external", INTERNAL_LOCAL, PODS_BY_CIDR, false, false, true),
        ("external", EXTERNAL_LOCAL, PODS_BY_CIDR, false, true, false),
        ("external", EXTERNAL_LOCAL, PODS_BY_CIDR, true, false, false),
        (
            "external",
            EXTERNAL_LOCAL,
            PODS_BY_DEVICE,
            false,
            true,
            false,
        ),
        (
            "external",
            EXTERNAL_LOCAL,
            PODS_BY_DEVICE,
            true,
            false,
            false,
        ),
        ("external", EXTERNAL_LOCAL, 0, true, true, false),
        (
            "external",
            EXTERNAL_LOCAL,
            MASQUERADE_ALL,
            false,
            true,
            false,
        ),
    ];
    for family in FAMILIES {
        for case in cases {
            let (kind, policy, settings, from_pod, local, masqueraded) = case;
            let world = world(family, policy, settings);
            let (client, device) = if from_pod {
                (family.pod(), PODS)
            } else {
                (family.outside(), UPLINK)
            };
            let targets = match kind {
                "cluster" => vec![(family.vip(), 80)],
                _ => vec![
                    (family.external(), 80),
                    (family.held(), 80),
                    (family.balancer(), 80),
                    (family.node(), 30_080),
                ],
            };
            for to in targets {
                let (seen, hidden) = spread(&world, device, client, to);
                let expected = if local {
                    BTreeSet::from(LOCAL)
                } else {
                    BTreeSet::from(ALL)
                };
                assert_eq!(
                    (seen, hidden),
                    (expected, masqueraded),
                    "{case:?} {to:?} {family:?}"
                );
            }
        }
    }
}

#[test]
fn pods_are_told_as_the_settings_say() {
    for family in FAMILIES {
        // An address of a pod by another device, and another address by the pods' device.
        for (settings, client, device, is_pod) in [
            (settings_flags::PODS_BY_CIDR, family.pod(), UPLINK, true),
            (settings_flags::PODS_BY_CIDR, family.outside(), PODS, false),
            (settings_flags::PODS_BY_DEVICE, family.pod(), UPLINK, false),
            (settings_flags::PODS_BY_DEVICE, family.outside(), PODS, true),
        ] {
            let world = world(family, 0, settings);
            let (_, masqueraded) = spread(&world, device, client, (family.vip(), 80));
            assert_eq!(masqueraded, !is_pod, "{client} by {device}");
        }
    }
}

/// What every node sees decides: two nodes choose alike, whatever random numbers they have.
#[test]
fn traffic_from_outside_goes_one_way_on_every_node() {
    for family in FAMILIES {
        let worlds = [1_u32, 2].map(|numbers| {
            let world = world(family, 0, settings_flags::PODS_BY_CIDR);
            world
                .table
                .script_random((0..numbers * 7).map(|n| n.wrapping_mul(0x9e37_79b9)));
            world
        });
        for port in 5000..5500 {
            let sent = Tuple::new((family.outside(), port), (family.external(), 80));
            let [one, two] = [&worlds[0], &worlds[1]].map(|world| world.open(UPLINK, sent));
            assert_eq!(one, two);
        }
    }
}

#[test]
fn source_ranges_hold_at_load_balancer_addresses_only() {
    for family in FAMILIES {
        for includes_node in [false, true] {
            let mut world = World::new(family, TCP);
            let mut block = world.block(&ALL);
            block.ranges = 5;
            if includes_node {
                block.flags = header_flags::RANGES_INCLUDE_NODE;
            }
            world.table.write_block(WEB, &block);
            let network = family.outside().into();
            world.table.add_range(5, network, family.bits(24, 64));
            // Another Service's set.
            world
                .table
                .add_range(6, family.pod().into(), family.bits(32, 128));
            let stranger = family.held();
            for (client, to, enters) in [
                (family.outside(), family.balancer(), true),
                (stranger, family.balancer(), false),
                (family.pod(), family.balancer(), false),
                (stranger, family.external(), true),
                (stranger, family.vip(), true),
                // The node itself, from the address it holds.
                (family.balancer(), family.balancer(), includes_node),
            ] {
                let sent = Tuple::new((client, 5000), (to, 80));
                assert_eq!(
                    world.open(UPLINK, sent).is_some(),
                    enters,
                    "{client} to {to}"
                );
                let refusals = if enters {
                    vec![]
                } else {
                    vec![(Reason::SourceRange, false)]
                };
                assert_eq!(world.refusals(), refusals);
                world.table.forget_flows();
            }
        }
    }
}

/// Without endpoints a client is told so, whether it may enter or not.
#[test]
fn no_endpoints_comes_before_source_ranges() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        let mut block = world.block(&[]);
        block.ranges = 5;
        world.table.write_block(WEB, &block);
        let sent = Tuple::new((family.outside(), 5000), (family.balancer(), 80));
        let out = world.comes(UPLINK, sent, SYN).unwrap();
        assert_eq!(out.destination, (family.node(), 0));
        assert_eq!(world.refusals(), [(Reason::NoEndpoints, true)]);
    }
}

#[test]
fn a_client_with_affinity_keeps_its_endpoint_until_the_time_is_over() {
    for family in FAMILIES {
        for client in [family.pod(), family.outside()] {
            let mut world = World::new(family, TCP);
            let mut block = world.block(&ALL);
            block.affinity_s = 100;
            world.table.write_block(WEB, &block);
            let mut port = 5000;
            let mut open = |world: &World, to| {
                port += 1;
                world
                    .open(UPLINK, Tuple::new((client, port), (to, 80)))
                    .unwrap()
            };
            let first = open(&world, family.vip());
            for _ in 0..50 {
                world.table.advance(Duration::from_secs(100));
                // Each use counts anew, by whichever address.
                assert_eq!(open(&world, family.vip()), first);
                assert_eq!(open(&world, family.external()), first);
            }
            // It goes where it went, even among others; not where it may no longer go.
            block.cluster = world.block(&[first, 7, 9]).cluster;
            world.table.write_block(WEB, &block);
            assert_eq!(open(&world, family.vip()), first);
            block.cluster = world.block(&[7]).cluster;
            world.table.write_block(WEB, &block);
            assert_eq!(open(&world, family.vip()), 7);
            block.cluster = world.block(&[first, 7]).cluster;
            world.table.write_block(WEB, &block);
            assert_eq!(open(&world, family.vip()), 7);
        }
    }
}

#[test]
fn affinity_ends_after_its_time() {
    let family = Family::V4;
    let mut world = World::new(family, TCP);
    let mut block = world.block(&ALL);
    block.affinity_s = 100;
    world.table.write_block(WEB, &block);
    let to = (family.vip(), 80);
    world.table.script_random([0, 0]);
    let first = world.open(PODS, Tuple::new((family.pod(), 1), to));
    world.table.advance(Duration::from_nanos(100_000_000_000));
    assert_eq!(world.open(PODS, Tuple::new((family.pod(), 2), to)), first);
    world.table.advance(Duration::from_nanos(100_000_000_001));
    world.table.script_random([u32::MAX, 0]);
    assert_ne!(world.open(PODS, Tuple::new((family.pod(), 3), to)), first);
}

/// Affinity is a client's, not a port's, and from outside it holds on a node that never saw it.
#[test]
fn a_client_with_affinity_goes_one_way_on_every_node() {
    for family in FAMILIES {
        for port in [5000, 6000, 7000] {
            let mut world = World::new(family, TCP);
            let mut block = world.block(&ALL);
            (block.affinity_s, block.maglev) = (100, true);
            world.table.write_block(WEB, &block);
            let sent = Tuple::new((family.outside(), port), (family.external(), 80));
            let mut fresh = World::new(family, TCP);
            fresh.table.write_block(WEB, &block);
            let at = Tuple::new((family.outside(), 1234), (family.external(), 80));
            assert_eq!(world.open(UPLINK, sent), fresh.open(UPLINK, at));
        }
    }
}
