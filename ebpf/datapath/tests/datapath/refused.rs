//! What is refused, by whom, and for how long.

use switchyard_datapath::layout::{Kind, Reason, SCTP, TCP, UDP, flow_flags, header_flags};

use crate::packets::{ACK, RST, SYN};
use crate::world::{BARE, FAMILIES, OTHER, PODS, Tuple, UPLINK, WEB, World};

const PORT: u16 = 5000;

#[test]
fn a_service_without_endpoints_refuses_until_it_has_one() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            for client in [family.pod(), family.outside()] {
                let mut world = World::new(family, protocol);
                let sent = Tuple::new((client, PORT), (family.vip(), 80));
                for _ in 0..3 {
                    let out = world.comes(PODS, sent, SYN).unwrap();
                    assert_eq!(out.destination, (family.node(), 0));
                    assert_eq!(world.refusals(), [(Reason::NoEndpoints, true)]);
                    // The node's own refusal, as the client sees it.
                    let told = world.goes(PODS, out.reversed(), RST | ACK);
                    assert_eq!(told, Some(sent.reversed()));
                    world.assert_one_flow(2);
                    assert_eq!(world.entries(flow_flags::REFUSED).len(), 2);
                    assert_eq!(world.table.counters().len(), 0);
                }
                world.offer(WEB, &[1, 2]);
                assert!(world.open(PODS, sent).is_some());
                assert_eq!(world.entries(flow_flags::REFUSED), []);
                assert_eq!(world.refusals(), []);
            }
        }
    }
}

/// One socket may ask for several things that are refused.
#[test]
fn several_refusals_from_one_port_are_all_told() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let world = World::new(family, protocol);
            for (vip, port) in [
                (family.vip(), 80),
                (family.other_vip(), 80),
                (family.vip(), 81),
            ] {
                let sent = Tuple::new((family.pod(), PORT), (vip, port));
                let out = world.comes(PODS, sent, SYN).unwrap();
                assert_eq!(out.destination, (family.node(), 0));
                assert_eq!(world.goes(PODS, out.reversed(), 0), Some(sent.reversed()));
            }
            assert!(world.refusals().iter().all(|(_, told)| *told));
        }
    }
}

#[test]
fn a_refused_vip_does_not_stand_in_the_way_of_another() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(OTHER, &[1]);
        let sent = Tuple::new((family.pod(), PORT), (family.vip(), 80));
        let other = Tuple::new((family.pod(), PORT), (family.other_vip(), 80));
        world.comes(PODS, sent, SYN).unwrap();
        let out = world.through(PODS, UPLINK, other, SYN).unwrap();
        world.offer(WEB, &[1]);
        // The refused one is forgotten, and meets the other's endpoint.
        assert_eq!(world.comes(PODS, sent, SYN), None);
        assert_eq!(
            world.through(UPLINK, PODS, out.reversed(), ACK),
            Some(other.reversed())
        );
    }
}

#[test]
fn unknown_ports_by_address_and_sender() {
    #[derive(Debug, PartialEq)]
    enum Fate {
        Untouched,
        Told,
        Lost,
    }
    use Fate::{Lost, Told, Untouched};
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        for (address, client, device, flags, expected) in [
            (family.vip(), family.pod(), PODS, SYN, Told),
            (family.vip(), family.outside(), UPLINK, SYN, Told),
            (family.vip(), family.outside(), UPLINK, ACK, Told),
            (family.vip(), family.outside(), BARE, SYN, Lost),
            (family.vip(), family.outside(), 99, SYN, Lost),
            (family.vip(), family.outside(), UPLINK, RST, Lost),
            // Nobody here has it: sent on, it would come back.
            (family.external(), family.outside(), UPLINK, SYN, Told),
            (family.balancer(), family.outside(), UPLINK, SYN, Told),
            (family.external(), family.pod(), PODS, SYN, Untouched),
            // The node has it, and its own programs may listen.
            (family.held(), family.outside(), UPLINK, SYN, Untouched),
            (family.held(), family.pod(), PODS, SYN, Untouched),
            (family.node(), family.outside(), UPLINK, SYN, Untouched),
            (family.node(), family.pod(), PODS, RST, Untouched),
        ] {
            let sent = Tuple::new((client, PORT), (address, 81));
            let fate = match world.comes(device, sent, flags) {
                Some(out) if out == sent => Untouched,
                Some(out) => {
                    assert_eq!(out.destination, (family.node(), 0));
                    Told
                }
                None => Lost,
            };
            assert_eq!(fate, expected, "{address} from {client} by {device}");
            let refusals = match expected {
                Untouched => vec![],
                Told => vec![(Reason::UnknownPort, true)],
                Lost => vec![(Reason::UnknownPort, false)],
            };
            assert_eq!(
                world.refusals(),
                refusals,
                "{address} from {client} by {device}"
            );
            world.table.forget_flows();
        }
    }
}

