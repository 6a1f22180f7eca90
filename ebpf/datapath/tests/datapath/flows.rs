//! Flows from their first packet to their last, both ways, and what the table holds meanwhile.

use std::net::IpAddr;
use std::time::Duration;

use switchyard_datapath::layout::{Kind, Reason, SCTP, TCP, UDP, flow_flags, settings_flags};

use crate::packets::{ACK, FIN, RST, SYN};
use crate::world::{FAMILIES, Family, PODS, RANGES, Tuple, UPLINK, WEB, World};

const PORT: u16 = 5000;

pub(crate) fn to_vip(family: Family, client: IpAddr) -> Tuple {
    Tuple::new((client, PORT), (family.vip(), 80))
}

pub(crate) fn to_other(family: Family, client: IpAddr) -> Tuple {
    Tuple::new((client, PORT), (family.other_vip(), 80))
}

#[test]
fn a_masqueraded_flow_has_four_entries_and_its_replies_come_from_the_vip() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let world = World::with_endpoints(family, protocol);
            let sent = to_vip(family, family.outside());
            let routed = world.comes(UPLINK, sent, SYN).unwrap();
            assert_eq!(world.entries(flow_flags::PENDING).len(), 1);
            let out = world.goes(PODS, routed, SYN).unwrap();
            assert_eq!(out.destination, routed.destination);
            assert_eq!(out.source.0, family.node());
            assert!(
                RANGES
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&out.source.1))
            );
            world.assert_one_flow(4);
            assert_eq!(world.entries(flow_flags::PENDING), []);

            let answer = world.comes(PODS, out.reversed(), SYN | ACK).unwrap();
            assert_eq!(answer, routed.reversed());
            let answer = world.goes(UPLINK, answer, SYN | ACK).unwrap();
            assert_eq!(answer, sent.reversed());

            for _ in 0..3 {
                assert_eq!(world.through(UPLINK, PODS, sent, ACK), Some(out));
                assert_eq!(
                    world.through(PODS, UPLINK, out.reversed(), ACK),
                    Some(sent.reversed())
                );
            }
            world.assert_one_flow(4);
            // Datagrams are a stream once they go on for a while.
            let is_stream = |wanted: bool| {
                for (key, value) in world.table.flows() {
                    assert_eq!(value.flags & flow_flags::STREAM != 0, wanted, "{key:?}");
                }
            };
            is_stream(protocol == TCP);
            world.table.advance(Duration::from_millis(1500));
            world.through(UPLINK, PODS, sent, ACK).unwrap();
            world.through(PODS, UPLINK, out.reversed(), ACK).unwrap();
            is_stream(true);
            // Each packet once, though it meets two entries.
            let counted = world.counted();
            let headers = if family == Family::V4 { 20 } else { 40 };
            let length = headers + if protocol == TCP { 20 } else { 8 } + 7;
            assert_eq!((counted.connections, counted.packets), (1, 10));
            assert_eq!(counted.bytes, 10 * length);
        }
    }
}

#[test]
fn other_flows_have_two_entries() {
    for family in FAMILIES {
        for protocol in [TCP, UDP] {
            let world = World::with_endpoints(family, protocol);
            let sent = to_vip(family, family.pod());
            let out = world.through(PODS, UPLINK, sent, SYN).unwrap();
            assert_eq!(out.source, sent.source);
            assert_eq!(
                world.through(UPLINK, PODS, out.reversed(), ACK),
                Some(sent.reversed())
            );
            world.assert_one_flow(2);
            assert_eq!(world.counted().connections, 1);
            assert_eq!(world.refusals(), []);
        }
    }
}

#[test]
fn an_endpoint_reaches_itself_by_way_of_the_node() {
    for family in FAMILIES {
        let mut world = World::new(family, TCP);
        world.offer(WEB, &[2]);
        let sent = to_vip(family, family.endpoint(2));
        let out = world.through(PODS, PODS, sent, SYN).unwrap();
        assert_eq!(out.source.0, family.node());
        assert_eq!(out.destination, (family.endpoint(2), 8080));
        let back = world.through(PODS, PODS, out.reversed(), SYN | ACK);
        assert_eq!(back, Some(sent.reversed()));
        world.assert_one_flow(4);
    }
}

