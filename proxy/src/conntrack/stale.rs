use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use switchyard_cluster::object::{IpFamily, Protocol};
use switchyard_netlink::conntrack::Flow;

use super::NodePortDestinations;
use crate::plan::{Frontend, PlanId, ServicePlan, Target};

/// Frontends taken away whose flows have not been cleaned yet. Beyond, the ones taken away
/// last are not remembered: their flows end by the kernel's time-out.
pub(super) const REMOVED_FRONTENDS_MAX: usize = 65_536;

/// Every UDP frontend, who serves it, and those that were ours until lately.
#[derive(Clone, Debug, Default)]
pub struct UdpFrontends {
    present: HashMap<Key, Owned>,
    /// The frontends of each Service port, as last taken over.
    by_owner: HashMap<Arc<PlanId>, Box<[Key]>>,
    /// Frontends taken away, with the number of the change that did it.
    removed: HashMap<Key, u64>,
    changes: u64,
}

/// Where a flow of a frontend is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// ClusterIP, external or LoadBalancer IP with its port.
    Socket(SocketAddr),
    /// A node port, at whichever addresses accept it.
    NodePort(IpFamily, u16),
}

impl Key {
    const fn family(self) -> IpFamily {
        match self {
            Self::Socket(SocketAddr::V4(_)) => IpFamily::V4,
            Self::Socket(SocketAddr::V6(_)) => IpFamily::V6,
            Self::NodePort(family, _) => family,
        }
    }
}

#[derive(Clone, Debug)]
struct Owned {
    owner: Arc<PlanId>,
    /// Everybody who still serves, whatever policy says.
    serving: Arc<HashSet<SocketAddr>>,
}

/// What a change asks of the cleaner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Impact {
    /// There may be stale flows now.
    pub(super) needs_pass: bool,
    /// Removed frontends that could not be remembered.
    pub(super) forgotten: usize,
}

impl Impact {
    pub(super) fn add(&mut self, other: Self) {
        self.needs_pass |= other.needs_pass;
        self.forgotten += other.forgotten;
    }
}

impl UdpFrontends {
    /// Takes over what one Service port is now; `None` is "gone". Ports that are not UDP are
    /// ignored.
    pub(super) fn set(&mut self, id: &PlanId, plan: Option<&ServicePlan>) -> Impact {
        let mut impact = Impact::default();
        if id.protocol != Protocol::Udp {
            return impact;
        }
        self.changes += 1;
        let new_keys: HashSet<Key> = plan.map(keys).into_iter().flatten().collect();
        for key in self.by_owner.remove(id).unwrap_or_default() {
            if !new_keys.contains(&key) {
                self.remove(key, id, &mut impact);
            }
        }
        let Some(plan) = plan else { return impact };
        let owned = Owned {
            owner: Arc::new(id.clone()),
            serving: Arc::new(plan.serving.iter().map(Target::socket).collect()),
        };
        for key in &new_keys {
            self.removed.remove(key);
            let before = self.present.insert(*key, owned.clone());
            impact.needs_pass |= before.is_none_or(|before| may_strand(&before, &owned));
        }
        let owner = Arc::clone(&owned.owner);
        self.by_owner.insert(owner, new_keys.into_iter().collect());
        impact
    }

    /// Takes over all Service ports of a family; those not among `plans` are gone.
    pub(super) fn replace(&mut self, family: IpFamily, plans: &[Arc<ServicePlan>]) -> Impact {
        let mut gone: HashSet<Arc<PlanId>> = self
            .by_owner
            .keys()
            .filter(|id| id.family == family)
            .cloned()
            .collect();
        let mut impact = Impact::default();
        for plan in plans.iter().filter(|plan| plan.id.family == family) {
            gone.remove(&plan.id);
            impact.add(self.set(&plan.id, Some(plan)));
        }
        for id in gone {
            impact.add(self.set(&id, None));
        }
        impact
    }

    fn remove(&mut self, key: Key, owner: &PlanId, impact: &mut Impact) {
        // Another Service may have it by now.
        if self
            .present
            .get(&key)
            .is_none_or(|owned| *owned.owner != *owner)
        {
            return;
        }
        self.present.remove(&key);
        if self.removed.len() < REMOVED_FRONTENDS_MAX {
            self.removed.insert(key, self.changes);
            impact.needs_pass = true;
        } else {
            impact.forgotten += 1;
        }
    }

    /// The number of the last change, for [`Self::forget_removed`].
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Forgets the frontends of a family that were taken away up to that change: their flows
    /// are cleaned.
    pub(super) fn forget_removed(&mut self, family: IpFamily, up_to: u64) {
        self.removed
            .retain(|key, change| key.family() != family || *change > up_to);
    }