#[test]
fn a_port_of_another_protocol_is_unknown() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, TCP);
        world.protocol = UDP;
        let sent = Tuple::new((family.pod(), PORT), (family.vip(), 80));
        assert_eq!(
            world.comes(PODS, sent, 0).unwrap().destination,
            (family.node(), 0)
        );
        world.protocol = SCTP;
        assert_eq!(world.comes(PODS, sent, 0), None, "no answer can be made");
        assert_eq!(
            world.refusals(),
            [(Reason::UnknownPort, true), (Reason::UnknownPort, false)]
        );
    }
}

#[test]
fn node_ports_are_at_the_nodes_addresses_only() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        let to = |address| Tuple::new((family.outside(), PORT), (address, 30_080));
        assert!(world.open(UPLINK, to(family.node())).is_some());
        assert_eq!(
            world.comes(UPLINK, to(family.held()), SYN),
            Some(to(family.held()))
        );
        let refused = world.comes(UPLINK, to(family.vip()), SYN).unwrap();
        assert_eq!(refused.destination, (family.node(), 0));
    }
}

/// An address that is a node's and an external one: its own ports come first.
#[test]
fn a_nodes_address_may_be_an_external_ip_too() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, TCP);
        let node = family.node().into();
        let flags = switchyard_datapath::layout::address_flags::EXTERNAL;
        world.table.add_address(node, flags);
        world
            .table
            .add_frontend(node, 443, TCP, WEB, Kind::External);
        for (port, ours) in [(443, true), (30_080, true), (22, false)] {
            let sent = Tuple::new((family.outside(), PORT), (family.node(), port));
            let out = world.comes(UPLINK, sent, SYN).unwrap();
            assert_eq!(out != sent, ours, "port {port}");
        }
    }
}

#[test]
fn nothing_is_touched_before_there_are_settings() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, TCP);
        let sent = Tuple::new((family.outside(), PORT), (family.vip(), 80));
        let routed = world.comes(UPLINK, sent, SYN).unwrap();
        world.table.set_word(0, 0);
        // A flow that is known has its endpoint, but may not go out unmasked.
        assert_eq!(world.comes(UPLINK, sent, SYN), Some(routed));
        assert_eq!(world.goes(PODS, routed, SYN), None);
        assert_eq!(world.refusals(), [(Reason::NoMasqueradePort, false)]);
        world.table.forget_flows();
        assert_eq!(world.comes(UPLINK, sent, SYN), Some(sent));
    }
}

#[test]
fn endpoints_that_no_list_may_use_are_not_the_same_as_none() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        let mut block = world.block(&[1]);
        block.flags = header_flags::INTERNAL_LOCAL | header_flags::EXTERNAL_LOCAL;
        world.table.write_block(WEB, &block);
        for address in [family.vip(), family.external()] {
            let sent = Tuple::new((family.outside(), PORT), (address, 80));
            assert_eq!(world.comes(UPLINK, sent, SYN), None);
            assert_eq!(world.refusals(), [(Reason::NoLocalEndpoint, false)]);
        }
        world.assert_no_flow();
    }
}
