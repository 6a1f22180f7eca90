//! Translation at the socket.

use std::net::IpAddr;
use std::time::Duration;

use switchyard_datapath::layout::{
    Address, Endpoint, Kind, Reason, SCTP, SocketRecord, TCP, UDP, header_flags, settings_flags,
};
use switchyard_datapath::socket::{
    Call, Outcome, left_alone, restore, restore_connected, translate,
};
use switchyard_datapath::table::TableSocket;

use crate::world::{FAMILIES, Family, OTHER, WEB, World};

/// The cookie of the node's own network namespace in [`World`].
const HOST: u64 = 1;
pub(crate) const POD: u64 = 77;

fn call(address: IpAddr, port: u16, protocol: u8, is_send: bool) -> Call {
    Call {
        address: address.into(),
        port: port.to_be(),
        protocol,
        is_send,
    }
}

pub(crate) fn connect(world: &World, socket: &mut TableSocket, to: (IpAddr, u16)) -> Outcome {
    calls(world, socket, &call(to.0, to.1, world.protocol, false))
}

/// What the socket programs do.
fn calls(world: &World, socket: &mut TableSocket, call: &Call) -> Outcome {
    let outcome = translate(&world.table, socket, call);
    if outcome == Outcome::Untouched {
        left_alone(socket, call);
    }
    outcome
}

pub(crate) fn send(world: &World, socket: &mut TableSocket, to: (IpAddr, u16)) -> Outcome {
    calls(world, socket, &call(to.0, to.1, world.protocol, true))
}

pub(crate) fn peer(socket: &TableSocket, endpoint: Endpoint) -> Option<(IpAddr, u16)> {
    let (address, port) = (&endpoint.address, endpoint.port);
    let connected = socket.connected.get();
    let (address, port) = restore(&socket.record, address, port)
        .or_else(|| restore_connected(&connected?, address, port))?;
    Some((address.into(), u16::from_be(port)))
}

pub(crate) fn endpoint_of(outcome: Outcome) -> Endpoint {
    match outcome {
        Outcome::To(endpoint) => endpoint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vip_becomes_an_endpoint_and_the_peer_the_vip_again() {
    for family in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            let world = World::with_endpoints(family, protocol);
            let mut seen = std::collections::BTreeSet::new();
            for to in [
                (family.vip(), 80),
                (family.external(), 80),
                (family.held(), 80),
                (family.node(), 30_080),
            ] {
                for _ in 0..20 {
                    let mut socket = TableSocket::new(POD);
                    let endpoint = endpoint_of(connect(&world, &mut socket, to));
                    assert!([world.at(1), world.at(2)].contains(&endpoint));
                    assert_eq!(peer(&socket, endpoint), Some(to));
                    seen.insert(endpoint);
                }
            }
            assert_eq!(seen.len(), 2);
            assert_eq!(world.counted().connections, 80);
            assert_eq!(world.refusals(), []);
        }
    }
}

#[test]
fn outcomes_without_an_endpoint() {
    use Outcome::{Deny, Refuse, Untouched};
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        let mut block = world.block(&[1]);
        block.flags = header_flags::INTERNAL_LOCAL | header_flags::EXTERNAL_LOCAL;
        world.table.write_block(OTHER, &block);
        world
            .table
            .add_frontend(family.external().into(), 443, TCP, OTHER, Kind::External);
        for (to, namespace, expected, reason) in [
            ((family.vip(), 80), POD, Refuse, Some(Reason::NoEndpoints)),
            (
                (family.node(), 30_080),
                HOST,
                Refuse,
                Some(Reason::NoEndpoints),
            ),
            ((family.vip(), 81), POD, Refuse, Some(Reason::UnknownPort)),
            (
                (family.other_vip(), 80),
                POD,
                Deny,
                Some(Reason::NoLocalEndpoint),
            ),
            (
                (family.other_vip(), 80),
                HOST,
                Deny,
                Some(Reason::NoLocalEndpoint),
            ),
            ((family.external(), 81), POD, Untouched, None),
            ((family.held(), 81), POD, Untouched, None),
            ((family.node(), 22), HOST, Untouched, None),
            ((family.outside(), 80), POD, Untouched, None),
        ] {
            let mut socket = TableSocket::new(namespace);
            assert_eq!(connect(&world, &mut socket, to), expected, "{to:?}");
            let told = expected == Refuse;
            let refusals: Vec<_> = reason.map(|reason| (reason, told)).into_iter().collect();
            assert_eq!(world.refusals(), refusals, "{to:?}");
            assert_eq!(socket.record, SocketRecord::default());
        }
        // What starts on this node goes anywhere, whatever the policy for traffic from outside.
        let mut socket = TableSocket::new(HOST);
        let to = (family.external(), 443);
        assert_eq!(connect(&world, &mut socket, to), Outcome::To(world.at(1)));
        assert_eq!(
            connect(&world, &mut TableSocket::new(POD), to),
            Outcome::To(world.at(1))
        );
        // A Service that is being removed.
        world.table.set_word(WEB, 0);
        assert_eq!(connect(&world, &mut socket, (family.vip(), 80)), Untouched);
    }
}

