//! Walks a packet through compiled rules without a kernel, and compares what becomes of it
//! with [`verdict`], for random clusters.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proptest::prelude::*;
use switchyard_cluster::object::{IpFamily, Protocol};

use super::compile::compile;
use super::fixed;
use super::{Config, Shared, cluster_ips};
use crate::backend::xtables::{FixedChain, Table};
use crate::plan::generated::{self, NODE_ADDRESSES, cluster, node, table};
use crate::plan::{NodeContext, Packet, PlanTable, Verdict, verdict};

/// All rules of one family, chain by chain.
struct Ruleset {
    chains: HashMap<(Table, String), Vec<Vec<String>>>,
    cluster_ips: HashSet<IpAddr>,
    local: Vec<IpAddr>,
}

/// A packet on its way.
#[derive(Clone, Debug)]
struct Walker {
    source: IpAddr,
    in_interface: Option<String>,
    destination: SocketAddr,
    protocol: Protocol,
    marked: bool,
    translated: bool,
    masqueraded: bool,
}

/// How a chain was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By its end, or RETURN.
    Through,
    Accepted,
    Dropped,
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    To(SocketAddr, bool),
    Reject,
    Drop,
    Untouched,
}

impl Ruleset {
    fn new(plans: &PlanTable, config: &Config, local: &[IpAddr]) -> Self {
        let mut chains: HashMap<(Table, String), Vec<Vec<String>>> = HashMap::new();
        let mut add = |table: Table, chain: &str, rule: &str| {
            chains
                .entry((table, chain.to_owned()))
                .or_default()
                .push(words(rule));
        };
        for jump in fixed::jumps() {
            add(jump.table, jump.from, &jump.rule);
        }
        for FixedChain { table, chain } in fixed::chains(config) {
            for rule in &chain.rules {
                add(table, &chain.name, rule);
            }
        }
        for rule in fixed::firewall_rules(config) {
            add(Table::Filter, super::names::FIREWALL, &rule);
        }
        let mut cluster_ips = HashSet::new();
        let of_family = plans.plans().filter(|plan| plan.id.family == config.family);
        for plan in of_family {
            cluster_ips.extend(plan.cluster_ip());
            let fragment = compile(plan, config);
            for chain in fragment.chains {
                for rule in chain.rules {
                    add(Table::Nat, &chain.name, &rule);
                }
            }
            for (shared, rule) in fragment.shared {
                add(shared.table(), shared.chain(), &rule);
            }
        }
        for shared in Shared::ALL {
            for rule in fixed::tail(shared, config) {
                add(shared.table(), shared.chain(), &rule);
            }
        }
        Self {
            chains,
            cluster_ips,
            local: local.to_vec(),
        }
    }

    /// Everything that can become of a packet, over all random choices.
    fn fates(&self, packet: &Packet) -> BTreeSet<Fate> {
        let walker = Walker {
            source: packet.source,
            in_interface: packet.in_interface.clone(),
            destination: SocketAddr::new(packet.destination, packet.port),
            protocol: packet.protocol,
            marked: false,
            translated: false,
            masqueraded: false,
        };
        let from_node = packet.in_interface.is_none();
        let first = if from_node { "OUTPUT" } else { "PREROUTING" };
        let mut fates = BTreeSet::new();
        for (walker, _) in self.walk(Table::Nat, first, walker) {
            let mut hooks = Vec::new();
            let here = self.local.contains(&walker.destination.ip());
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
            for (walker, _) in self.walk(Table::Nat, "POSTROUTING", walker) {
                fates.insert(if walker.translated {
                    Fate::To(walker.destination, walker.masqueraded)
                } else {
                    Fate::Untouched
                });
            }
            return;
        };
        for (walker, end) in self.walk(Table::Filter, hook, walker) {
            match end {
                End::Through | End::Accepted => self.through_filter(walker, rest, fates),
                End::Dropped => drop(fates.insert(Fate::Drop)),
                End::Rejected => drop(fates.insert(Fate::Reject)),
            }
        }
    }

    fn walk(&self, table: Table, chain: &str, walker: Walker) -> Vec<(Walker, End)> {
        let mut done = Vec::new();
        let mut here = vec![walker];
        for rule in self
            .chains
            .get(&(table, chain.to_owned()))
            .into_iter()
            .flatten()
        {
            let mut next = Vec::new();
            for walker in here {
                let (may, may_not) = self.matches(rule, &walker);
                if may_not {
                    next.push(walker.clone());
                }
                if may {
                    for (walker, end) in self.act(table, rule, walker) {
                        match end {
                            End::Through => next.push(walker),
                            end => done.push((walker, end)),
                        }
                    }
                }
            }
            here = next;
        }
        done.extend(here.into_iter().map(|walker| (walker, End::Through)));
        done
    }

