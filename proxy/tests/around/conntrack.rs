use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use switchyard_cluster::object::{IpFamily, ObjectName, Protocol, TrafficPolicy};
use switchyard_proxy::addresses::LocalAddresses;
use switchyard_proxy::conntrack::{ConntrackCleaner, NodePortDestinations};
use switchyard_proxy::plan::{
    Frontend, NodePortAddresses, PlanChange, PlanId, ServicePlan, Target,
};

use crate::namespace::{in_own_network, run, without_net_admin};

const WAIT: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(400);
const VIP: &str = "172.30.0.10:53";
const A: &str = "10.0.0.5:5353";
const B: &str = "10.0.0.6:5353";

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn plan(name: &str, frontends: &[Frontend], serving: &[&str]) -> Arc<ServicePlan> {
    let family = frontends.iter().find_map(|frontend| match frontend {
        Frontend::ClusterIp(address) => Some(IpFamily::of(*address)),
        _ => None,
    });
    let target = |text: &&str| Target {
        address: socket(text).ip(),
        port: socket(text).port(),
        is_local: false,
    };
    Arc::new(ServicePlan {
        id: PlanId {
            service: ObjectName::new("ns", name),
            port_name: "".into(),
            protocol: Protocol::Udp,
            family: family.unwrap_or(IpFamily::V4),
        },
        port: 53,
        frontends: frontends.to_vec(),
        affinity_timeout_s: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        source_ranges: None,
        source_ranges_include_node: false,
        health_check_node_port: None,
        ipvs_scheduler: None,
        cluster: Box::default(),
        local: Box::default(),
        any_endpoint: !serving.is_empty(),
        serving: serving.iter().map(target).collect(),
    })
}

fn vip(text: &str) -> Frontend {
    Frontend::ClusterIp(socket(text).ip())
}

/// Puts a flow of the given client port into the table.
fn insert(client_port: u16, destination: &str, reply_from: &str) {
    let (to, from) = (socket(destination), socket(reply_from));
    let client = if to.is_ipv4() {
        "10.1.0.1"
    } else {
        "fd00:1::1"
    };
    run(&format!(
        "conntrack -I -p udp -t 600 -s {client} -d {} --sport {client_port} --dport {} \
         -r {} -q {client} --reply-port-src {} --reply-port-dst {client_port}",
        to.ip(),
        to.port(),
        from.ip(),
        from.port(),
    ));
}

/// The client ports of the flows that are left.
fn left(family: &str) -> Vec<u16> {
    let mut ports: Vec<u16> = run(&format!("conntrack -f {family} -L"))
        .lines()
        .filter_map(|line| line.split_once("sport=")?.1.split(' ').next()?.parse().ok())
        .collect();
    ports.sort_unstable();
    ports
}

fn node_ports() -> NodePortDestinations {
    NodePortDestinations {
        local: Arc::new(LocalAddresses::list().unwrap()),
        accepted: NodePortAddresses::All,
        node_ips: Vec::new(),
        localhost: true,
    }
}

/// (family, deleted, failed) of each pass.
type Passes = Receiver<(IpFamily, u64, bool)>;

fn start() -> (ConntrackCleaner, Passes) {
    let (sender, passes) = channel();
    let cleaner = ConntrackCleaner::start(node_ports(), move |pass| {
        sender
            .send((pass.family, pass.deleted, pass.failure.is_some()))
            .ok();
    })
    .unwrap();
    (cleaner, passes)
}

fn change(old: Option<&Arc<ServicePlan>>, new: Option<&Arc<ServicePlan>>) -> PlanChange {
    let id = old.or(new).unwrap().id.clone();
    PlanChange {
        id,
        old: old.cloned(),
        new: new.cloned(),
    }
}

