//! Datagrams in parts.

use switchyard_datapath::layout::{Hook, Reason, UDP};
use switchyard_datapath::table::Bytes;

use crate::packets::{Build, Read, join, verify, verify_ip};
use crate::world::{FAMILIES, Family, PODS, Tuple, UPLINK, World};

fn parts(tuple: Tuple, id: u16) -> [Vec<u8>; 2] {
    let mut build = Build::new(tuple.source, tuple.destination, UDP);
    build.payload = (0..100).collect();
    build.parts(id)
}

fn meet(world: &World, hook: Hook, device: u32, part: Vec<u8>) -> Option<Vec<u8>> {
    let mut packet = Bytes::plain(part);
    let goes_on = world.table.meet(&mut packet, hook, device);
    goes_on.then_some(packet.bytes)
}

/// Both parts through the node: what they are together.
fn through(world: &World, from: u32, to: u32, parts: [Vec<u8>; 2]) -> Tuple {
    let out = parts.map(|part| {
        let part = meet(world, Hook::Ingress, from, part).unwrap();
        verify_ip(&part);
        let part = meet(world, Hook::Egress, to, part).unwrap();
        verify_ip(&part);
        part
    });
    let whole = join(&out);
    verify(&whole);
    let read = Read::of(&whole);
    Tuple::new(read.source, read.destination)
}

fn sent(family: Family) -> Tuple {
    Tuple::new((family.outside(), 5000), (family.vip(), 80))
}

#[test]
fn all_parts_go_where_the_first_goes_both_ways() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, UDP);
        let out = through(&world, UPLINK, PODS, parts(sent(family), 9));
        assert_eq!(out.destination.1, 8080);
        assert_eq!(out.source.0, family.node());
        let back = through(&world, PODS, UPLINK, parts(out.reversed(), 10));
        assert_eq!(back, sent(family).reversed());
        // The next datagram of the flow.
        assert_eq!(through(&world, UPLINK, PODS, parts(sent(family), 11)), out);
        world.assert_one_flow(4);
    }
}

#[test]
fn a_later_part_alone_is_lost_where_it_would_go_astray() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, UDP);
        let [first, later] = parts(sent(family), 9);
        assert_eq!(meet(&world, Hook::Ingress, UPLINK, later.clone()), None);
        assert_eq!(world.refusals(), [(Reason::UnknownFragment, false)]);
        world.assert_no_flow();
        assert!(meet(&world, Hook::Ingress, UPLINK, first).is_some());
        assert!(meet(&world, Hook::Ingress, UPLINK, later).is_some());
        // A part of another datagram is not a part of this one.
        let [_, other] = parts(sent(family), 10);
        assert_eq!(meet(&world, Hook::Ingress, UPLINK, other), None);
    }
}

#[test]
fn a_later_part_to_the_node_itself_is_the_nodes() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, UDP);
        for address in [family.node(), family.held()] {
            let to_node = Tuple::new((family.outside(), 5000), (address, 30_080));
            let [_, later] = parts(to_node, 9);
            let out = meet(&world, Hook::Ingress, UPLINK, later.clone());
            assert_eq!(out, Some(later));
        }
        // And one that goes out, or through.
        let past = Tuple::new((family.pod(), 5000), (family.outside(), 53));
        for part in parts(past, 3) {
            for hook in [Hook::Ingress, Hook::Egress] {
                assert_eq!(meet(&world, hook, UPLINK, part.clone()), Some(part.clone()));
            }
        }
    }
}

/// The refusal can only be made of the whole.
#[test]
fn all_parts_of_a_refused_datagram_come_to_who_refuses_it() {
    for family in FAMILIES {
        let world = World::new(family, UDP);
        for port in [80, 81] {
            let tuple = Tuple::new((family.outside(), 5000), (family.vip(), port));
            for id in [1, 2] {
                let out =
                    parts(tuple, id).map(|part| meet(&world, Hook::Ingress, UPLINK, part).unwrap());
                let whole = join(&out);
                verify(&whole);
                assert_eq!(Read::of(&whole).destination, (family.node(), 0));
            }
        }
    }
}
