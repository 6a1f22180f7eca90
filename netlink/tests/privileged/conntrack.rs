use std::net::SocketAddr;

use switchyard_netlink::Family;
use switchyard_netlink::conntrack::{Connection, Conntrack, Flow, Place, Tuple};

use crate::namespace::{in_own_network, run};

/// Puts a flow into the table with the real tool. `answers` is who replies.
fn insert(protocol: &str, client: &str, frontend: &str, answers: &str, zone: Option<u16>) {
    let socket = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let (client, frontend, answers) = (socket(client), socket(frontend), socket(answers));
    let state = if protocol == "tcp" {
        "--state ESTABLISHED"
    } else {
        ""
    };
    let zone = zone
        .map(|zone| format!("--zone {zone}"))
        .unwrap_or_default();
    run(&format!(
        "conntrack -I -p {protocol} -t 600 {state} {zone} -s {} -d {} --sport {} --dport {} \
         -r {} -q {} --reply-port-src {} --reply-port-dst {}",
        client.ip(),
        frontend.ip(),
        client.port(),
        frontend.port(),
        answers.ip(),
        client.ip(),
        answers.port(),
        client.port(),
    ));
}

fn udp_flows(conntrack: &mut Conntrack, family: Family) -> Vec<Flow> {
    let mut flows = Vec::new();
    conntrack
        .for_each_udp(family, |flow| flows.push(*flow))
        .unwrap();
    flows.sort_by_key(|flow| (flow.original.source, flow.zone.map(|zone| zone.id)));
    flows
}

#[test]
fn streams_udp_of_one_family_filtered_by_the_kernel() {
    in_own_network(|| {
        insert(
            "udp",
            "10.1.0.1:4000",
            "172.30.0.10:53",
            "10.0.0.5:5353",
            None,
        );
        insert(
            "udp",
            "10.1.0.2:4000",
            "172.30.0.10:53",
            "172.30.0.10:53",
            None,
        );
        insert(
            "tcp",
            "10.1.0.3:4000",
            "172.30.0.10:53",
            "10.0.0.5:5353",
            None,
        );
        insert(
            "udp",
            "[fd00::1]:4000",
            "[fd00:30::a]:53",
            "[fd00:2::5]:5353",
            None,
        );
        insert(
            "tcp",
            "[fd00::1]:4000",
            "[fd00:30::a]:53",
            "[fd00:2::5]:5353",
            None,
        );

        let mut conntrack = Conntrack::open().unwrap();
        let mut v4 = Vec::new();
        let counts = conntrack
            .for_each_udp(Family::V4, |flow| v4.push(flow.to_string()))
            .unwrap();
        v4.sort();
        assert_eq!(
            v4,
            [
                "udp 10.1.0.1:4000 -> 172.30.0.10:53 (replies from 10.0.0.5:5353)",
                "udp 10.1.0.2:4000 -> 172.30.0.10:53 (replies from 172.30.0.10:53)",
            ]
        );
        // Linux 5.8 and later send UDP only.
        assert_eq!((counts.received, counts.wanted), (2, 2));

        let v6 = udp_flows(&mut conntrack, Family::V6);
        assert_eq!(v6.len(), 1);
        assert_eq!(v6[0].reply.source, "[fd00:2::5]:5353".parse().unwrap());
        assert!(v6[0].id.is_some());
    });
}

#[test]
fn without_the_kernels_filter_the_same_flows_come() {
    in_own_network(|| {
        insert(
            "udp",
            "10.1.0.1:4000",
            "172.30.0.10:53",
            "10.0.0.5:5353",
            None,
        );
        insert(
            "tcp",
            "10.1.0.3:4000",
            "172.30.0.10:53",
            "10.0.0.5:5353",
            None,
        );
        insert(
            "udp",
            "[fd00::1]:4000",
            "[fd00:30::a]:53",
            "[fd00:2::5]:5353",
            None,
        );
        let mut conntrack = Conntrack::open().unwrap();
        let filtered = udp_flows(&mut conntrack, Family::V4);
        conntrack.filter_in_user_space();
        let mut flows = Vec::new();
        let counts = conntrack
            .for_each_udp(Family::V4, |flow| flows.push(*flow))
            .unwrap();
        assert_eq!((counts.received, counts.wanted), (2, 1));
        assert_eq!(flows, filtered);
    });
}