#[test]
fn what_is_not_ours_goes_on_as_it_is() {
    for family in FAMILIES {
        for protocol in [TCP, UDP, SCTP, 47] {
            let world = World::with_endpoints(family, protocol);
            let port = if protocol == 47 { 0 } else { PORT };
            let sent = Tuple::new((family.pod(), port), (family.outside(), port));
            for flags in [SYN, ACK, FIN, RST] {
                assert_eq!(world.through(PODS, UPLINK, sent, flags), Some(sent));
            }
            world.assert_no_flow();
        }
    }
}

#[test]
fn a_repeated_syn_keeps_its_endpoint() {
    for family in FAMILIES {
        for client in [family.pod(), family.outside()] {
            let world = World::with_endpoints(family, TCP);
            let sent = to_vip(family, client);
            let out = world.through(PODS, UPLINK, sent, SYN);
            for _ in 0..20 {
                assert_eq!(world.through(PODS, UPLINK, sent, SYN), out);
            }
            assert_eq!(world.counted().connections, 1);
        }
    }
}

/// A client uses a port again after either side closed the connection.
#[test]
fn a_syn_over_a_closed_connection_opens_a_new_one() {
    for family in FAMILIES {
        for (flags, by_client) in [
            (FIN | ACK, true),
            (RST, true),
            (FIN | ACK, false),
            (RST, false),
        ] {
            for client in [family.pod(), family.outside()] {
                let mut world = World::new(family, TCP);
                world.offer(WEB, &[1]);
                let sent = to_vip(family, client);
                let out = world.through(PODS, UPLINK, sent, SYN).unwrap();
                let entries = world.table.flows().len();
                world.offer(WEB, &[1, 3]);
                if by_client {
                    assert_eq!(world.through(PODS, UPLINK, sent, flags), Some(out));
                } else {
                    let back = world.through(UPLINK, PODS, out.reversed(), flags);
                    assert_eq!(back, Some(sent.reversed()));
                }
                let old = world.table.flows();
                world.through(PODS, UPLINK, sent, SYN).unwrap();
                world.assert_one_flow(entries);
                let ids: Vec<u64> = old.values().map(|value| value.id).collect();
                assert!(
                    world
                        .table
                        .flows()
                        .values()
                        .all(|value| !ids.contains(&value.id))
                );
                assert_eq!(world.counted().connections, 2);
            }
        }
    }
}

#[test]
fn a_syn_to_an_endpoint_that_takes_no_more_gets_another() {
    for family in FAMILIES {
        for client in [family.pod(), family.outside()] {
            let mut world = World::new(family, TCP);
            world.offer(WEB, &[1]);
            let sent = to_vip(family, client);
            let before = world.through(PODS, UPLINK, sent, SYN).unwrap();
            let entries = world.table.flows().len();
            world.offer(WEB, &[2]);
            // What is under way stays where it is.
            assert_eq!(world.through(PODS, UPLINK, sent, ACK), Some(before));
            let after = world.through(PODS, UPLINK, sent, SYN).unwrap();
            assert_eq!(after.destination.0, family.endpoint(2));
            world.assert_one_flow(entries);
            // The Service itself is gone.
            world.table.set_word(WEB, 0);
            assert_eq!(world.through(PODS, UPLINK, sent, ACK), Some(after));
            assert_eq!(world.comes(PODS, sent, SYN), Some(sent));
            world.assert_no_flow();
        }
    }
}

#[test]
fn a_reset_without_a_flow_is_lost_and_opens_none() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        for flags in [RST, RST | ACK] {
            assert_eq!(world.comes(PODS, to_vip(family, family.pod()), flags), None);
        }
        world.assert_no_flow();
    }
}

