//! Single cases: growth, what fails half way, what others change, and indexes.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::time::Instant;

use switchyard_cluster::object::{
    Conditions, Endpoint, EndpointSlice, IpFamily, ObjectName, Protocol, Service, ServicePort,
    ServiceType, SlicePort, TrafficPolicy,
};
use switchyard_datapath::layout::limits;

use super::super::{Ebpf, Report};
use super::place::{self, Place, config, plans_of};
use super::{all, holds, indexes};
use crate::plan::generated::Generated;
use crate::plan::{NodeContext, PlanChange, PlanId, PlanTable, PlannedService};

/// A Service of one port with these many endpoints.
fn service(number: u16, protocol: Protocol, endpoints: u16) -> Generated {
    let [high, low] = number.to_be_bytes();
    let name = format!("s{number}");
    let endpoint = |at: u16| {
        let [c, d] = at.to_be_bytes();
        Endpoint {
            address: IpAddr::from([10, 200, c, d]),
            conditions: Conditions::READY,
            place: None,
            hints: None,
            naming: None,
        }
    };
    let slice = EndpointSlice {
        name: ObjectName::new("ns", format!("{name}-0")),
        service: Some(name.as_str().into()),
        family: Some(IpFamily::V4),
        ports: Box::new([SlicePort {
            name: "p".into(),
            protocol,
            port: 8080,
        }]),
        endpoints: (0..endpoints).map(endpoint).collect(),
        headless: false,
        trigger_unix_ns: None,
    };
    let service = Service {
        name: ObjectName::new("ns", name.as_str()),
        created_unix_s: 0,
        kind: ServiceType::ClusterIp,
        cluster_ips: Box::new([IpAddr::from([10, 96, high, low])]),
        headless: false,
        external_name: None,
        external_ips: Box::default(),
        load_balancer_ips: Box::default(),
        ports: Box::new([ServicePort {
            name: "p".into(),
            protocol,
            port: 80,
            node_port: None,
        }]),
        affinity_timeout_s: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        source_ranges: None,
        health_check_node_port: None,
        proxied_elsewhere: false,
        ipvs_scheduler: None,
    };
    Generated {
        service,
        slices: vec![slice],
    }
}

/// An agent with a place and plans of its own.
struct Agent {
    ebpf: Ebpf,
    plans: PlanTable,
    node: NodeContext,
    // Goes last: the agent's programs are in it.
    place: Place,
}

impl Agent {
    fn start() -> Self {
        let node = place::node();
        let place = Place::new();
        let mut ebpf = place.open(&config(&node));
        ebpf.reconcile(config(&node), &[]).unwrap();
        Self {
            ebpf,
            plans: PlanTable::default(),
            node,
            place,
        }
    }

    fn plan(&mut self, all: impl IntoIterator<Item = Generated>) -> Vec<PlanChange> {
        plans_of(&mut self.plans, &self.node, all)
    }

    fn reconcile(&mut self) -> Report {
        let (config, plans) = (config(&self.node), all(&self.plans));
        self.ebpf.reconcile(config, &plans).unwrap()
    }

    #[track_caller]
    fn holds(&self) {
        if let Err(error) = holds(&self.ebpf, &self.plans) {
            panic!("{}", error.chars().take(2000).collect::<String>());
        }
    }
}

#[test]
fn growing_keeps_every_index() {
    if !place::is_possible() {
        return;
    }
    let mut agent = Agent::start();
    let sizes = |agent: &Agent| agent.ebpf.live.as_ref().unwrap().tables.sizes();
    let small = sizes(&agent);
    for endpoints in [2, 1] {
        // More than half of the room; changing all of them takes no more.
        let changes = agent.plan((0..2500).map(|number| service(number, Protocol::Tcp, endpoints)));
        agent.ebpf.apply(&changes).unwrap();
        assert_eq!(sizes(&agent), small);
    }
    let before = indexes(&agent.ebpf);
    let changes = agent.plan((2500..5000).map(|number| service(number, Protocol::Tcp, 2)));
    agent.ebpf.apply(&changes).unwrap();
    assert!(sizes(&agent).services > small.services);
    let after = indexes(&agent.ebpf);
    assert!(
        before
            .iter()
            .all(|(id, index)| after.get(id) == Some(index))
    );
    agent.holds();
    // All gone at once, and an agent that starts then finds nothing either.
    agent.plans = PlanTable::default();
    agent.reconcile();
    agent.holds();
    agent.ebpf = agent.place.open(&config(&agent.node));
    agent.reconcile();
    agent.holds();
}

