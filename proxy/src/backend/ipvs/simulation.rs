//! Walks a packet through the rules, sets and virtual services without a kernel, and compares what
//! becomes of it with [`verdict`], for random clusters.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use switchyard_cluster::object::{IpFamily, IpvsScheduler, TrafficPolicy};
use switchyard_netlink::ipvs::ServiceKey;

use super::compile::compile;
use super::config::Config;
use super::form::Wanted;
use super::rules;
use super::sets::{Set, netlink_protocol};
use crate::backend::xtables::simulation::{End, Fate, Simulation, Walker, packets};
use crate::backend::xtables::{FixedChain, Table};
use crate::plan::generated::{NODE_ADDRESSES, cluster, node, table};
use crate::plan::{
    Frontend, NodeContext, Packet, PlanTable, ServicePlan, Target, Verdict, verdict,
};

/// What the kernel of one family has.
struct Kernel {
    rules: Simulation,
    services: Wanted,
    bound: HashSet<IpAddr>,
}

impl Kernel {
    fn new(plans: &PlanTable, config: &Config, node_addresses: &[IpAddr]) -> Self {
        let mut rules = Simulation::default();
        for set in Set::ALL {
            rules.sets.insert(set.name(config.family), HashSet::new());
        }
        for jump in rules::jumps() {
            rules.add(jump.table, jump.from, &jump.rule);
        }
        for FixedChain { table, chain } in rules::chains(config) {
            for rule in &chain.rules {
                rules.add(table, &chain.name, rule);
            }
        }
        let (mut services, mut node_ports) = (Wanted::new(), Wanted::new());
        let mut bound = HashSet::new();
        let of_family = plans.plans().filter(|plan| plan.id.family == config.family);
        for plan in of_family {
            let fragment = compile(plan, config);
            for (set, entry) in fragment.members {
                let members = rules.sets.entry(set.name(config.family)).or_default();
                members.insert(entry);
            }
            bound.extend(fragment.addresses);
            for service in fragment.services {
                let key = service.service.key;
                let list = if key.address.port() == plan.port {
                    &mut services
                } else {
                    &mut node_ports
                };
                list.insert(key, service);
            }
        }
        for (key, service) in node_ports {
            services.entry(key).or_insert(service);
        }
        rules.local = node_addresses.iter().chain(&bound).copied().collect();
        Self {
            rules,
            services,
            bound,
        }
    }

    /// Everything that can become of a packet, over all choices of the schedulers.
    fn fates(&self, packet: &Packet) -> BTreeSet<Fate> {
        let mut walkers = vec![Walker::of(packet)];
        let mut fates = BTreeSet::new();
        if packet.in_interface.is_none() {
            walkers = self.through(Table::Mangle, "OUTPUT", walkers, &mut fates);
            walkers = self.through(Table::Nat, "OUTPUT", walkers, &mut fates);
            walkers = self.through_ipvs(walkers, &mut fates);
            walkers = self.through(Table::Filter, "OUTPUT", walkers, &mut fates);
            walkers = self.through(Table::Nat, "POSTROUTING", walkers, &mut fates);
        } else {
            walkers = self.through(Table::Nat, "PREROUTING", walkers, &mut fates);
        }
        if self.rules.local.contains(&packet.destination) {
            let (done, here): (Vec<_>, Vec<_>) =
                walkers.into_iter().partition(|walker| walker.translated);
            let mut here = self.through(Table::Filter, "INPUT", here, &mut fates);
            here = self.through_ipvs(here, &mut fates);
            let (translated, untouched): (Vec<_>, Vec<_>) =
                here.into_iter().partition(|walker| walker.translated);
            let translated = self.through(Table::Nat, "POSTROUTING", translated, &mut fates);
            walkers = done;
            walkers.extend(translated.into_iter().chain(untouched));
        }
        fates.extend(walkers.iter().map(Walker::fate));
        fates
    }

    fn through(
        &self,
        table: Table,
        hook: &str,
        walkers: Vec<Walker>,
        fates: &mut BTreeSet<Fate>,
    ) -> Vec<Walker> {
        let mut left = Vec::new();
        for walker in walkers {
            for (walker, end) in self.rules.walk(table, hook, walker) {
                match end {
                    End::Through | End::Returned | End::Accepted => left.push(walker),
                    End::Dropped => drop(fates.insert(Fate::Drop)),
                    End::Rejected => drop(fates.insert(Fate::Reject)),
                }
            }
        }
        left
    }

    fn through_ipvs(&self, walkers: Vec<Walker>, fates: &mut BTreeSet<Fate>) -> Vec<Walker> {
        let mut left = Vec::new();
        for walker in walkers {
            let key = ServiceKey {
                protocol: netlink_protocol(walker.protocol),
                address: walker.destination,
            };
            let Some(service) = self.services.get(&key) else {
                left.push(walker);
                continue;
            };
            if service.destinations.is_empty() {
                fates.insert(Fate::Reject);
            }
            left.extend(service.destinations.iter().map(|to| Walker {
                destination: *to,
                translated: true,
                ..walker.clone()
            }));
        }
        left
    }
}