/// A ping socket connects too, but has no ports to refuse.
#[test]
fn protocols_without_ports_are_left_alone() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, TCP);
        for protocol in [1, 58, 136] {
            world.protocol = protocol;
            let mut socket = TableSocket::new(POD);
            for port in [0, 80] {
                let outcome = connect(&world, &mut socket, (family.vip(), port));
                assert_eq!(outcome, Outcome::Untouched);
            }
            assert_eq!(world.refusals(), []);
        }
    }
}

#[test]
fn whose_sockets_are_translated() {
    for family in FAMILIES {
        for (flags, namespace, opted_out, expected) in [
            (0, POD, false, true),
            (0, POD, true, false),
            (0, HOST, false, true),
            (0, HOST, true, false),
            (settings_flags::HOST_NAMESPACE_ONLY, POD, false, false),
            (settings_flags::HOST_NAMESPACE_ONLY, HOST, false, true),
            (settings_flags::HOST_NAMESPACE_ONLY, HOST, true, false),
        ] {
            let mut world = World::with_endpoints(family, TCP);
            world.set_settings(settings_flags::PODS_BY_CIDR | flags);
            let mut socket = TableSocket::new(namespace);
            socket.is_opted_out = opted_out;
            let outcome = connect(&world, &mut socket, (family.vip(), 80));
            assert_eq!(
                matches!(outcome, Outcome::To(_)),
                expected,
                "{flags} {namespace}"
            );
            // What is left alone is not refused either.
            let unknown = connect(&world, &mut socket, (family.vip(), 81));
            assert_eq!(unknown == Outcome::Refuse, expected);
            assert!(expected || unknown == Outcome::Untouched);
        }
    }
}

#[test]
fn node_ports_at_localhost_are_the_nodes_own() {
    for family in FAMILIES {
        let local: [IpAddr; 3] = match family {
            Family::V4 => ["127.0.0.1", "127.200.1.1", "0.0.0.0"],
            Family::V6 => ["::1", "::1", "::"],
        }
        .map(|text| text.parse().unwrap());
        for (flags, namespace, port, expected) in [
            (settings_flags::LOCALHOST_NODE_PORTS, HOST, 30_080, true),
            (settings_flags::LOCALHOST_NODE_PORTS, HOST, 80, false),
            (settings_flags::LOCALHOST_NODE_PORTS, POD, 30_080, false),
            (0, HOST, 30_080, false),
        ] {
            let mut world = World::with_endpoints(family, TCP);
            world.set_settings(settings_flags::PODS_BY_CIDR | flags);
            for address in local {
                let mut socket = TableSocket::new(namespace);
                let outcome = connect(&world, &mut socket, (address, port));
                assert_eq!(
                    matches!(outcome, Outcome::To(_)),
                    expected,
                    "{address} {flags}"
                );
                assert!(expected || outcome == Outcome::Untouched);
                if let Outcome::To(endpoint) = outcome {
                    assert_eq!(peer(&socket, endpoint), Some((address, port)));
                }
            }
        }
    }
}