#[test]
fn deletes_exactly_the_flows_asked_for() {
    in_own_network(|| {
        for client in 1..=250 {
            insert(
                "udp",
                &format!("10.1.0.{client}:4000"),
                "172.30.0.10:53",
                "10.0.0.5:53",
                None,
            );
        }
        insert(
            "tcp",
            "10.1.0.1:4000",
            "172.30.0.10:53",
            "10.0.0.5:53",
            None,
        );
        let mut conntrack = Conntrack::open().unwrap();
        let flows = udp_flows(&mut conntrack, Family::V4);
        assert_eq!(flows.len(), 250);
        let (gone, kept) = flows.split_at(245);
        assert_eq!(conntrack.delete(gone).unwrap(), 245);

        let left = run("conntrack -L -p udp");
        assert_eq!(left.lines().count(), kept.len());
        for flow in kept {
            assert!(
                left.contains(&format!("src={} ", flow.original.source.ip())),
                "{left}"
            );
        }
        assert_eq!(run("conntrack -L -p tcp").lines().count(), 1);
        // Gone already: nothing deleted, nothing wrong.
        assert_eq!(conntrack.delete(gone).unwrap(), 0);
        assert_eq!(conntrack.delete(&[gone[0], kept[0]]).unwrap(), 1);
    });
}

#[test]
fn a_younger_flow_with_the_same_tuple_is_left_alone() {
    in_own_network(|| {
        insert(
            "udp",
            "10.1.0.1:4000",
            "172.30.0.10:53",
            "10.0.0.5:53",
            None,
        );
        let mut conntrack = Conntrack::open().unwrap();
        let flow = udp_flows(&mut conntrack, Family::V4)[0];
        let other = Flow {
            id: flow.id.map(|id| id ^ 1),
            ..flow
        };
        assert_eq!(conntrack.delete(&[other]).unwrap(), 0);
        assert_eq!(run("conntrack -L -p udp").lines().count(), 1);
        assert_eq!(conntrack.delete(&[flow]).unwrap(), 1);
    });
}

#[test]
fn zones_are_told_apart() {
    in_own_network(|| {
        insert(
            "udp",
            "10.1.0.1:4000",
            "172.30.0.10:53",
            "10.0.0.5:53",
            None,
        );
        insert(
            "udp",
            "10.1.0.1:4000",
            "172.30.0.10:53",
            "10.0.0.6:53",
            Some(7),
        );
        let mut conntrack = Conntrack::open().unwrap();
        let flows = udp_flows(&mut conntrack, Family::V4);
        assert_eq!(flows.len(), 2);
        let in_zone = flows.iter().find(|flow| flow.zone.is_some()).unwrap();
        assert_eq!(in_zone.reply.source, "10.0.0.6:53".parse().unwrap());
        assert_eq!(conntrack.delete(&[*in_zone]).unwrap(), 1);
        let left = run("conntrack -L -p udp");
        assert!(
            left.contains("src=10.0.0.5") && !left.contains("src=10.0.0.6"),
            "{left}"
        );
    });
}

#[test]
fn ipv6_flows_are_deleted_too() {
    in_own_network(|| {
        insert(
            "udp",
            "[fd00::1]:4000",
            "[fd00:30::a]:53",
            "[fd00:2::5]:5353",
            None,
        );
        insert(
            "udp",
            "[fd00::2]:4000",
            "[fd00:30::a]:53",
            "[fd00:2::6]:5353",
            None,
        );
        let mut conntrack = Conntrack::open().unwrap();
        let flows = udp_flows(&mut conntrack, Family::V6);
        assert_eq!(conntrack.delete(&flows[..1]).unwrap(), 1);
        let left = run("conntrack -f ipv6 -L");
        assert!(
            left.contains("fd00::2") && !left.contains("src=fd00::1"),
            "{left}"
        );
    });
}

