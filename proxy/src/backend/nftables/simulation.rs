//! Walks a packet through the table without a kernel, and compares what becomes of it with
//! [`verdict`], for random clusters.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use switchyard_cluster::object::IpFamily;

use super::compile::compile;
use super::config::Config;
use super::fixed::{self, BASES, Hook, Kind};
use super::form::{Element, Key, Rule, ServiceKey, Shared, Statement, Value};
use crate::backend::xtables::simulation::{Fate, Walker, packets};
use crate::plan::generated::{NODE_ADDRESSES, cluster, node, table};
use crate::plan::{NodeContext, Packet, PlanTable, Verdict, verdict};

/// How a chain was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Through,
    Accepted,
    Dropped,
    Rejected,
}

/// The table of one family.
struct Kernel {
    chains: HashMap<Arc<str>, Vec<Rule>>,
    elements: HashMap<(Shared, Key), Value>,
    affinity_sets: HashSet<Arc<str>>,
    local: Vec<IpAddr>,
}

impl Kernel {
    fn new(plans: &PlanTable, config: &Config, local: &[IpAddr]) -> Self {
        let mut kernel = Self {
            chains: HashMap::new(),
            elements: HashMap::new(),
            affinity_sets: HashSet::new(),
            local: local.to_vec(),
        };
        for base in BASES {
            kernel.chains.insert(base.name.into(), base.rules());
        }
        for chain in fixed::chains(config) {
            kernel.chains.insert(chain.name, chain.rules);
        }
        for element in fixed::elements(config) {
            kernel.element(element);
        }
        let of_family = plans.plans().filter(|plan| plan.id.family == config.family);
        for plan in of_family {
            let fragment = compile(plan, config);
            for chain in fragment.chains {
                let twice = kernel.chains.insert(chain.name, chain.rules);
                assert_eq!(twice, None);
            }
            for element in fragment.elements {
                kernel.element(element);
            }
            let sets = fragment.affinity_sets.into_iter();
            kernel.affinity_sets.extend(sets.map(|set| set.name));
        }
        kernel
    }

    fn element(&mut self, element: Element) {
        let same = element.value.clone();
        let twice = self
            .elements
            .insert((element.set, element.key), element.value);
        assert!(twice.is_none_or(|twice| twice == same && same == Value::None));
    }

    /// Everything that can become of a packet, over all random choices.
    fn fates(&self, packet: &Packet) -> BTreeSet<Fate> {
        let mut fates = BTreeSet::new();
        let mut walkers = vec![Walker::of(packet)];
        let entry = match packet.in_interface {
            None => Hook::Output,
            Some(_) => Hook::Prerouting,
        };
        walkers = self.at_hook(entry, walkers, &mut fates);
        let (here, elsewhere): (Vec<_>, Vec<_>) = walkers
            .into_iter()
            .partition(|walker| self.local.contains(&walker.destination.ip()));
        let mut walkers = self.at_hook(Hook::Input, here, &mut fates);
        walkers.extend(match entry {
            Hook::Prerouting => self.at_hook(Hook::Forward, elsewhere, &mut fates),
            _ => elsewhere,
        });
        for walker in self.at_hook(Hook::Postrouting, walkers, &mut fates) {
            fates.insert(walker.fate());
        }
        fates
    }

    fn at_hook(
        &self,
        hook: Hook,
        mut walkers: Vec<Walker>,
        fates: &mut BTreeSet<Fate>,
    ) -> Vec<Walker> {
        let mut bases: Vec<_> = BASES.iter().filter(|base| base.hook == hook).collect();
        bases.sort_by_key(|base| base.priority);
        for base in bases {
            let mut left = Vec::new();
            for walker in walkers {
                for (walker, end) in self.walk(base.name, walker, base.kind) {
                    match end {
                        End::Through | End::Accepted => left.push(walker),
                        End::Dropped => drop(fates.insert(Fate::Drop)),
                        End::Rejected => drop(fates.insert(Fate::Reject)),
                    }
                }
            }
            walkers = left;
        }
        walkers
    }

