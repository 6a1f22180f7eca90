//! From one plan to its virtual services, set members and addresses. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use switchyard_cluster::object::{IpvsScheduler, Protocol, TrafficPolicy};
use switchyard_netlink::ipset::Entry;
use switchyard_netlink::ipvs::{Persistence, SchedulerName, Service, ServiceFlags, ServiceKey};

use super::config::{Config, netlink_family};
use super::form::{Fragment, Virtual};
use super::sets::{Set, ip_port, netlink_protocol, with_net};
use crate::plan::{Frontend, ServicePlan, Target};

/// Compiles one plan.
pub(super) fn compile(plan: &ServicePlan, config: &Config) -> Fragment {
    let mut compiler = Compiler {
        plan,
        config,
        out: Fragment::default(),
    };
    for frontend in &plan.frontends {
        compiler.frontend(*frontend);
    }
    compiler.hairpins();
    if let Some(port) = plan.health_check_node_port {
        compiler.member(Set::HealthCheckNodePort, Entry::Port(port));
    }
    compiler.out
}

/// The scheduler's name for the kernel.
pub(super) fn scheduler_name(scheduler: IpvsScheduler) -> SchedulerName {
    let known = SchedulerName::KNOWN.into_iter();
    known
        .clone()
        .find(|name| name.as_str() == scheduler.as_str())
        .unwrap_or(SchedulerName::ROUND_ROBIN)
}

/// Hashing is told to look further where a destination drains, else its share of the clients
/// would be refused; and Maglev to count the client's port, as with the reference.
const fn flags(scheduler: IpvsScheduler) -> ServiceFlags {
    match scheduler {
        IpvsScheduler::SourceHashing => ServiceFlags::HASH_FALLBACK,
        IpvsScheduler::MaglevHashing => ServiceFlags::HASH_PORT.with(ServiceFlags::HASH_FALLBACK),
        _ => ServiceFlags::NONE,
    }
}

struct Compiler<'a> {
    plan: &'a ServicePlan,
    config: &'a Config,
    out: Fragment,
}