    /// Whether a flow must go: it was sent to one of our frontends, or to one that was ours
    /// until lately, and is answered by nobody who serves it. An entry without translation is
    /// answered by the frontend itself, and so is stale as well.
    ///
    /// In a conntrack zone of somebody else's only translated flows count: virtual switches
    /// track the same packet untranslated in zones of their own.
    #[must_use]
    pub fn is_stale(&self, flow: &Flow, node_ports: &NodePortDestinations) -> bool {
        if flow.zone.is_some() && !flow.has_destination_nat() {
            return false;
        }
        let destination = flow.original.destination;
        let family = IpFamily::of(destination.ip());
        let socket = Key::Socket(destination);
        if let Some(stale) = self.judge(socket, flow) {
            return stale;
        }
        let node_port = Key::NodePort(family, destination.port());
        match self.judge(node_port, flow) {
            Some(stale) => stale && node_ports.contains(destination.ip()),
            None => false,
        }
    }

    /// `None` if nothing is known of this frontend.
    fn judge(&self, key: Key, flow: &Flow) -> Option<bool> {
        match self.present.get(&key) {
            Some(owned) => Some(!owned.serving.contains(&flow.reply.source)),
            None => self.removed.contains_key(&key).then_some(true),
        }
    }
}

/// Whether flows that were fine before may not be now: somebody left, or nobody served.
fn may_strand(before: &Owned, after: &Owned) -> bool {
    before.serving.is_empty() && !after.serving.is_empty()
        || !before.serving.is_subset(&after.serving)
}