/// After a restart with an empty table, connections go on where their hash says.
#[test]
fn a_segment_without_a_flow_opens_one() {
    for family in FAMILIES {
        let world = World::with_endpoints(family, TCP);
        let sent = to_vip(family, family.outside());
        let out = world.comes(UPLINK, sent, SYN).unwrap();
        for flags in [ACK, FIN | ACK] {
            world.table.forget_flows();
            assert_eq!(world.comes(UPLINK, sent, flags), Some(out));
        }
    }
}

#[test]
fn sctp_goes_where_its_ports_may_stay() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, SCTP);
        let vip = family.vip().into();
        world
            .table
            .add_frontend(vip, 8080, SCTP, WEB, Kind::ClusterIp);
        assert_eq!(world.comes(PODS, to_vip(family, family.pod()), 0), None);
        assert_eq!(world.refusals(), [(Reason::NotRewritable, false)]);
        world.assert_no_flow();
        for (client, entries) in [(family.pod(), 2), (family.outside(), 4)] {
            world.table.forget_flows();
            let sent = Tuple::new((client, PORT), (family.vip(), 8080));
            let out = world.through(PODS, UPLINK, sent, 0).unwrap();
            // Its own port, though it is not one of ours: the checksum covers it.
            assert_eq!(out.source.1, PORT);
            assert_eq!(
                world.through(UPLINK, PODS, out.reversed(), 0),
                Some(sent.reversed())
            );
            world.assert_one_flow(entries);
        }
        // Another client with the same port can't be told apart.
        world.offer(WEB, &[1]);
        let clients = [family.outside(), family.external()];
        world.table.forget_flows();
        let [first, second] = clients.map(|client| {
            let sent = Tuple::new((client, PORT), (family.vip(), 8080));
            world.through(UPLINK, PODS, sent, 0)
        });
        assert!(first.is_some());
        assert_eq!(second, None);
        assert_eq!(world.refusals(), [(Reason::NoMasqueradePort, false)]);
    }
}

#[test]
fn when_a_flow_was_seen_is_known_to_the_second() {
    let family = Family::V4;
    let world = World::with_endpoints(family, TCP);
    let sent = to_vip(family, family.pod());
    let seen = || world.entries(flow_flags::REQUEST)[0].1.seen_ns;
    world.comes(PODS, sent, SYN).unwrap();
    let opened = seen();
    world.table.advance(Duration::from_millis(900));
    world.comes(PODS, sent, ACK).unwrap();
    assert_eq!(seen(), opened);
    world.table.advance(Duration::from_millis(101));
    world.comes(PODS, sent, ACK).unwrap();
    assert_eq!(seen(), opened + 1_001_000_000);
}

/// While connections of another mode may go on, what belongs to one that is not known is left alone;
/// what begins is not, nor is what is known.
#[test]
fn connections_that_others_began_are_left_alone_in_a_handover() {
    for family in FAMILIES {
        let mut world = World::with_endpoints(family, TCP);
        let known = to_vip(family, family.outside());
        let routed = world.comes(UPLINK, known, SYN).unwrap();
        world.set_settings(settings_flags::PODS_BY_CIDR | settings_flags::HANDOVER);
        let theirs = Tuple::new((family.outside(), PORT + 1), (family.vip(), 80));
        for flags in [ACK, SYN | ACK, FIN | ACK, RST] {
            assert_eq!(world.comes(UPLINK, theirs, flags), Some(theirs));
        }
        assert_eq!(world.comes(UPLINK, known, ACK), Some(routed));
        assert_eq!(world.refusals(), []);
        let begun = world.comes(UPLINK, theirs, SYN).unwrap();
        assert_ne!(begun, theirs);
        assert_eq!(world.comes(UPLINK, theirs, ACK), Some(begun));
    }
    let mut world = World::with_endpoints(FAMILIES[0], UDP);
    world.set_settings(settings_flags::PODS_BY_CIDR | settings_flags::HANDOVER);
    let sent = to_vip(FAMILIES[0], FAMILIES[0].outside());
    assert_ne!(world.comes(UPLINK, sent, 0), Some(sent));
}