/// One change makes UDP endpoints go, another of the same batch has no room in one piece: the
/// set is replaced, and flows to those endpoints are looked for all the same.
#[test]
fn endpoints_that_go_in_a_batch_that_grows_are_noticed() {
    if !place::is_possible() {
        return;
    }
    let mut agent = Agent::start();
    let changes = agent.plan((0..300).map(|number| service(number, Protocol::Udp, 50)));
    agent.ebpf.apply(&changes).unwrap();
    let mut odd = Vec::new();
    for number in (1..300).step_by(2) {
        let name = ObjectName::new("ns", format!("s{number}"));
        odd.extend(agent.plans.update(&name, 0, PlannedService::default()));
    }
    agent.ebpf.apply(&odd).unwrap();
    agent.ebpf.housekeep(Instant::now());
    assert!(!agent.ebpf.has_stale_flows);
    let sizes = agent.ebpf.live.as_ref().unwrap().tables.sizes();
    let changes = agent.plan([
        service(0, Protocol::Udp, 49),
        service(1, Protocol::Tcp, 15_000),
    ]);
    agent.ebpf.apply(&changes).unwrap();
    assert_ne!(agent.ebpf.live.as_ref().unwrap().tables.sizes(), sizes);
    agent.holds();
    assert!(agent.ebpf.has_stale_flows);
}

/// What the kernel does not take is written when it does: a change that failed half way is not
/// taken for one that was made.
#[test]
fn a_change_that_failed_half_way_is_made_by_reconcile() {
    if !place::is_possible() {
        return;
    }
    let mut agent = Agent::start();
    let changes = agent.plan((0..5).map(|number| service(number, Protocol::Udp, 3)));
    agent.ebpf.apply(&changes).unwrap();
    agent.ebpf.housekeep(Instant::now());
    agent.reconcile();
    agent.ebpf.live.as_mut().unwrap().tables.fill_frontends();
    let changes = agent.plan((3..9).map(|number| service(number, Protocol::Udp, 2)));
    agent.ebpf.apply(&changes).unwrap_err();
    // Neither is one that succeeds after it.
    let one = agent.plan([service(0, Protocol::Udp, 2)]);
    agent.ebpf.apply(&one).unwrap();
    agent.reconcile();
    agent.holds();
    assert!(agent.ebpf.has_stale_flows);
    // A kill in the middle of a change is nothing else.
    agent.ebpf.live.as_mut().unwrap().tables.fill_frontends();
    let changes = agent.plan((5..12).map(|number| service(number, Protocol::Udp, 4)));
    agent.ebpf.apply(&changes).unwrap_err();
    agent.ebpf = agent.place.open(&config(&agent.node));
    agent.reconcile();
    agent.holds();
}

#[test]
fn what_others_changed_is_put_right() {
    if !place::is_possible() {
        return;
    }
    let mut agent = Agent::start();
    let changes = agent.plan((0..5).map(|number| service(number, Protocol::Tcp, 3)));
    agent.ebpf.apply(&changes).unwrap();
    assert!(!agent.ebpf.disturbed());
    let index = *indexes(&agent.ebpf).values().next().unwrap();
    let tables = &mut agent.ebpf.live.as_mut().unwrap().tables;
    let bits = tables.tamper(index);
    assert!(bits > 0);
    assert!(agent.ebpf.disturbed());
    let report = agent.reconcile();
    assert_eq!(
        report.repaired,
        6 + bits,
        "five frontends, a word, all bits"
    );
    assert!(!agent.ebpf.disturbed());
    agent.holds();
}

fn id(number: u32) -> PlanId {
    PlanId {
        service: ObjectName::new("ns", format!("i{number}")),
        port_name: "p".into(),
        protocol: Protocol::Tcp,
        family: IpFamily::V4,
    }
}

/// What is kept under an index must be gone before another Service port has it.
#[test]
fn indexes_rest_before_they_are_given_out_again() {
    if !place::is_possible() {
        return;
    }
    let mut agent = Agent::start();
    let identities = &mut agent.ebpf.shared.as_mut().unwrap().identities;
    let mut assign = |number| identities.assign(&id(number)).unwrap().unwrap();
    assert_eq!((assign(1), assign(2), assign(1), assign(3)), (1, 2, 1, 3));
    identities.forget(2);
    assert!(!identities.knows(&id(2)) && identities.name(2).is_none());
    identities.forget(2);
    assert_eq!((identities.len(), identities.end_after(4)), (2, 8));
    // 1,024 others are given out and back before the first comes again.
    for number in 0..1024 {
        let index = identities.assign(&id(100 + number)).unwrap().unwrap();
        assert_eq!(index, 4 + number);
        identities.forget(index);
    }
    assert_eq!(identities.assign(&id(9)).unwrap(), Some(2));
    assert_eq!(identities.assign(&id(10)).unwrap(), Some(1028));
    // Where there would be too many, those that rest serve.
    assert_eq!(identities.end_after(0), 1029);
    let room = limits::SERVICES_MAX - 1029;
    assert_eq!(identities.end_after(room + 1024), limits::SERVICES_MAX);
    assert_eq!(identities.end_after(room + 1025), limits::SERVICES_MAX + 1);
    identities.retain(|index| index == 1);
    assert_eq!(identities.len(), 1);
}