    /// What becomes of a packet in a chain, over all random choices.
    fn walk(&self, chain: &str, walker: Walker, kind: Kind) -> Vec<(Walker, End)> {
        let rules = self
            .chains
            .get(chain)
            .unwrap_or_else(|| panic!("chain {chain}"));
        let (mut done, mut here) = (Vec::new(), vec![walker]);
        for rule in rules {
            let mut next = Vec::new();
            for walker in here {
                self.run(&rule.statements, walker, kind, &mut next, &mut done);
            }
            here = next;
        }
        done.extend(here.into_iter().map(|walker| (walker, End::Through)));
        done
    }

    /// Runs statements: `next` are those that go on to the next rule, `done` those that leave
    /// the chain.
    fn run(
        &self,
        statements: &[Statement],
        mut walker: Walker,
        kind: Kind,
        next: &mut Vec<Walker>,
        done: &mut Vec<(Walker, End)>,
    ) {
        let Some((statement, rest)) = statements.split_first() else {
            return next.push(walker);
        };
        if let Some(holds) = self.matches(statement, &walker) {
            if holds {
                self.run(rest, walker, kind, next, done);
            } else {
                next.push(walker);
            }
            return;
        }
        match statement {
            Statement::OneIn(_) | Statement::RememberedIn(_) => {
                next.push(walker.clone());
                self.run(rest, walker, kind, next, done);
            }
            Statement::Mark(_) => {
                walker.marked = true;
                self.run(rest, walker, kind, next, done);
            }
            Statement::Unmark(_) => {
                walker.marked = !walker.marked;
                self.run(rest, walker, kind, next, done);
            }
            Statement::Remember(set, _) => {
                assert!(self.affinity_sets.contains(set), "{set}");
                self.run(rest, walker, kind, next, done);
            }
            Statement::Verdict(map) => match self.elements.get(&(*map, vip(*map, &walker))) {
                None => next.push(walker),
                Some(Value::Drop) => done.push((walker, End::Dropped)),
                Some(Value::Goto(chain)) => done.extend(self.walk(chain, walker, kind)),
                other => panic!("{other:?} in {map:?}"),
            },
            Statement::Masquerade => {
                walker.masqueraded = true;
                done.push((walker, End::Accepted));
            }
            Statement::Translate(to) => {
                assert_eq!(kind, Kind::Nat);
                (walker.destination, walker.translated) = (*to, true);
                done.push((walker, End::Accepted));
            }
            Statement::TranslateByMap {
                map,
                service,
                count,
            } => {
                for number in 0..*count {
                    let found = self.elements.get(&(*map, Key::Endpoint(*service, number)));
                    let Some(Value::To(to)) = found else {
                        panic!("{found:?} at {number} of {count} in {map:?}");
                    };
                    let mut walker = walker.clone();
                    (walker.destination, walker.translated) = (*to, true);
                    done.push((walker, End::Accepted));
                }
            }
            Statement::TranslateByVip(count) => {
                let service = ServiceKey {
                    address: walker.destination.ip(),
                    protocol: walker.protocol,
                    port: walker.destination.port(),
                };
                let found: Vec<_> = (0..*count)
                    .map(|number| {
                        let key = Key::of_few(service, *count, u32::from(number));
                        self.elements.get(&(Shared::EndpointsOf(*count), key))
                    })
                    .collect();
                if found.iter().all(Option::is_none) {
                    return next.push(walker);
                }
                for to in found {
                    let Some(Value::To(to)) = to else {
                        panic!("{to:?} of {count}");
                    };
                    let mut walker = walker.clone();
                    (walker.destination, walker.translated) = (*to, true);
                    done.push((walker, End::Accepted));
                }
            }
            Statement::Jump(chain) => {
                for (walker, end) in self.walk(chain, walker, kind) {
                    match end {
                        End::Through => self.run(rest, walker, kind, next, done),
                        end => done.push((walker, end)),
                    }
                }
            }
            Statement::Goto(chain) => done.extend(self.walk(chain, walker, kind)),
            Statement::Return => done.push((walker, End::Through)),
            Statement::Drop => done.push((walker, End::Dropped)),
            Statement::Reject => done.push((walker, End::Rejected)),
            other => panic!("{other}"),
        }
    }

