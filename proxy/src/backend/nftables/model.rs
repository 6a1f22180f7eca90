//! A table in memory that takes the changes the kernel takes, and no others, for tests of what
//! leads from one to another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use switchyard_cluster::object::IpFamily;
use switchyard_netlink::nftables::{
    Change, Data, Expression, Key, Name, NatFlags, Refusal, Rule, Set, Timeout, Value, Verdict,
};

use super::batch::{Batch, Unknown};
use super::compare::compare;
use super::config::Config;
use super::form::Shared;
use super::read::{Present, PresentChain};
use super::simulation::config;
use super::table::Table;
use crate::plan::generated::{Generated, NODE_ADDRESSES, cluster, node, table};
use crate::plan::{NodeContext, PlanChange, PlanId, PlanTable};

/// What a table holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    chains: BTreeMap<Name, (switchyard_netlink::nftables::Chain, Vec<Rule>)>,
    sets: BTreeMap<Name, Set>,
    elements: BTreeMap<Name, BTreeMap<Data, Option<Value>>>,
}

impl Model {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.change(change);
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::AddTable { .. } => {}
            Change::DeleteTable => *self = Self::default(),
            Change::AddChain(chain) => {
                let new = || (chain.clone(), Vec::new());
                self.chains
                    .entry(Arc::clone(&chain.name))
                    .or_insert_with(new);
            }
            Change::FlushChain(name) => self.chains.get_mut(&name).expect(&name).1.clear(),
            Change::DeleteChain(name) => {
                assert!(!self.is_led_to(&name), "something leads to {name}");
                let (_, rules) = self.chains.remove(&name).expect(&name);
                assert!(rules.is_empty(), "{name} has rules");
            }
            Change::AddRule(rule) => {
                for expression in &rule.expressions {
                    self.check(expression);
                }
                let name = Arc::clone(&rule.chain);
                self.chains.get_mut(&name).expect(&name).1.push(rule);
            }
            Change::AddSet(mut set) => {
                if set.timeout != Timeout::Never {
                    // Each element has its own.
                    set.timeout = Timeout::PerElement;
                }
                self.elements.entry(Arc::clone(&set.name)).or_default();
                self.sets.entry(Arc::clone(&set.name)).or_insert(set);
            }
            Change::DeleteSet(name) => {
                let named = self
                    .expressions()
                    .any(|expression| names(expression, &name));
                assert!(!named, "{name} is named");
                self.sets.remove(&name).expect(&name);
                self.elements.remove(&name);
            }
            Change::AddElements { set, elements } => {
                for element in elements {
                    if let Some(Value::Verdict(verdict)) = &element.value {
                        self.check(&Expression::Verdict(verdict.clone()));
                    }
                    let Key::One(key) = element.key else {
                        panic!("{element:?}");
                    };
                    let there = self.elements.get_mut(&set).expect(&set);
                    let old = there.insert(key, element.value.clone());
                    assert!(old.is_none(), "twice in {set}");
                }
            }
            Change::DeleteElements { set, elements } => {
                for element in elements {
                    let Key::One(key) = &element.key else {
                        panic!("{element:?}");
                    };
                    let there = self.elements.get_mut(&set).expect(&set);
                    assert!(there.remove(key).is_some(), "{key:?} is not in {set}");
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let rules = self.chains.values().flat_map(|(_, rules)| rules);
        rules.flat_map(|rule| &rule.expressions)
    }

    fn is_led_to(&self, chain: &str) -> bool {
        let leads = |verdict: &Verdict| match verdict {
            Verdict::Jump(to) | Verdict::Goto(to) => &**to == chain,
            _ => false,
        };
        let by_rule = self.expressions().any(|expression| match expression {
            Expression::Verdict(verdict) => leads(verdict),
            _ => false,
        });
        let mut values = self.elements.values().flat_map(BTreeMap::values);
        by_rule
            || values.any(|value| match value {
                Some(Value::Verdict(verdict)) => leads(verdict),
                _ => false,
            })
    }

    /// What it names is there.
    fn check(&self, expression: &Expression) {
        match expression {
            Expression::Lookup { set, .. } | Expression::Update { set, .. } => {
                assert!(self.sets.contains_key(set), "no set {set}");
            }
            Expression::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => {
                assert!(self.chains.contains_key(chain), "no chain {chain}");
            }
            Expression::Masquerade { flags } => {
                assert_ne!(*flags, NatFlags::default());
            }
            _ => {}
        }
    }

    fn present(&self) -> Present {
        let chains = self.chains.iter().map(|(name, (chain, rules))| {
            let chain = PresentChain {
                base: chain.base,
                rules: rules.clone(),
            };
            (Arc::clone(name), chain)
        });
        let elements = self.elements.iter().filter_map(|(name, elements)| {
            let elements = elements.iter();
            let elements: HashMap<_, _> = elements.map(|(k, v)| (k.clone(), v.clone())).collect();
            Some((Shared::named(name)?, elements))
        });
        Present {
            chains: chains.collect(),
            elements: elements.collect(),
            sets: self
                .sets
                .iter()
                .map(|(name, set)| (Arc::clone(name), set.clone()))
                .collect(),
        }
    }

    /// Compares it with what a cluster wants, and puts it right; how much differed.
    fn reconcile(&mut self, table: &mut Table, plans: &PlanTable) -> usize {
        let family = table.config.family;
        let of_family = || plans.plans().filter(|plan| plan.id.family == family);
        let compared = compare(table, self.present(), of_family());
        self.apply(compared.batch.ordered(false).changes);
        self.delete_doomed(table);
        let plans = of_family().map(|plan| (&plan.id, Arc::clone(plan)));
        table.took(plans.collect(), BTreeMap::new(), compared.holders);
        compared.differing
    }

    fn delete_doomed(&mut self, table: &mut Table) {
        let doomed = std::mem::take(&mut table.doomed).into_iter();
        self.apply(doomed.map(Change::DeleteChain).collect());
    }
}

fn names(expression: &Expression, set: &str) -> bool {
    match expression {
        Expression::Lookup { set: named, .. } | Expression::Update { set: named, .. } => {
            &**named == set
        }
        _ => false,
    }
}

fn changes(from: &PlanTable, to: &PlanTable) -> Vec<PlanChange> {
    let ids = from.plans().chain(to.plans()).map(|plan| plan.id.clone());
    let ids: std::collections::BTreeSet<PlanId> = ids.collect();
    ids.into_iter()
        .map(|id| PlanChange {
            old: from.plan(&id).cloned(),
            new: to.plan(&id).cloned(),
            id,
        })
        .filter(|change| change.old != change.new)
        .collect()
}

fn settings(node: &NodeContext, family: IpFamily) -> Config {
    let local: Vec<_> = NODE_ADDRESSES.map(|text| text.parse().unwrap()).to_vec();
    config(node, family, &local)
}

/// A table with this cluster in it, made at once.
fn fresh(node: &NodeContext, plans: &PlanTable, at_once: bool) -> (Model, Table) {
    let mut model = Model::default();
    let mut table = Table::new(settings(node, IpFamily::V4), at_once);
    model.reconcile(&mut table, plans);
    (model, table)
}

/// Services with more endpoints than have rules of their own.
fn with_many_endpoints(cluster: &mut [Generated], count: u8) {
    for slice in cluster.iter_mut().flat_map(|one| &mut one.slices) {
        let Some(first) = slice.endpoints.first().cloned() else {
            continue;
        };
        let more = (0..count).map(|number| {
            let mut endpoint = first.clone();
            endpoint.address = match endpoint.address {
                std::net::IpAddr::V4(_) => [10, 244, 3, number].into(),
                std::net::IpAddr::V6(_) => [0xfd00, 0x244, 3, 0, 0, 0, 0, u16::from(number)].into(),
            };
            endpoint
        });
        let all: Vec<_> = slice.endpoints.iter().cloned().chain(more).collect();
        slice.endpoints = all.into();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However one cluster becomes another, the transaction is one the kernel takes, and it ends
    /// where writing everything afresh would; and where comparing everything does.
    #[test]
    fn changes_end_where_a_fresh_start_would(
        before in cluster(), after in cluster(), node in node(), at_once in any::<bool>(),
        many in (0_u8..8, 0_u8..8),
    ) {
        let (mut before, mut after) = (before, after);
        with_many_endpoints(&mut before, many.0);
        with_many_endpoints(&mut after, many.1);
        let (none, before, after) =
            (PlanTable::default(), table_of(&before, &node), table_of(&after, &node));
        let (mut followed, mut state) = fresh(&node, &before, at_once);
        let (mut compared, mut compared_state) = (followed.clone(), fresh(&node, &before, at_once).1);
        let (wanted, _) = fresh(&node, &after, at_once);

        let batch = state.follow(&changes(&before, &after));
        followed.apply(batch.ordered(false).changes);
        followed.delete_doomed(&mut state);
        prop_assert_eq!(&followed, &wanted);

        compared.reconcile(&mut compared_state, &after);
        prop_assert_eq!(&compared, &wanted);
        prop_assert_eq!(compared.reconcile(&mut compared_state, &after), 0);

        let batch = state.follow(&changes(&after, &none));
        followed.apply(batch.ordered(true).changes);
        followed.delete_doomed(&mut state);
        prop_assert_eq!(&followed, &fresh(&node, &none, at_once).0);
    }

    /// Whatever is missing, too much or otherwise in the table, comparing puts it right.
    #[test]
    fn damage_is_put_right(
        cluster in cluster(), node in node(), victims in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let plans = table_of(&cluster, &node);
        let (whole, mut state) = fresh(&node, &plans, true);
        let mut model = whole.clone();
        for victim in victims {
            let names: Vec<Name> = model.chains.keys().cloned().collect();
            let name = victim.get(&names);
            if let Some((_, rules)) = model.chains.get_mut(name) {
                rules.pop();
            }
            let sets: Vec<Name> = model.elements.keys().cloned().collect();
            let elements = model.elements.get_mut(victim.get(&sets)).unwrap();
            elements.pop_first();
            elements.insert(Data::new(&[9; 8]), Some(Value::Verdict(Verdict::Drop)));
        }
        // Their own, and a set of ours that is none.
        let theirs = switchyard_netlink::nftables::Chain {
            name: "theirs".into(),
            base: None,
            comment: None,
        };
        model.chains.insert("theirs".into(), (theirs, Vec::new()));
        model.elements.retain(|name, _| Shared::named(name).is_some());
        prop_assert!(model.reconcile(&mut state, &plans) > 0);
        for name in whole.sets.keys() {
            model.elements.entry(Arc::clone(name)).or_default();
        }
        prop_assert_eq!(&model, &whole);
    }
}

fn table_of(cluster: &[Generated], node: &NodeContext) -> PlanTable {
    table(cluster, node)
}

#[test]
fn what_is_refused_is_known_by_its_plan() {
    let id = |name: &str| PlanId {
        service: switchyard_cluster::object::ObjectName::new("ns", name),
        port_name: "p".into(),
        protocol: switchyard_cluster::object::Protocol::Tcp,
        family: IpFamily::V4,
    };
    let element = |number| switchyard_netlink::nftables::Element::new(Data::new(&[number]));
    let batch = || {
        let mut batch = Batch::default();
        batch.flush_chain("services".into());
        for (name, number) in [("a", 1), ("b", 2)] {
            batch.of_plan(&id(name));
            batch.remove_element(Shared::ServiceIps, element(number));
        }
        batch.flush_chain("service-b".into());
        batch
    };
    let refusal = |change, item| Refusal {
        change,
        request: String::new(),
        item,
        attribute: None,
        message: None,
        code: 2,
    };
    let together = batch().ordered(false);
    assert_eq!(together.changes.len(), 3);
    let culprit = |change, item| {
        together
            .culprit(&refusal(change, item))
            .map(Option::<&PlanId>::cloned)
    };
    assert_eq!(culprit(Some(0), Some(1)), Ok(Some(id("b"))));
    assert_eq!(culprit(Some(0), None), Err(Unknown));
    assert_eq!(culprit(Some(1), None), Ok(None));
    assert_eq!(culprit(Some(2), None), Ok(Some(id("b"))));
    assert_eq!(culprit(None, None), Ok(None));
    let alone = batch().ordered(true);
    assert_eq!(alone.changes.len(), 4);
    assert_eq!(alone.culprit(&refusal(Some(1), None)), Ok(Some(&id("b"))));
}