/// An agent that starts takes indexes over, and gives back those that nobody asks for.
#[test]
fn indexes_of_services_that_went_meanwhile_are_given_back() {
    if !place::is_possible() {
        return;
    }
    let mut agent = Agent::start();
    let changes = agent.plan((0..3).map(|number| service(number, Protocol::Tcp, 1)));
    agent.ebpf.apply(&changes).unwrap();
    let before = indexes(&agent.ebpf);
    let gone = ObjectName::new("ns", "s1");
    agent.plans.update(&gone, 0, PlannedService::default());
    agent.ebpf = agent.place.open(&config(&agent.node));
    agent.reconcile();
    agent.holds();
    let after = indexes(&agent.ebpf);
    assert_eq!(after.len(), 2);
    assert!(
        after
            .iter()
            .all(|(id, index)| before.get(id) == Some(index))
    );
    let changes = agent.plan([service(1, Protocol::Tcp, 1)]);
    agent.ebpf.apply(&changes).unwrap();
    agent.holds();
    let again = indexes(&agent.ebpf);
    let (id, index) = again.iter().find(|(id, _)| id.service == gone).unwrap();
    assert_ne!(before.get(id), Some(index), "it rests");
}

/// A Service that has no form in the maps is refused, and what it was stays.
#[test]
fn a_plan_without_a_form_is_refused_and_the_old_one_stays() {
    if !place::is_possible() {
        return;
    }
    let mut agent = Agent::start();
    let with_port = |port| {
        let mut sctp = service(1, Protocol::Sctp, 2);
        sctp.slices[0].ports[0].port = port;
        sctp
    };
    let changes = agent.plan([with_port(80)]);
    agent.ebpf.apply(&changes).unwrap();
    let changes = agent.plan([with_port(81), service(2, Protocol::Tcp, 1)]);
    agent.ebpf.apply(&changes).unwrap();
    let refused: Vec<_> = agent.ebpf.refused().values().collect();
    assert!(
        matches!(&refused[..], [one] if one.message.contains("SCTP port 80 with target port 81")),
        "{refused:?}"
    );
    assert_eq!(indexes(&agent.ebpf).len(), 2);
    agent.reconcile();
    assert_eq!(
        (agent.ebpf.refused().len(), indexes(&agent.ebpf).len()),
        (1, 2)
    );
    agent.plan([with_port(80)]);
    agent.reconcile();
    assert!(agent.ebpf.refused().is_empty());
    agent.holds();
}

/// Pins whose names something else has are left alone, and others are used from then on.
#[test]
fn pins_of_another_shape_are_left_alone() {
    if !place::is_possible() {
        return;
    }
    let mut agent = Agent::start();
    let changes = agent.plan([service(1, Protocol::Udp, 2)]);
    agent.ebpf.apply(&changes).unwrap();
    let maps = agent.ebpf.pins.maps().to_path_buf();
    let links = agent.ebpf.pins.links().to_path_buf();
    for (name, other) in [("FLOWS", "AFFINITY"), ("IDENTITIES", "DROPS")] {
        fs::remove_file(maps.join(name)).unwrap();
        fs::hard_link(maps.join(other), maps.join(name)).unwrap();
    }
    fs::remove_file(maps.join("COUNTERS")).unwrap();
    symlink(maps.join("nowhere"), maps.join("COUNTERS")).unwrap();
    fs::remove_file(links.join("connect4")).unwrap();
    fs::create_dir(links.join("connect4")).unwrap();
    agent.ebpf = agent.place.open(&config(&agent.node));
    agent.reconcile();
    agent.holds();
    for path in ["FLOWS-2", "IDENTITIES-2", "COUNTERS-2"] {
        assert!(maps.join(path).exists(), "{path}");
    }
    assert!(links.join("connect4-2").exists());
    assert!(agent.ebpf.attached.is_whole());
    let before = indexes(&agent.ebpf);
    agent.ebpf = agent.place.open(&config(&agent.node));
    agent.reconcile();
    agent.holds();
    assert_eq!(indexes(&agent.ebpf), before);
    assert!(!maps.join("FLOWS-3").exists() && !links.join("connect4-3").exists());
    for path in [
        maps.join("FLOWS"),
        maps.join("IDENTITIES"),
        maps.join("COUNTERS"),
    ] {
        fs::remove_file(path).unwrap();
    }
    fs::remove_dir(links.join("connect4")).unwrap();
}