#[test]
fn a_table_of_many_flows_is_streamed_while_flows_are_deleted() {
    in_own_network(|| {
        for client in 1..=200 {
            insert(
                "udp",
                &format!("10.2.0.{client}:4000"),
                "172.30.0.10:53",
                "10.0.0.5:53",
                None,
            );
        }
        let mut listing = Conntrack::open().unwrap();
        let mut deleting = Conntrack::open().unwrap();
        let mut deleted = 0;
        let counts = listing
            .for_each_udp(Family::V4, |flow| {
                deleted += deleting.delete(&[*flow]).unwrap();
            })
            .unwrap();
        assert_eq!(deleted, 200);
        assert!(counts.wanted >= 200);
        assert_eq!(run("conntrack -L").lines().count(), 0);
    });
}

fn place(is_tcp: bool, client: &str, endpoint: &str) -> Place {
    Place {
        is_tcp,
        original: Tuple {
            source: client.parse().unwrap(),
            destination: endpoint.parse().unwrap(),
        },
    }
}

/// More than are asked for at once.
#[test]
fn places_are_taken_where_nobody_has_them_kept_and_given_back() {
    in_own_network(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let taken = ["10.1.0.1:4000", "10.1.0.1:4001"];
        // In one direction it is the same as the first, in the other as the second.
        insert("tcp", taken[0], "10.0.0.5:8080", "10.0.0.5:8080", None);
        insert("tcp", taken[1], "172.30.0.10:80", "10.0.0.5:8080", None);
        let mut places: Vec<Place> = taken
            .into_iter()
            .map(|client| place(true, client, "10.0.0.5:8080"))
            .collect();
        let free = (0..250).map(|n| place(n % 2 == 0, &format!("10.2.0.{n}:1"), "10.0.0.5:8080"));
        let free: Vec<Place> = free.collect();
        places.extend(&free);
        let v6 = place(true, "[fd00::1]:4000", "[fd00:2::5]:8080");
        places.push(v6);
        let expected: Vec<Place> = free.iter().copied().chain([v6]).collect();
        assert_eq!(conntrack.take(&places, 60).unwrap(), expected);
        assert!(conntrack.take(&places, 60).unwrap().is_empty());

        let connections = |conntrack: &mut Conntrack| {
            let mut found: Vec<Connection> = Vec::new();
            for family in [Family::V4, Family::V6] {
                let count = conntrack.for_each_tcp(family, |it| found.push(*it));
                count.unwrap();
            }
            found
        };
        let found = connections(&mut conntrack);
        assert_eq!(found.len(), 2 + 125 + 1);
        let of_v6 = found.last().unwrap();
        assert_eq!(
            (of_v6.original, of_v6.reply),
            (v6.original, v6.original.turned())
        );
        assert!(!of_v6.is_over && !of_v6.is_answered_elsewhere() && !of_v6.is_masqueraded());

        // One is lost meanwhile.
        conntrack.give_back(&free[..1]).unwrap();
        assert_eq!(connections(&mut conntrack).len(), found.len() - 1);
        conntrack.keep(&expected, 600).unwrap();
        assert_eq!(connections(&mut conntrack).len(), found.len());
        assert_eq!(udp_flows(&mut conntrack, Family::V4).len(), 125);
        conntrack.give_back(&expected).unwrap();
        assert_eq!(connections(&mut conntrack).len(), 2);
        assert!(udp_flows(&mut conntrack, Family::V4).is_empty());
        // What is gone already is no error.
        conntrack.give_back(&expected).unwrap();
    });
}
