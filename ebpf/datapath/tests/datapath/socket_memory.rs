//! What is remembered of a socket.

use switchyard_datapath::layout::{
    Address, Endpoint, Kind, SOCKET_ENTRIES, SocketEntry, SocketRecord, TCP, UDP,
};
use switchyard_datapath::socket::{Outcome, note, restore};
use switchyard_datapath::table::TableSocket;

use crate::socket::{POD, connect, endpoint_of, peer, send};
use crate::world::{FAMILIES, Family, OTHER, WEB, World};

#[test]
fn an_unconnected_socket_keeps_its_endpoint_while_that_serves() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, UDP);
        let mut socket = TableSocket::new(POD);
        let to = (family.vip(), 80);
        let first = endpoint_of(send(&world, &mut socket, to));
        for _ in 0..30 {
            assert_eq!(send(&world, &mut socket, to), Outcome::To(first));
        }
        assert_eq!(world.counted().connections, 1);
        // It is no longer offered but still serves.
        let mut block = world.block(&[5]);
        block.serving = vec![world.at(5), first];
        world.table.write_block(WEB, &block);
        assert_eq!(send(&world, &mut socket, to), Outcome::To(first));
        assert_eq!(
            endpoint_of(send(&world, &mut TableSocket::new(POD), to)),
            world.at(5)
        );
        // It is gone.
        world.offer(WEB, &[5]);
        assert_eq!(send(&world, &mut socket, to), Outcome::To(world.at(5)));
        assert_eq!(peer(&socket, world.at(5)), Some(to));
        assert_eq!(peer(&socket, first), None, "one entry for one VIP");
    }
}

#[test]
fn another_port_or_address_is_another_destination() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, UDP);
        world.offer(OTHER, &[3]);
        let mut socket = TableSocket::new(POD);
        let one = endpoint_of(send(&world, &mut socket, (family.vip(), 80)));
        assert_eq!(
            send(&world, &mut socket, (family.other_vip(), 80)),
            Outcome::To(world.at(3))
        );
        assert_eq!(
            send(&world, &mut socket, (family.vip(), 80)),
            Outcome::To(one)
        );
        assert_eq!(peer(&socket, world.at(3)), Some((family.other_vip(), 80)));
        assert_eq!(peer(&socket, one), Some((family.vip(), 80)));
        assert_eq!(peer(&socket, world.at(9)), None);
    }
}

/// A connected socket has one peer: whatever was remembered before is not it.
#[test]
fn a_socket_that_connects_again_sees_its_last_vip() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let mut world = World::new(family, protocol);
            world.offer(WEB, &[1]);
            world.offer(OTHER, &[1]);
            let mut socket = TableSocket::new(POD);
            for vip in [
                family.vip(),
                family.other_vip(),
                family.vip(),
                family.external(),
            ] {
                let outcome = connect(&world, &mut socket, (vip, 80));
                assert_eq!(outcome, Outcome::To(world.at(1)));
                assert_eq!(peer(&socket, world.at(1)), Some((vip, 80)));
            }
        }
    }
}

fn entry(n: u16) -> SocketEntry {
    SocketEntry {
        vip: Address::v4(u32::from(n)),
        endpoint: Address::v4(u32::from(n) + 1000),
        vip_port: 80,
        endpoint_port: 8080,
        service: 1,
    }
}

#[test]
fn the_ninth_destination_pushes_out_the_oldest() {
    let mut record = SocketRecord::default();
    let known = |record: &SocketRecord, n: u16| {
        let entry = entry(n);
        let found = restore(record, &entry.endpoint, entry.endpoint_port);
        assert!(found.is_none_or(|found| found == (entry.vip, entry.vip_port)));
        found.is_some()
    };
    let most = u16::try_from(SOCKET_ENTRIES).unwrap();
    for n in 1..100 {
        note(&mut record, entry(n));
        for old in 1..=n {
            assert_eq!(known(&record, old), old + most > n, "{old} of {n}");
        }
        assert!(!known(&record, n + 1));
        // Noted again it takes the place it has.
        note(&mut record, entry(n));
    }
    // The count of places goes round.
    record.next = u32::MAX;
    note(&mut record, entry(200));
    note(&mut record, entry(201));
    assert!(known(&record, 200) && known(&record, 201));
}

#[test]
fn an_unused_entry_is_nobodys_peer() {
    let record = SocketRecord::default();
    assert_eq!(restore(&record, &Address::ANY, 0), None);
    let mut record = record;
    note(&mut record, entry(1));
    assert_eq!(restore(&record, &Address::ANY, 0), None);
    assert_eq!(restore(&record, &entry(1).endpoint, 8081), None);
}

#[test]
fn a_socket_without_memory_still_gets_its_endpoint() {
    let family = Family::V4;
    let world = World::with_endpoints(family, UDP);
    let mut socket = TableSocket::new(POD);
    socket.is_forgetful = true;
    for _ in 0..3 {
        endpoint_of(send(&world, &mut socket, (family.vip(), 80)));
        endpoint_of(connect(&world, &mut socket, (family.vip(), 80)));
    }
}

/// Connected sockets know their VIP, and those of UDP are told when their endpoint goes.
#[test]
fn connected_sockets_are_known_by_their_endpoint() {
    for family in FAMILIES {
        let mut world = World::new(family, UDP);
        world.offer(WEB, &[1]);
        let mut socket = TableSocket::new(POD);
        let known = |socket: &TableSocket| {
            let to = socket.connected.get()?;
            assert_eq!(to.service, WEB);
            Some(Endpoint::new(to.endpoint, to.endpoint_port))
        };
        send(&world, &mut socket, (family.vip(), 80));
        assert_eq!(known(&socket), None, "it only sent");
        connect(&world, &mut socket, (family.vip(), 80));
        assert_eq!(known(&socket), Some(world.at(1)));
        send(&world, &mut socket, (family.outside(), 80));
        assert_eq!(known(&socket), Some(world.at(1)), "it only sent");
        // A call that fails leaves the socket where it was.
        assert_eq!(
            connect(&world, &mut socket, (family.vip(), 81)),
            Outcome::Refuse
        );
        assert_eq!(known(&socket), Some(world.at(1)));
        connect(&world, &mut socket, (family.outside(), 80));
        assert_eq!(known(&socket), None);
        world.protocol = TCP;
        let to = (family.vip(), 443);
        world
            .table
            .add_frontend(family.vip().into(), 443, TCP, WEB, Kind::ClusterIp);
        assert_eq!(connect(&world, &mut socket, to), Outcome::To(world.at(1)));
        assert_eq!(known(&socket), Some(world.at(1)));
    }
}