/// Whether what becomes of a packet is what the oracle says, but for what IPVS does otherwise by
/// design (`tests/cases/differences-ipvs.yaml` has the same, and docs/ipvs.md).
fn agrees(
    fates: &BTreeSet<Fate>,
    wanted: &Verdict,
    packet: &Packet,
    kernel: &Kernel,
    external_local: Option<&ServicePlan>,
) -> bool {
    let only = |fate| *fates == BTreeSet::from([fate]);
    if packet.destination.is_loopback() {
        return only(Fate::Untouched); // the relay has those, where it is wanted and has endpoints
    }
    match wanted {
        Verdict::Reject => only(Fate::Reject),
        Verdict::Drop => only(Fate::Drop),
        // An address on our device is the node's own; nothing else is behind it.
        Verdict::NotOurs if kernel.bound.contains(&packet.destination) => only(Fate::Reject),
        Verdict::NotOurs => only(Fate::Untouched),
        Verdict::To(targets) => {
            let whole = targets.iter().map(|(target, _)| target.socket()).collect();
            let local = external_local.map(|plan| {
                plan.local
                    .iter()
                    .map(Target::socket)
                    .collect::<BTreeSet<_>>()
            });
            let hit: Option<BTreeSet<SocketAddr>> = fates
                .iter()
                .map(|fate| match fate {
                    Fate::To(to, _) => Some(*to),
                    _ => None,
                })
                .collect();
            let right_place = hit.as_ref() == Some(&whole) || (hit.is_some() && hit == local);
            let is_hairpin = |target: &Target| target.address == packet.source;
            let others = targets.iter().find(|(target, _)| !is_hairpin(target));
            let right_source = fates.iter().all(|fate| match fate {
                // Masqueraded in any case where the pod is on this node; nobody meets itself at an
                // endpoint of another.
                Fate::To(to, masqueraded) if to.ip() == packet.source => {
                    let here = targets
                        .iter()
                        .any(|(target, _)| target.socket() == *to && target.is_local);
                    *masqueraded || !here
                }
                Fate::To(_, masqueraded) => others.is_none_or(|(_, wanted)| wanted == masqueraded),
                _ => false,
            });
            right_place && right_source
        }
    }
}

/// The plan that a packet goes to, if by an external way and with policy Local.
fn external_local<'a>(plans: &'a PlanTable, packet: &Packet) -> Option<&'a ServicePlan> {
    let of = |node_ports: bool| {
        plans.plans().find(|plan| {
            let hit = plan.id.protocol == packet.protocol
                && plan.id.family == IpFamily::of(packet.destination)
                && plan.external_policy == TrafficPolicy::Local;
            hit && plan.frontends.iter().any(|frontend| match *frontend {
                Frontend::ExternalIp(vip) | Frontend::LoadBalancerIp(vip) => {
                    !node_ports && vip == packet.destination && plan.port == packet.port
                }
                Frontend::NodePort(port) => node_ports && port == packet.port,
                Frontend::ClusterIp(_) => false,
            })
        })
    };
    of(false).or_else(|| of(true)).map(|plan| &**plan)
}

fn config(node: &NodeContext, family: IpFamily, local: &[IpAddr]) -> Config {
    let accepted = |address: &IpAddr| {
        IpFamily::of(*address) == family
            && !address.is_loopback()
            && node.node_port_addresses.accepts(*address, &node.ips)
    };
    Config {
        family,
        masquerade_mark: 0x4000,
        masquerade_all: node.masquerade_all,
        detector: node.detector.clone(),
        node_addresses: local.iter().copied().filter(accepted).collect(),
        node_ports_are_restricted: !node.node_port_addresses.is_all(family),
        held_elsewhere: Arc::new(local.iter().copied().collect()),
        scheduler: IpvsScheduler::RoundRobin,
        available: Arc::new(IpvsScheduler::ALL),
        excluded: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// The compiled form does with every packet what the oracle says, whatever the cluster.
    #[test]
    fn ipvs_does_what_the_oracle_says(cluster in cluster(), node in node()) {
        let plans = table(&cluster, &node);
        let local: Vec<IpAddr> = NODE_ADDRESSES.map(|text| text.parse().unwrap()).to_vec();
        let kernels = IpFamily::BOTH
            .map(|family| (family, Kernel::new(&plans, &config(&node, family, &local), &local)));
        for packet in packets() {
            let family = IpFamily::of(packet.destination);
            let (_, kernel) = kernels.iter().find(|(of, _)| *of == family).unwrap();
            let wanted = verdict(plans.plans(), &node, &local, &packet);
            let fates = kernel.fates(&packet);
            prop_assert!(
                agrees(&fates, &wanted, &packet, kernel, external_local(&plans, &packet)),
                "{:?}: {:?}, and not {:?}", packet, fates, wanted
            );
        }
    }
}