/// What needs the packet, or masquerading, is left to the devices; the node's own sockets are
/// decided here, since no device sees them come in.
#[test]
fn what_is_left_to_the_devices() {
    use header_flags::{EXTERNAL_LOCAL, RANGES_INCLUDE_NODE};
    use settings_flags::{MASQUERADE_ALL, PODS_BY_CIDR, PODS_BY_DEVICE};
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fate {
        Device,
        Here,
        Denied,
    }
    use Fate::{Denied, Device, Here};
    for family in FAMILIES {
        let (vip, balancer) = ((family.vip(), 80), (family.balancer(), 80));
        let external = (family.external(), 80);
        for (settings, header, ranges, to, pod, host) in [
            (PODS_BY_CIDR, 0, 0, vip, Here, Here),
            (PODS_BY_CIDR | MASQUERADE_ALL, 0, 0, vip, Device, Here),
            (PODS_BY_CIDR | MASQUERADE_ALL, 0, 0, external, Device, Here),
            (PODS_BY_CIDR, 0, 5, vip, Here, Here),
            (PODS_BY_CIDR, 0, 5, external, Here, Here),
            (PODS_BY_CIDR, 0, 5, balancer, Device, Denied),
            (PODS_BY_CIDR, RANGES_INCLUDE_NODE, 5, balancer, Device, Here),
            (PODS_BY_CIDR, EXTERNAL_LOCAL, 0, external, Here, Here),
            (PODS_BY_DEVICE, EXTERNAL_LOCAL, 0, external, Device, Here),
            (PODS_BY_DEVICE, EXTERNAL_LOCAL, 0, vip, Here, Here),
            (PODS_BY_DEVICE, 0, 0, external, Here, Here),
        ] {
            let mut world = World::with_endpoints(family, TCP);
            world.set_settings(settings);
            let mut block = world.block(&[1, 2]);
            (block.flags, block.ranges) = (header, ranges);
            world.table.write_block(WEB, &block);
            for (namespace, expected) in [(POD, pod), (HOST, host)] {
                let fate = match connect(&world, &mut TableSocket::new(namespace), to) {
                    Outcome::Untouched => Device,
                    Outcome::To(_) => Here,
                    Outcome::Deny => Denied,
                    Outcome::Refuse => panic!("refused"),
                };
                assert_eq!(
                    fate, expected,
                    "{settings} {header} {ranges} {to:?} {namespace}"
                );
            }
        }
    }
}

/// An IPv6 socket that speaks IPv4 names the same address.
#[test]
fn mapped_addresses_are_ipv4() {
    let world = World::with_endpoints(Family::V4, TCP);
    let IpAddr::V4(vip) = Family::V4.vip() else {
        panic!()
    };
    let [a, b, c, d] = vip.octets();
    let word = u32::from_ne_bytes([a, b, c, d]);
    let mapped = Address([0, 0, 0xffff_u32.to_be(), word]);
    let mut socket = TableSocket::new(POD);
    let call = Call {
        address: mapped,
        port: 80_u16.to_be(),
        protocol: TCP,
        is_send: false,
    };
    let endpoint = endpoint_of(translate(&world.table, &mut socket, &call));
    assert!(endpoint.address.is_v4());
    let to = socket.connected.get().unwrap();
    let found = restore_connected(&to, &endpoint.address, endpoint.port);
    assert_eq!(found, Some((mapped, 80_u16.to_be())));
}

/// A pod's sockets are one client, whichever address they will have.
#[test]
fn affinity_is_a_network_namespaces() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        let mut block = world.block(&[1, 2, 3, 4]);
        block.affinity_s = 100;
        world.table.write_block(WEB, &block);
        let connect = |namespace, to| {
            endpoint_of(connect(&world, &mut TableSocket::new(namespace), (to, 80)))
        };
        let first = connect(POD, family.vip());
        let others: Vec<_> = (100..120).map(|pod| connect(pod, family.vip())).collect();
        assert!(others.iter().any(|other| *other != first));
        for _ in 0..10 {
            world.table.advance(Duration::from_secs(100));
            assert_eq!(connect(POD, family.vip()), first);
            assert_eq!(connect(POD, family.external()), first);
        }
    }
}

#[test]
fn nothing_is_translated_before_there_are_settings() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, TCP);
        world.table.set_word(0, 0);
        for port in [80, 81] {
            let mut socket = TableSocket::new(POD);
            assert_eq!(
                connect(&world, &mut socket, (family.vip(), port)),
                Outcome::Untouched
            );
        }
    }
}