    /// Whether a match holds; `None` for what is none, or hangs on chance.
    fn matches(&self, statement: &Statement, walker: &Walker) -> Option<bool> {
        let to = walker.destination.ip();
        let interface = walker.in_interface.as_deref();
        Some(match statement {
            Statement::NewConnection => true,
            Statement::DestinationTranslated => walker.translated,
            Statement::ToNode => self.local.contains(&to),
            Statement::FromNode => self.local.contains(&walker.source),
            Statement::Source(is, network) => network.contains(&walker.source) == *is,
            Statement::Destination(is, network) => network.contains(&to) == *is,
            Statement::Interface(is, name) => (interface == Some(name)) == *is,
            Statement::InterfacePrefix(is, prefix) => {
                interface.is_some_and(|name| name.starts_with(prefix)) == *is
            }
            Statement::DestinationIn(set) => self.elements.contains_key(&(*set, Key::Address(to))),
            Statement::IsHairpin => {
                let key = Key::Hairpin(to, walker.protocol, walker.destination.port());
                walker.source == to
                    && self
                        .elements
                        .contains_key(&(Shared::HairpinConnections, key))
            }
            Statement::Marked(_) => walker.marked,
            Statement::Protocol(protocol) => *protocol == walker.protocol,
            Statement::RememberedIn(set) => {
                assert!(self.affinity_sets.contains(set), "{set}");
                return None;
            }
            _ => return None,
        })
    }
}

fn vip(map: Shared, walker: &Walker) -> Key {
    let (protocol, port) = (walker.protocol, walker.destination.port());
    if map.is_by_port() {
        Key::NodePort(protocol, port)
    } else {
        Key::Vip(ServiceKey {
            address: walker.destination.ip(),
            protocol,
            port,
        })
    }
}

fn expected(verdict: Verdict, packet: &Packet) -> BTreeSet<Fate> {
    if packet.destination.is_loopback() {
        return BTreeSet::from([Fate::Untouched]); // the relay has those
    }
    match verdict {
        Verdict::To(targets) => targets
            .into_iter()
            .map(|(target, masquerade)| {
                // Nobody meets itself here at an endpoint of another node.
                let elsewhere = target.address == packet.source && !target.is_local;
                Fate::To(target.socket(), masquerade && !elsewhere)
            })
            .collect(),
        Verdict::Reject => BTreeSet::from([Fate::Reject]),
        Verdict::Drop => BTreeSet::from([Fate::Drop]),
        Verdict::NotOurs => BTreeSet::from([Fate::Untouched]),
    }
}

/// Without what is masqueraded or not, where an endpoint of another node is its own client.
fn judged(fates: BTreeSet<Fate>, verdict: &Verdict, packet: &Packet) -> BTreeSet<Fate> {
    let Verdict::To(targets) = verdict else {
        return fates;
    };
    let odd = |to: SocketAddr| {
        let mut targets = targets.iter();
        targets.any(|(target, _)| {
            target.socket() == to && target.address == packet.source && !target.is_local
        })
    };
    fates
        .into_iter()
        .map(|fate| match fate {
            Fate::To(to, _) if odd(to) => Fate::To(to, false),
            fate => fate,
        })
        .collect()
}

pub(super) fn config(node: &NodeContext, family: IpFamily, local: &[IpAddr]) -> Config {
    let accepted = |address: &IpAddr| {
        IpFamily::of(*address) == family && node.node_port_addresses.accepts(*address, &node.ips)
    };
    Config {
        family,
        masquerade_mark: 0x4000,
        masquerade_all: node.masquerade_all,
        detector: node.detector.clone(),
        node_port_addresses: (!node.node_port_addresses.is_all(family))
            .then(|| local.iter().copied().filter(accepted).collect()),
        service_cidrs: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// The compiled table does with every packet what the oracle says, whatever the cluster.
    #[test]
    fn the_table_does_what_the_oracle_says(cluster in cluster(), node in node()) {
        let plans = table(&cluster, &node);
        let local: Vec<IpAddr> = NODE_ADDRESSES.map(|text| text.parse().unwrap()).to_vec();
        let kernels = IpFamily::BOTH
            .map(|family| (family, Kernel::new(&plans, &config(&node, family, &local), &local)));
        for packet in packets() {
            let family = IpFamily::of(packet.destination);
            let (_, kernel) = kernels.iter().find(|(of, _)| *of == family).unwrap();
            let wanted = verdict(plans.plans(), &node, &local, &packet);
            let fates = judged(kernel.fates(&packet), &wanted, &packet);
            prop_assert_eq!(fates, expected(wanted, &packet), "{:?}", packet);
        }
    }
}