#[test]
fn at_the_start_all_that_is_stale_goes_and_nothing_else() {
    in_own_network(|| {
        run("ip link add br0 type bridge");
        run("ip addr add 192.0.2.1/24 dev br0");
        let services = [
            plan("dns", &[vip(VIP), Frontend::NodePort(30_053)], &[A]),
            plan("empty", &[vip("172.30.0.11:53")], &[]),
        ];
        insert(1, VIP, A);
        insert(2, VIP, B);
        insert(3, VIP, VIP);
        insert(4, "172.30.0.11:53", B);
        insert(5, "172.30.0.11:53", "172.30.0.11:53");
        insert(6, "192.0.2.1:30053", B);
        insert(7, "192.0.2.1:30053", A);
        insert(8, "192.0.2.9:30053", B);
        insert(9, "8.8.8.8:53", "8.8.8.8:53");
        run(
            "conntrack -I -p tcp --state ESTABLISHED -t 600 -s 10.1.0.1 -d 172.30.0.10 \
             --sport 10 --dport 53 -r 10.0.0.9 -q 10.1.0.1 --reply-port-src 53 \
             --reply-port-dst 10",
        );

        let (cleaner, passes) = start();
        cleaner.replace(IpFamily::V4, &services);
        assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V4, 5, false)));
        assert_eq!(left("ipv4"), [1, 7, 8, 9, 10]);
        // The same again is no reason for a pass.
        cleaner.replace(IpFamily::V4, &services);
        assert!(passes.recv_timeout(QUIET).is_err());
    });
}

#[test]
fn an_endpoint_that_leaves_takes_its_flows_with_it() {
    in_own_network(|| {
        let both = plan("dns", &[vip(VIP)], &[A, B]);
        let (cleaner, passes) = start();
        cleaner.replace(IpFamily::V4, &[Arc::clone(&both)]);
        assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V4, 0, false)));
        for port in 1..=300 {
            insert(port, VIP, if port % 3 == 0 { B } else { A });
        }
        let one = plan("dns", &[vip(VIP)], &[B]);
        cleaner.apply(&[change(Some(&both), Some(&one))]);
        assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V4, 200, false)));
        assert_eq!(
            left("ipv4"),
            (1..=300).filter(|port| port % 3 == 0).collect::<Vec<_>>()
        );

        let none = plan("dns", &[vip(VIP)], &[]);
        cleaner.apply(&[change(Some(&one), Some(&none))]);
        assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V4, 100, false)));
        insert(7, VIP, VIP);
        cleaner.apply(&[change(Some(&none), Some(&both))]);
        assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V4, 1, false)));
    });
}

#[test]
fn a_removed_service_and_ipv6_are_cleaned_too() {
    in_own_network(|| {
        let (vip6, a6) = ("[fd00:30::a]:53", "[fd00:2::5]:5353");
        let service = plan("dns", &[vip(vip6)], &[a6]);
        let (cleaner, passes) = start();
        cleaner.replace(IpFamily::V6, &[Arc::clone(&service)]);
        assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V6, 0, false)));
        insert(1, vip6, a6);
        insert(2, "[fd00:30::b]:53", a6);
        cleaner.apply(&[change(Some(&service), None)]);
        assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V6, 1, false)));
        assert_eq!(left("ipv6"), [2]);
        // Forgotten once cleaned: the address may be anybody's now.
        insert(3, vip6, a6);
        let other = plan("other", &[vip("[fd00:30::c]:53")], &[]);
        cleaner.apply(&[change(None, Some(&other))]);
        assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V6, 0, false)));
        assert_eq!(left("ipv6"), [2, 3]);
    });
}

#[test]
fn many_changes_are_served_by_few_passes() {
    in_own_network(|| {
        let (cleaner, passes) = start();
        let mut old = plan("dns", &[vip(VIP)], &[A]);
        cleaner.apply(&[change(None, Some(&old))]);
        for _ in 0..500 {
            let flipped = if old
                .serving
                .iter()
                .any(|target| target.socket() == socket(A))
            {
                B
            } else {
                A
            };
            let new = plan("dns", &[vip(VIP)], &[flipped]);
            cleaner.apply(&[change(Some(&old), Some(&new))]);
            old = new;
        }
        let mut count = 0;
        while passes.recv_timeout(QUIET).is_ok() {
            count += 1;
        }
        assert!((1..=5).contains(&count), "{count} passes");
    });
}

#[test]
fn a_pass_that_fails_is_tried_again() {
    without_net_admin("conntrack::a_pass_that_fails_is_tried_again", || {
        let (cleaner, passes) = start();
        cleaner.replace(IpFamily::V4, &[plan("dns", &[vip(VIP)], &[A])]);
        let start = std::time::Instant::now();
        for _ in 0..2 {
            assert_eq!(passes.recv_timeout(WAIT), Ok((IpFamily::V4, 0, true)));
        }
        assert!(
            start.elapsed() > Duration::from_millis(900),
            "tried again without a rest"
        );
    });
}