    /// Whether the rule may match, and whether it may not: both, where chance decides.
    fn matches(&self, rule: &[String], walker: &Walker) -> (bool, bool) {
        let mut by_chance = false;
        let mut negated = false;
        let mut at = 0;
        let word = |at: usize| rule.get(at).map_or("", String::as_str);
        while at < rule.len() && word(at) != "-j" {
            let value = word(at + 1);
            let (holds, used) = match word(at) {
                "!" => {
                    negated = true;
                    at += 1;
                    continue;
                }
                "-s" => (net(value).contains(&walker.source), 2),
                "-d" => (net(value).contains(&walker.destination.ip()), 2),
                "-i" => (interface(value, walker.in_interface.as_deref()), 2),
                "-p" => (value == walker.protocol.as_str(), 2),
                "--dport" => (value == walker.destination.port().to_string(), 2),
                "--dst-type" => (self.local.contains(&walker.destination.ip()), 2),
                "--src-type" => (self.local.contains(&walker.source), 2),
                "--mark" => (walker.marked, 2),
                "--ctstate" => (
                    value.split(',').any(|state| match state {
                        "NEW" => true,
                        "DNAT" => walker.translated,
                        "RELATED" | "ESTABLISHED" | "INVALID" => false,
                        other => panic!("state {other}"),
                    }),
                    2,
                ),
                "--match-set" => (self.cluster_ips.contains(&walker.destination.ip()), 3),
                "--probability" | "--rcheck" => {
                    by_chance = true;
                    (true, if word(at) == "--rcheck" { 1 } else { 2 })
                }
                "-m" | "--comment" | "--mode" | "--seconds" | "--name" | "--mask" => (true, 2),
                "--reap" | "--set" | "--rsource" => (true, 1),
                other => panic!("{other} in {rule:?}"),
            };
            if holds == negated {
                return (false, true);
            }
            negated = false;
            at += used;
        }
        (true, by_chance)
    }

    fn act(&self, table: Table, rule: &[String], mut walker: Walker) -> Vec<(Walker, End)> {
        let Some(jump) = rule.iter().position(|word| word == "-j") else {
            return vec![(walker, End::Through)]; // a comment
        };
        let argument = |name: &str| {
            let at = rule.iter().position(|word| word == name);
            at.and_then(|at| rule.get(at + 1))
                .map_or("", String::as_str)
        };
        match rule[jump + 1].as_str() {
            "MARK" => {
                let (value, mask) = argument("--set-xmark").split_once('/').unwrap();
                assert_eq!(value, "0x4000");
                walker.marked = mask == "0x4000" || !walker.marked;
                vec![(walker, End::Through)]
            }
            "DNAT" => {
                walker.destination = argument("--to-destination").parse().unwrap();
                walker.translated = true;
                vec![(walker, End::Accepted)]
            }
            "MASQUERADE" => {
                walker.masqueraded = true;
                vec![(walker, End::Accepted)]
            }
            // The only RETURN stands in a chain behind which nothing follows.
            "RETURN" | "ACCEPT" => vec![(walker, End::Accepted)],
            "DROP" => vec![(walker, End::Dropped)],
            "REJECT" => vec![(walker, End::Rejected)],
            chain => self.walk(table, chain, walker),
        }
    }
}

/// A rule as words; a quoted comment is one.
fn words(rule: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in rule.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn interface(pattern: &str, name: Option<&str>) -> bool {
    let Some(name) = name else { return false };
    match pattern.strip_suffix('+') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
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

/// From where packets come: address and interface.
const SENDERS: [(&str, Option<&str>); 10] = [
    ("10.244.1.1", Some("veth1")),
    ("10.244.1.9", Some("cbr0")),
    ("192.168.0.2", None),
    ("203.0.113.2", Some("eth0")),
    ("203.0.113.130", Some("eth0")),
    ("127.0.0.1", None),
    ("fd00:244:1::1", Some("veth1")),
    ("fd00:244:1::9", Some("cbr0")),
    ("2001:db8::2", None),
    ("2001:db8:1::2", Some("eth0")),
];

/// Where they go: VIPs, the node, and an address that is nobody's.
const DESTINATIONS: [&str; 14] = [
    "10.96.0.1",
    "10.96.0.2",
    "10.96.0.9",
    "203.0.113.200",
    "203.0.113.201",
    "203.0.113.210",
    "192.168.0.2",
    "127.0.0.1",
    "fd00:96::2",
    "fd00:96::3",
    "2001:db8:9::1",
    "2001:db8:9::2",
    "2001:db8::2",
    "fd00:96::9",
];

fn packets() -> Vec<Packet> {
    generated::packets(&SENDERS, &DESTINATIONS)
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
