//! Walks a packet through compiled rules without a kernel, and compares what becomes of it
//! with [`verdict`], for random clusters.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use proptest::prelude::*;
use switchyard_cluster::object::IpFamily;
use switchyard_netlink::ipset::Entry;

use super::compile::compile;
use super::fixed;
use super::{Config, Shared, cluster_ips};
use crate::backend::xtables::simulation::{End, Fate, Simulation, Walker, packets};
use crate::backend::xtables::{FixedChain, Table};
use crate::plan::generated::{NODE_ADDRESSES, cluster, node, table};
use crate::plan::{NodeContext, Packet, PlanTable, Verdict, verdict};

/// All rules of one family.
struct Ruleset(Simulation);

impl Ruleset {
    fn new(plans: &PlanTable, config: &Config, local: &[IpAddr]) -> Self {
        let mut rules = Simulation::default();
        rules.local = local.to_vec();
        for jump in fixed::jumps() {
            rules.add(jump.table, jump.from, &jump.rule);
        }
        for FixedChain { table, chain } in fixed::chains(config) {
            for rule in &chain.rules {
                rules.add(table, &chain.name, rule);
            }
        }
        for rule in fixed::firewall_rules(config) {
            rules.add(Table::Filter, super::names::FIREWALL, &rule);
        }
        let mut cluster_ips = HashSet::new();
        let of_family = plans.plans().filter(|plan| plan.id.family == config.family);
        for plan in of_family {
            cluster_ips.extend(plan.cluster_ip().map(Entry::Ip));
            let fragment = compile(plan, config);
            for chain in fragment.chains {
                for rule in chain.rules {
                    rules.add(Table::Nat, &chain.name, &rule);
                }
            }
            for (shared, rule) in fragment.shared {
                rules.add(shared.table(), shared.chain(), &rule);
            }
        }
        for shared in Shared::ALL {
            for rule in fixed::tail(shared, config) {
                rules.add(shared.table(), shared.chain(), &rule);
            }
        }
        let name = cluster_ips::set_name(config.family).to_owned();
        rules.sets.insert(name, cluster_ips);
        Self(rules)
    }

    /// Everything that can become of a packet, over all random choices.
    fn fates(&self, packet: &Packet) -> BTreeSet<Fate> {
        let walker = Walker::of(packet);
        let from_node = packet.in_interface.is_none();
        let first = if from_node { "OUTPUT" } else { "PREROUTING" };
        let mut fates = BTreeSet::new();
        for (walker, _) in self.0.walk(Table::Nat, first, walker) {
            let mut hooks = Vec::new();
            let here = self.0.local.contains(&walker.destination.ip());
            if from_node {
                hooks.push("OUTPUT");
            }
            match (from_node, here) {
                (_, true) => hooks.push("INPUT"),
                (false, false) => hooks.push("FORWARD"),
                (true, false) => {}
            }
            self.through_filter(walker, &hooks, &mut fates);
        }
        fates
    }

    fn through_filter(&self, walker: Walker, hooks: &[&str], fates: &mut BTreeSet<Fate>) {
        let Some((hook, rest)) = hooks.split_first() else {
            for (walker, _) in self.0.walk(Table::Nat, "POSTROUTING", walker) {
                fates.insert(walker.fate());
            }
            return;
        };
        for (walker, end) in self.0.walk(Table::Filter, hook, walker) {
            match end {
                End::Through | End::Returned | End::Accepted => {
                    self.through_filter(walker, rest, fates);
                }
                End::Dropped => drop(fates.insert(Fate::Drop)),
                End::Rejected => drop(fates.insert(Fate::Reject)),
            }
        }
    }
}

fn expected(verdict: Verdict) -> BTreeSet<Fate> {
    match verdict {
        Verdict::To(targets) => targets
            .into_iter()
            .map(|(target, masquerade)| Fate::To(target.socket(), masquerade))
            .collect(),
        Verdict::Reject => BTreeSet::from([Fate::Reject]),
        Verdict::Drop => BTreeSet::from([Fate::Drop]),
        Verdict::NotOurs => BTreeSet::from([Fate::Untouched]),
    }
}

fn config(node: &NodeContext, family: IpFamily, local: &[IpAddr]) -> Config {
    let accepted = |address: &IpAddr| {
        IpFamily::of(*address) == family && node.node_port_addresses.accepts(*address, &node.ips)
    };
    Config {
        family,
        masquerade_mark: 0x4000,
        masquerade_all: node.masquerade_all,
        detector: node.detector.clone(),
        localhost_node_ports: family == IpFamily::V4 && node.localhost_node_ports,
        node_port_addresses: (!node.node_port_addresses.is_all(family))
            .then(|| local.iter().copied().filter(accepted).collect()),
        drop_invalid: true,
        nfacct: false,
        endpoint_comments: !node.masquerade_all,
        cluster_ip_set: Some(cluster_ips::set_name(family).to_owned()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// The compiled rules do with every packet what the oracle says, whatever the cluster.
    #[test]
    fn rules_do_what_the_oracle_says(cluster in cluster(), node in node()) {
        let plans = table(&cluster, &node);
        let local: Vec<IpAddr> = NODE_ADDRESSES.map(|text| text.parse().unwrap()).to_vec();
        let rulesets = IpFamily::BOTH
            .map(|family| (family, Ruleset::new(&plans, &config(&node, family, &local), &local)));
        for packet in packets() {
            let family = IpFamily::of(packet.destination);
            let (_, rules) = rulesets.iter().find(|(of, _)| *of == family).unwrap();
            let wanted = expected(verdict(plans.plans(), &node, &local, &packet));
            prop_assert_eq!(rules.fates(&packet), wanted, "{:?}", packet);
        }
    }
}