impl Compiler<'_> {
    fn frontend(&mut self, frontend: Frontend) {
        let plan = self.plan;
        match frontend {
            Frontend::ClusterIp(address) => {
                let targets = plan.targets(plan.internal_policy);
                self.vip(address, targets, &[Set::ClusterIp]);
                if plan.any_endpoint && targets.is_empty() {
                    self.vip_member(Set::ClusterIpNoLocal, address);
                }
            }
            Frontend::ExternalIp(address) => {
                let set = match plan.external_policy {
                    TrafficPolicy::Cluster => Set::ExternalIp,
                    TrafficPolicy::Local => Set::ExternalIpLocal,
                };
                self.external(address, &[set]);
            }
            Frontend::LoadBalancerIp(address) => {
                let sets: &[Set] = match plan.external_policy {
                    TrafficPolicy::Cluster => &[Set::LoadBalancer],
                    TrafficPolicy::Local => &[Set::LoadBalancer, Set::LoadBalancerLocal],
                };
                self.external(address, sets);
                self.source_ranges(address);
            }
            Frontend::NodePort(port) => self.node_port(port),
        }
    }

    fn external(&mut self, address: IpAddr, sets: &[Set]) {
        self.vip(address, Self::external_targets(self.plan), sets);
        if self.drops_outsiders() {
            self.vip_member(Set::ExternalNoLocal, address);
        }
    }

    /// A virtual service has one list for all its clients. With policy Local that is the list
    /// for clients from outside, but pods and the node itself may go anywhere: they are why
    /// it is the whole list where there is no local endpoint, and a rule drops the others.
    fn external_targets(plan: &ServicePlan) -> &[Target] {
        match plan.external_policy {
            TrafficPolicy::Local if !plan.local.is_empty() => &plan.local,
            TrafficPolicy::Local | TrafficPolicy::Cluster => &plan.cluster,
        }
    }

    const fn drops_outsiders(&self) -> bool {
        let plan = self.plan;
        matches!(plan.external_policy, TrafficPolicy::Local)
            && plan.any_endpoint
            && plan.local.is_empty()
    }

    fn vip(&mut self, address: IpAddr, targets: &[Target], sets: &[Set]) {
        self.service(address, self.plan.port, targets);
        for set in sets {
            self.vip_member(*set, address);
        }
        if self.config.binds(address) {
            self.out.addresses.push(address);
            self.member(Set::IpvsIps, Entry::Ip(address));
        } else {
            self.out.elsewhere.push(address);
        }
    }

    fn source_ranges(&mut self, address: IpAddr) {
        let plan = self.plan;
        let Some(ranges) = plan.source_ranges.as_deref().filter(|_| plan.any_endpoint) else {
            return;
        };
        let frontend = ip_port(address, plan.id.protocol, plan.port);
        self.member(Set::LoadBalancerFirewall, Entry::IpPort(frontend));
        for range in ranges {
            self.member(Set::LoadBalancerSourceCidr, with_net(frontend, *range));
        }
        if plan.source_ranges_include_node {
            for vip in plan.load_balancer_ips() {
                self.member(Set::LoadBalancerSourceIp, Entry::IpPortIp(frontend, vip));
            }
        }
    }

    fn node_port(&mut self, port: u16) {
        let protocol = self.plan.id.protocol;
        let is_local = self.plan.external_policy == TrafficPolicy::Local;
        let drops = self.drops_outsiders();
        for address in &self.config.node_addresses {
            self.service(*address, port, Self::external_targets(self.plan));
            let entry = Entry::IpPort(ip_port(*address, protocol, port));
            if drops {
                self.member(Set::ExternalNoLocal, entry);
            }
            if protocol == Protocol::Sctp {
                self.node_port_members(is_local, entry);
            }
        }
        if protocol != Protocol::Sctp {
            self.node_port_members(is_local, Entry::Port(port));
        }
    }

    fn node_port_members(&mut self, is_local: bool, entry: Entry) {
        let (all, local) = match self.plan.id.protocol {
            Protocol::Tcp => (Set::NodePortTcp, Set::NodePortLocalTcp),
            Protocol::Udp => (Set::NodePortUdp, Set::NodePortLocalUdp),
            Protocol::Sctp => (Set::NodePortSctp, Set::NodePortLocalSctp),
        };
        self.member(all, entry);
        if is_local {
            self.member(local, entry);
        }
    }

    /// An endpoint that reaches itself must be masqueraded; that can only be one of this node.
    fn hairpins(&mut self) {
        let mut local: Vec<SocketAddr> = self
            .plan
            .cluster
            .iter()
            .chain(&self.plan.local)
            .filter(|target| target.is_local)
            .map(Target::socket)
            .collect();
        local.sort_unstable();
        local.dedup();
        let protocol = self.plan.id.protocol;
        for endpoint in local {
            let own = ip_port(endpoint.ip(), protocol, endpoint.port());
            self.member(Set::LoopBack, Entry::IpPortIp(own, endpoint.ip()));
        }
    }

    fn service(&mut self, address: IpAddr, port: u16, targets: &[Target]) {
        let plan = self.plan;
        let scheduler = self.config.scheduler_for(plan.ipvs_scheduler);
        let family = netlink_family(self.config.family);
        let persistence = plan
            .affinity_timeout_s
            .map(|seconds| Persistence::per_client(family, seconds));
        let destinations: BTreeSet<SocketAddr> = targets.iter().map(Target::socket).collect();
        let serving = plan.serving.iter().map(Target::socket);
        self.out.services.push(Virtual {
            serving: serving
                .filter(|endpoint| !destinations.contains(endpoint))
                .collect(),
            service: Service {
                key: ServiceKey {
                    protocol: netlink_protocol(plan.id.protocol),
                    address: SocketAddr::new(address, port),
                },
                scheduler: scheduler_name(scheduler),
                persistence,
                flags: flags(scheduler),
            },
            destinations,
        });
    }

    fn vip_member(&mut self, set: Set, address: IpAddr) {
        let vip = ip_port(address, self.plan.id.protocol, self.plan.port);
        self.member(set, Entry::IpPort(vip));
    }

    fn member(&mut self, set: Set, entry: Entry) {
        self.out.members.push((set, entry));
    }
}