fn keys(plan: &ServicePlan) -> impl Iterator<Item = Key> {
    plan.frontends.iter().map(|frontend| match *frontend {
        Frontend::ClusterIp(address)
        | Frontend::ExternalIp(address)
        | Frontend::LoadBalancerIp(address) => Key::Socket(SocketAddr::new(address, plan.port)),
        Frontend::NodePort(port) => Key::NodePort(plan.id.family, port),
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use switchyard_cluster::object::{ObjectName, TrafficPolicy};
    use switchyard_netlink::conntrack::{Tuple, Zone, ZoneScope};

    use super::*;
    use crate::addresses::{AddressInfo, Scope};
    use crate::plan::NodePortAddresses;

    const VIP: &str = "172.30.0.10:53";
    const CLIENT: &str = "10.1.0.1:4000";

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn plan(name: &str, frontends: &[Frontend], serving: &[&str]) -> ServicePlan {
        let family = match frontends.first() {
            Some(Frontend::ClusterIp(address)) => IpFamily::of(*address),
            _ => IpFamily::V4,
        };
        ServicePlan {
            id: PlanId {
                service: ObjectName::new("ns", name),
                port_name: "dns".into(),
                protocol: Protocol::Udp,
                family,
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
            serving: serving
                .iter()
                .map(|text| Target {
                    address: socket(text).ip(),
                    port: socket(text).port(),
                    is_local: false,
                })
                .collect(),
        }
    }

    fn cluster_ip() -> Frontend {
        Frontend::ClusterIp(socket(VIP).ip())
    }

    fn flow(destination: &str, reply_from: &str) -> Flow {
        Flow {
            original: Tuple {
                source: socket(CLIENT),
                destination: socket(destination),
            },
            reply: Tuple {
                source: socket(reply_from),
                destination: socket(CLIENT),
            },
            zone: None,
            id: Some(1),
            status: 0,
        }
    }

    fn node() -> NodePortDestinations {
        let address: IpAddr = [192, 0, 2, 1].into();
        let info = AddressInfo {
            interface_index: 2,
            scope: Scope::Global,
        };
        NodePortDestinations {
            local: Arc::new([(address, info)].into_iter().collect()),
            accepted: NodePortAddresses::All,
            node_ips: vec![address],
            localhost: true,
        }
    }

    fn with(plans: &[&ServicePlan]) -> UdpFrontends {
        let mut frontends = UdpFrontends::default();
        for plan in plans {
            frontends.set(&plan.id, Some(plan));
        }
        frontends
    }

    #[test]
    fn a_flow_to_an_endpoint_that_serves_stays_and_one_to_another_goes() {
        let frontends = with(&[&plan(
            "dns",
            &[cluster_ip()],
            &["10.0.0.5:5353", "10.0.0.6:5353"],
        )]);
        let stale = |flow| frontends.is_stale(&flow, &node());
        assert!(!stale(flow(VIP, "10.0.0.5:5353")));
        assert!(!stale(flow(VIP, "10.0.0.6:5353")));
        assert!(stale(flow(VIP, "10.0.0.7:5353")), "the endpoint is gone");
        assert!(
            stale(flow(VIP, "10.0.0.5:53")),
            "the endpoint's port changed"
        );
        assert!(stale(flow(VIP, VIP)), "never translated");
    }

    #[test]
    fn without_endpoints_every_flow_goes() {
        let frontends = with(&[&plan("dns", &[cluster_ip()], &[])]);
        assert!(frontends.is_stale(&flow(VIP, "10.0.0.5:5353"), &node()));
        assert!(frontends.is_stale(&flow(VIP, VIP), &node()));
    }

    #[test]
    fn what_was_never_ours_is_left_alone() {
        let frontends = with(&[&plan(
            "dns",
            &[cluster_ip(), Frontend::NodePort(30_053)],
            &[],
        )]);
        for other in [
            "172.30.0.10:54",
            "172.30.0.11:53",
            "8.8.8.8:53",
            "192.0.2.1:53",
        ] {
            assert!(!frontends.is_stale(&flow(other, other), &node()), "{other}");
        }
    }

    #[test]
    fn a_node_port_counts_at_our_addresses_only() {
        let frontends = with(&[&plan("vx", &[Frontend::NodePort(8472)], &["10.0.0.5:53"])]);
        // VXLAN between the nodes goes to the same port number of somebody else.
        assert!(!frontends.is_stale(&flow("192.0.2.2:8472", "192.0.2.2:8472"), &node()));
        assert!(frontends.is_stale(&flow("192.0.2.1:8472", "192.0.2.1:8472"), &node()));
        assert!(frontends.is_stale(&flow("127.0.0.1:8472", "10.0.0.9:53"), &node()));
        assert!(!frontends.is_stale(&flow("192.0.2.1:8472", "10.0.0.5:53"), &node()));
    }

    #[test]
    fn every_kind_of_frontend_counts() {
        let external: IpAddr = [198, 51, 100, 1].into();
        let balancer: IpAddr = [203, 0, 113, 1].into();
        let frontends = with(&[&plan(
            "dns",
            &[
                cluster_ip(),
                Frontend::ExternalIp(external),
                Frontend::LoadBalancerIp(balancer),
            ],
            &["10.0.0.5:53"],
        )]);
        for vip in ["198.51.100.1:53", "203.0.113.1:53"] {
            assert!(frontends.is_stale(&flow(vip, "10.0.0.6:53"), &node()));
            assert!(!frontends.is_stale(&flow(vip, "10.0.0.5:53"), &node()));
        }
    }

    #[test]
    fn ipv6_is_judged_alike() {
        let vip = "[fd00:30::a]:53";
        let v6 = plan(
            "dns",
            &[Frontend::ClusterIp(socket(vip).ip())],
            &["[fd00::5]:53"],
        );
        let frontends = with(&[&v6]);
        assert!(frontends.is_stale(&flow(vip, "[fd00::6]:53"), &node()));
        assert!(!frontends.is_stale(&flow(vip, "[fd00::5]:53"), &node()));
    }

    #[test]
    fn a_removed_service_is_cleaned_until_it_is_forgotten() {
        let old = plan(
            "dns",
            &[cluster_ip(), Frontend::NodePort(30_053)],
            &["10.0.0.5:53"],
        );
        let mut frontends = with(&[&old]);
        assert!(frontends.set(&old.id, None).needs_pass);
        assert!(frontends.is_stale(&flow(VIP, "10.0.0.5:53"), &node()));
        assert!(frontends.is_stale(&flow("192.0.2.1:30053", "10.0.0.5:53"), &node()));
        assert!(!frontends.is_stale(&flow("192.0.2.9:30053", "10.0.0.5:53"), &node()));

        let cleaned_up_to = frontends.changes();
        let other = plan(
            "other",
            &[Frontend::ExternalIp([198, 51, 100, 1].into())],
            &[],
        );
        frontends.set(&other.id, Some(&other));
        frontends.set(&other.id, None);
        frontends.forget_removed(IpFamily::V6, cleaned_up_to);
        assert!(frontends.is_stale(&flow(VIP, "10.0.0.5:53"), &node()));
        frontends.forget_removed(IpFamily::V4, cleaned_up_to);
        assert!(!frontends.is_stale(&flow(VIP, "10.0.0.5:53"), &node()));
        assert!(frontends.is_stale(&flow("198.51.100.1:53", "10.0.0.5:53"), &node()));
    }

    #[test]
    fn a_frontend_that_changes_hands_is_its_new_owners_in_either_order() {
        let first = plan("first", &[cluster_ip()], &["10.0.0.5:53"]);
        let second = plan("second", &[cluster_ip()], &["10.0.0.6:53"]);
        let (go, come) = ((&first.id, None), (&second.id, Some(&second)));
        for order in [[go, come], [come, go]] {
            let mut frontends = with(&[&first]);
            let needs_pass = order.map(|(id, plan)| frontends.set(id, plan).needs_pass);
            assert!(needs_pass.contains(&true));
            assert!(frontends.is_stale(&flow(VIP, "10.0.0.5:53"), &node()));
            assert!(!frontends.is_stale(&flow(VIP, "10.0.0.6:53"), &node()));
        }
    }

    #[test]
    fn a_full_list_takes_away_what_is_not_in_it_in_its_family_only() {
        let stays = plan("dns", &[cluster_ip()], &["10.0.0.5:53"]);
        let goes = plan(
            "old",
            &[Frontend::ExternalIp([198, 51, 100, 1].into())],
            &["10.0.0.5:53"],
        );
        let v6_vip = "[fd00:30::a]:53";
        let v6 = plan(
            "six",
            &[Frontend::ClusterIp(socket(v6_vip).ip())],
            &["[fd00::5]:53"],
        );
        let mut frontends = with(&[&stays, &goes, &v6]);
        let list = [Arc::new(stays)];
        assert!(frontends.replace(IpFamily::V4, &list).needs_pass);
        assert!(!frontends.is_stale(&flow(VIP, "10.0.0.5:53"), &node()));
        assert!(frontends.is_stale(&flow("198.51.100.1:53", "10.0.0.5:53"), &node()));
        assert!(!frontends.is_stale(&flow(v6_vip, "[fd00::5]:53"), &node()));
        assert!(
            !frontends.replace(IpFamily::V4, &list).needs_pass,
            "the same again"
        );
    }

    #[test]
    fn only_changes_that_can_strand_a_flow_need_a_pass() {
        let needs_pass = |old: &[&str], new: &[&str]| {
            let old = plan("dns", &[cluster_ip()], old);
            let new = plan("dns", &[cluster_ip()], new);
            with(&[&old]).set(&new.id, Some(&new)).needs_pass
        };
        let (a, b) = ("10.0.0.5:53", "10.0.0.6:53");
        assert!(
            !needs_pass(&[a], &[a, b]),
            "one more endpoint strands nobody"
        );
        assert!(!needs_pass(&[a], &[a]));
        assert!(needs_pass(&[a, b], &[a]));
        assert!(needs_pass(&[a], &[b]));
        assert!(needs_pass(&[a], &[]));
        assert!(needs_pass(&[], &[a]), "untranslated entries from before");
        assert!(!needs_pass(&[], &[]));
    }

    #[test]
    fn a_frontend_taken_from_or_given_to_a_service_needs_a_pass() {
        let external = Frontend::ExternalIp([198, 51, 100, 1].into());
        let small = plan("dns", &[cluster_ip()], &["10.0.0.5:53"]);
        let large = plan("dns", &[cluster_ip(), external], &["10.0.0.5:53"]);
        for (old, new) in [(&small, &large), (&large, &small)] {
            assert!(with(&[old]).set(&new.id, Some(new)).needs_pass);
        }
    }

    #[test]
    fn other_protocols_are_ignored() {
        let mut tcp = plan("web", &[cluster_ip()], &[]);
        tcp.id.protocol = Protocol::Tcp;
        let mut frontends = UdpFrontends::default();
        assert_eq!(frontends.set(&tcp.id, Some(&tcp)), Impact::default());
        assert!(!frontends.is_stale(&flow(VIP, "10.0.0.5:53"), &node()));
    }

    #[test]
    fn in_somebody_elses_zone_only_translated_flows_count() {
        let frontends = with(&[&plan("dns", &[cluster_ip()], &[])]);
        let zone = Some(Zone {
            id: 7,
            scope: ZoneScope::Both,
        });
        let untranslated = Flow {
            zone,
            ..flow(VIP, VIP)
        };
        assert!(!frontends.is_stale(&untranslated, &node()));
        let translated = Flow {
            zone,
            status: 1 << 5,
            ..flow(VIP, "10.0.0.5:53")
        };
        assert!(frontends.is_stale(&translated, &node()));
    }

    #[test]
    fn removed_frontends_are_remembered_up_to_the_limit() {
        let mut frontends = UdpFrontends::default();
        for number in 0..=u32::try_from(REMOVED_FRONTENDS_MAX).unwrap() {
            let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number);
            let plan = plan("dns", &[Frontend::ClusterIp(address.into())], &[]);
            frontends.set(&plan.id, Some(&plan));
            let impact = frontends.set(&plan.id, None);
            let over = usize::try_from(number).unwrap() >= REMOVED_FRONTENDS_MAX;
            assert_eq!(impact.forgotten, usize::from(over));
        }
    }
}
