//! Plans and what they become, field by field.

use std::sync::Arc;

use switchyard_cluster::object::ObjectName;
use switchyard_datapath::layout::ENDPOINTS_MAX;

use super::super::slot::Slot;
use super::*;
use crate::plan::PlanId;

fn target(address: &str, port: u16) -> Target {
    Target {
        address: address.parse().unwrap(),
        port,
        is_local: false,
    }
}

/// A plan that is reached at these frontends and has these endpoints.
fn plan(protocol: Protocol, frontends: &[Frontend], cluster: &[Target]) -> ServicePlan {
    let family = match frontends.first() {
        Some(Frontend::ClusterIp(address)) => IpFamily::of(*address),
        _ => IpFamily::V4,
    };
    ServicePlan {
        id: PlanId {
            service: ObjectName::new("ns", "svc"),
            port_name: Arc::from(""),
            protocol,
            family,
        },
        port: 80,
        frontends: frontends.to_vec(),
        affinity_timeout_s: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        source_ranges: None,
        source_ranges_include_node: false,
        health_check_node_port: None,
        ipvs_scheduler: None,
        cluster: cluster.into(),
        local: Box::default(),
        any_endpoint: !cluster.is_empty(),
        serving: cluster.into(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vip() -> Frontend {
    Frontend::ClusterIp(ip("10.96.0.1"))
}

/// Plans and their headers.
#[test]
fn headers_say_what_plans_say() {
    let two = [target("10.0.0.1", 8080), target("10.0.0.2", 8080)];
    let tcp = || plan(Protocol::Tcp, &[vip()], &two);
    let header = Header {
        cluster: 2,
        flags: header_flags::ANY_ENDPOINT,
        ..Header::default()
    };
    let any = header_flags::ANY_ENDPOINT;
    let mut cases = vec![(tcp(), header)];
    let mut case = |change: &dyn Fn(&mut ServicePlan), expected: Header| {
        let mut plan = tcp();
        change(&mut plan);
        cases.push((plan, expected));
    };
    case(
        &|plan| plan.internal_policy = TrafficPolicy::Local,
        Header {
            flags: any | header_flags::INTERNAL_LOCAL,
            ..header
        },
    );
    case(
        &|plan| {
            plan.external_policy = TrafficPolicy::Local;
            plan.local = [two[1]].into();
        },
        Header {
            local: 1,
            flags: any | header_flags::EXTERNAL_LOCAL,
            ..header
        },
    );
    case(
        &|plan| plan.affinity_timeout_s = Some(10_800),
        Header {
            affinity_s: 10_800,
            ..header
        },
    );
    case(
        &|plan| plan.source_ranges_include_node = true,
        Header {
            flags: any | header_flags::RANGES_INCLUDE_NODE,
            ..header
        },
    );
    // There are endpoints, but not for anybody here.
    case(
        &|plan| plan.cluster = Box::default(),
        Header {
            cluster: 0,
            ..header
        },
    );
    case(
        &|plan| {
            plan.cluster = Box::default();
            plan.any_endpoint = false;
        },
        Header {
            cluster: 0,
            flags: 0,
            ..header
        },
    );
    // Only UDP has a list of those that serve.
    case(
        &|plan| plan.id.protocol = Protocol::Udp,
        Header {
            serving: 2,
            ..header
        },
    );
    // Only where somebody else may come, all nodes must choose alike.
    for frontend in [
        Frontend::NodePort(30_001),
        Frontend::ExternalIp(ip("203.0.113.1")),
        Frontend::LoadBalancerIp(ip("203.0.113.1")),
    ] {
        case(
            &|plan| plan.frontends.push(frontend),
            Header {
                maglev: 251,
                ..header
            },
        );
    }
    // Nothing to choose from.
    case(
        &|plan| {
            plan.frontends.push(Frontend::NodePort(30_001));
            plan.cluster = [two[0]].into();
        },
        Header {
            cluster: 1,
            ..header
        },
    );
    for (plan, expected) in cases {
        let compiled = compile(&plan).unwrap();
        assert_eq!(compiled.header, expected, "{plan:?}");
        let block = compiled.block(7, 9);
        let numbered = Header {
            service: 7,
            ranges: 9,
            ..expected
        };
        assert_eq!(block[0], Slot::from(numbered));
        assert_eq!(u32::try_from(block.len()).unwrap(), compiled.slots());
    }
}

#[test]
fn lists_stand_behind_each_other_in_the_order_lookups_need() {
    let [a, b, c] = ["10.0.0.2", "10.0.0.1", "9.0.0.3"].map(|text| target(text, 5353));
    let other_port = target("10.0.0.2", 53);
    let mut udp = plan(Protocol::Udp, &[vip()], &[a, b, c, other_port]);
    udp.local = [a, b].into();
    udp.serving = [c].into();
    let in_order = |targets: &[Target]| {
        let mut endpoints: Vec<Endpoint> = targets.iter().map(endpoint).collect();
        endpoints.sort_unstable();
        endpoints.into_iter().map(Slot::from).collect::<Vec<_>>()
    };
    let block = compile(&udp).unwrap().block(1, 0);
    let expected = [
        in_order(&[a, b, c, other_port]),
        in_order(&[a, b]),
        in_order(&[c]),
    ]
    .concat();
    assert_eq!(block[1..], expected);
}

#[test]
fn positions_are_the_same_whatever_the_order_of_the_plan() {
    let targets: Vec<Target> = (1..=5)
        .map(|n| target(&format!("10.0.0.{n}"), 80))
        .collect();
    let backwards: Vec<Target> = targets.iter().rev().copied().collect();
    let frontends = [vip(), Frontend::NodePort(30_001)];
    let blocks = [&targets, &backwards].map(|targets| {
        let compiled = compile(&plan(Protocol::Tcp, &frontends, targets)).unwrap();
        compiled.block(1, 0)
    });
    assert_eq!(blocks[0], blocks[1]);
    // 509 positions in 32 slots, all of them of the five.
    assert_eq!(blocks[0].len(), 1 + 5 + 32);
    let positions = blocks[0][6..].iter().flat_map(|slot| slot.0);
    let positions = positions.flat_map(|word| {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes)
    });
    let mut counts = [0_u32; 5];
    for position in positions.take(509) {
        counts[usize::from(position)] += 1;
    }
    assert!(
        counts.iter().all(|count| (101..=103).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn frontends_and_addresses_are_those_of_the_plan() {
    let key = |address: &str, port: u16, protocol| FrontendKey {
        address: Address::from(ip(address)),
        port: port.to_be(),
        protocol,
        reserved: 0,
    };
    let frontends = [
        vip(),
        Frontend::ExternalIp(ip("203.0.113.1")),
        Frontend::LoadBalancerIp(ip("203.0.113.2")),
        Frontend::NodePort(30_001),
    ];
    let compiled = compile(&plan(Protocol::Udp, &frontends, &[])).unwrap();
    assert_eq!(
        compiled.frontends,
        [
            (key("10.96.0.1", 80, 17), Kind::ClusterIp),
            (key("203.0.113.1", 80, 17), Kind::External),
            (key("203.0.113.2", 80, 17), Kind::LoadBalancer),
            (key("0.0.0.0", 30_001, 17), Kind::External),
        ]
    );
    let known = |address: &str, flags| (Address::from(ip(address)), flags);
    assert_eq!(
        compiled.addresses,
        [
            known("10.96.0.1", address_flags::CLUSTER_IP),
            known("203.0.113.1", address_flags::EXTERNAL),
            known("203.0.113.2", address_flags::EXTERNAL),
        ]
    );
    let v6 = [
        Frontend::ClusterIp(ip("fd00:96::1")),
        Frontend::NodePort(30_002),
    ];
    let compiled = compile(&plan(Protocol::Tcp, &v6, &[])).unwrap();
    assert_eq!(compiled.frontends[1].0, key("::", 30_002, 6));
    assert_eq!(protocol_number(Protocol::Sctp), 132);
}

#[test]
fn ranges_count_from_where_their_family_is() {
    let mut ranged = plan(Protocol::Tcp, &[vip()], &[]);
    let compiled_ranges = |plan: &ServicePlan| compile(plan).unwrap().ranges;
    assert_eq!(compiled_ranges(&ranged), None);
    ranged.source_ranges = Some(Box::default());
    assert_eq!(compiled_ranges(&ranged), Some(vec![]), "nobody");
    let nets = ["10.1.2.3/8", "203.0.113.4/32", "fd00:1::/48", "::1/128"];
    ranged.source_ranges = Some(nets.map(|text| text.parse().unwrap()).into());
    let expected = [
        (104, "10.0.0.0"),
        (128, "203.0.113.4"),
        (48, "fd00:1::"),
        (128, "::1"),
    ];
    let expected = expected.map(|(bits, text)| (bits, Address::from(ip(text))));
    assert_eq!(compiled_ranges(&ranged), Some(expected.to_vec()));
}

#[test]
fn sctp_keeps_its_port() {
    let at = |frontends: &[Frontend], port| {
        let targets = [target("10.0.0.1", 80), target("10.0.0.2", port)];
        compile(&plan(Protocol::Sctp, frontends, &targets))
    };
    assert!(at(&[vip()], 80).is_ok());
    let error = at(&[vip()], 3868).unwrap_err();
    assert_eq!(
        error,
        CompileError::SctpPort {
            port: 80,
            target: 3868
        }
    );
    assert!(error.to_string().contains("use the same port"), "{error}");
    // The node port is another one.
    let error = at(&[vip(), Frontend::NodePort(30_001)], 80).unwrap_err();
    assert_eq!(
        error,
        CompileError::SctpPort {
            port: 30_001,
            target: 80
        }
    );
    // Nobody is sent anywhere: nothing to complain of.
    assert!(
        compile(&plan(
            Protocol::Sctp,
            &[vip(), Frontend::NodePort(30_001)],
            &[]
        ))
        .is_ok()
    );
}

/// As many as a list may have: from outside too, all of them are chosen from.
#[test]
fn the_longest_lists_have_a_form() {
    let targets = |count: u32| -> Vec<Target> {
        let address = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let of = |n| Target {
            address: address(n),
            port: 80,
            is_local: false,
        };
        (0..count).map(of).collect()
    };
    let frontends = [vip(), Frontend::NodePort(30_001)];
    for count in [65_521, 65_522, ENDPOINTS_MAX] {
        let compiled = compile(&plan(Protocol::Tcp, &frontends, &targets(count))).unwrap();
        let table = compiled.maglev();
        let is_degenerate = table.iter().all(|slot| *slot == Slot::default());
        assert!(
            table.is_empty() || !is_degenerate,
            "{count}: all go to one endpoint"
        );
        assert_eq!(
            u32::try_from(compiled.block(1, 0).len()).unwrap(),
            compiled.slots()
        );
    }
    let count = usize::try_from(ENDPOINTS_MAX).unwrap() + 1;
    let error = compile(&plan(
        Protocol::Tcp,
        &frontends,
        &targets(ENDPOINTS_MAX + 1),
    ));
    assert_eq!(error, Err(CompileError::TooManyEndpoints { count }));
    assert!(error.unwrap_err().to_string().contains("65536 endpoints"));
}
