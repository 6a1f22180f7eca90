//! What should be there, compared with what is. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use switchyard_netlink::Family;
use switchyard_netlink::nftables::{BaseChain, Change, Set};

use super::batch::Batch;
use super::compile::compile;
use super::config::Config;
use super::fixed::{self, BASES};
use super::form::{Chain, Element, Key, Shared};
use super::read::{Present, PresentChain};
use super::table::Table;
use super::{lower, names};
use crate::backend::holders::Holders;
use crate::plan::ServicePlan;

/// What a comparison found.
#[derive(Debug)]
pub(super) struct Compared {
    /// What puts everything right.
    pub(super) batch: Batch,
    /// What several plans want.
    pub(super) holders: Holders<(Shared, Key)>,
    /// Chains, sets and elements that were not as they should be.
    pub(super) differing: usize,
}

/// Compares what a table holds with what the plans want.
pub(super) fn compare<'p>(
    table: &mut Table,
    present: Present,
    plans: impl Iterator<Item = &'p Arc<ServicePlan>>,
) -> Compared {
    let mut comparison = Comparison::new(&table.config, present);
    for plan in plans {
        comparison.plan(plan);
    }
    let (chains, sets) = comparison.surplus();
    let Comparison {
        mut batch,
        holders,
        differing,
        ..
    } = comparison;
    table.doomed.clear();
    for chain in chains {
        table.remove_chain(chain, &mut batch);
    }
    for set in sets {
        batch.remove_set(set);
    }
    Compared {
        batch,
        holders,
        differing,
    }
}

/// A table being compared.
struct Comparison<'a> {
    config: &'a Config,
    family: Family,
    present: Present,
    batch: Batch,
    holders: Holders<(Shared, Key)>,
    differing: usize,
    wanted_chains: HashSet<Arc<str>>,
    wanted_sets: HashSet<Arc<str>>,
}

impl<'a> Comparison<'a> {
    /// Compares what does not belong to any Service. A table that is none of ours by its sets
    /// or base chains is made anew, in the same transaction.
    fn new(config: &'a Config, present: Present) -> Self {
        let mut comparison = Self {
            config,
            family: config.netlink_family(),
            present,
            batch: Batch::default(),
            holders: Holders::default(),
            differing: 0,
            wanted_chains: HashSet::new(),
            wanted_sets: HashSet::new(),
        };
        comparison.table();
        comparison.fixed();
        comparison
    }

    fn table(&mut self) {
        let is_new = self.present.chains.is_empty();
        if is_new || self.is_another() {
            if is_new {
                // It may be there and be empty, or hold sets alone.
                self.batch.first(add_table());
            }
            self.batch.first(Change::DeleteTable);
            self.differing += usize::from(!is_new);
            self.present = Present::default();
            self.batch.first(add_table());
        }
    }

    /// Whether something of the table is there as something else than we make it.
    fn is_another(&self) -> bool {
        let other_set = Shared::ALL.into_iter().any(|shared| {
            let there = self.present.sets.get(shared.name());
            let wanted = lower::shared_set(shared, self.family);
            there.is_some_and(|there| !is_alike(there, &wanted))
        });
        let other_base = BASES.iter().any(|base| {
            let there = self.present.chains.get(base.name);
            there.is_some_and(|there| there.base != lower::base(base).base)
        });
        let fixed = fixed::chains(self.config);
        let hooked = self.present.chains.iter().any(|(name, chain)| {
            let ours = fixed.iter().any(|fixed| fixed.name == *name);
            chain.base.is_some() && (ours || names::is_per_service(name))
        });
        other_set || other_base || hooked
    }

    fn fixed(&mut self) {
        for shared in fixed::sets(self.config) {
            let set = lower::shared_set(shared, self.family);
            self.set(set);
        }
        for chain in fixed::chains(self.config) {
            self.chain(&chain);
        }
        for base in &BASES {
            let chain = Chain {
                name: Arc::from(base.name),
                rules: base.rules(),
            };
            self.chain_of(&chain, lower::base(base).base);
        }
        for element in fixed::elements(self.config) {
            self.element(&element);
        }
    }

    /// Compares what belongs to one plan.
    fn plan(&mut self, plan: &ServicePlan) {
        self.batch.of_plan(&plan.id);
        let fragment = compile(plan, self.config);
        for set in &fragment.affinity_sets {
            self.set(lower::affinity_set(set, self.family));
        }
        for chain in &fragment.chains {
            self.chain(chain);
        }
        for element in &fragment.elements {
            let shared = element.set.is_held_by_many();
            if !shared || self.holders.hold((element.set, element.key)) {
                self.element(element);
            }
        }
    }

    fn set(&mut self, set: Set) {
        self.wanted_sets.insert(Arc::clone(&set.name));
        let there = self.present.sets.get(&set.name);
        match there {
            Some(there) if is_alike(there, &set) => {}
            Some(_) => {
                // Rules that name it are written anew below, since they go with it.
                self.differing += 1;
                self.forget_rules_naming(&set.name);
                self.batch.remove_set(Arc::clone(&set.name));
                self.batch.add_set(Change::AddSet(set));
            }
            None => {
                self.differing += 1;
                self.batch.add_set(Change::AddSet(set));
            }
        }
    }

    /// Empties every chain with a rule that names the set.
    fn forget_rules_naming(&mut self, set: &str) {
        for (name, chain) in &mut self.present.chains {
            if chain.names_set(set) {
                self.batch.flush_chain(Arc::clone(name));
                chain.rules.clear();
            }
        }
    }

    fn chain(&mut self, chain: &Chain) {
        self.chain_of(chain, None);
    }

    fn chain_of(&mut self, chain: &Chain, base: Option<BaseChain>) {
        self.wanted_chains.insert(Arc::clone(&chain.name));
        let there = self.present.chains.get(&chain.name);
        let rules: Vec<_> = chain
            .rules
            .iter()
            .map(|rule| lower::rule(&chain.name, rule, self.family))
            .collect();
        match there {
            Some(there) if there.does(&rules) => return,
            Some(there) if there.rules.is_empty() => {}
            Some(_) => self.batch.flush_chain(Arc::clone(&chain.name)),
            None => {
                let mut lowered = lower::chain(chain);
                lowered.base = base;
                self.batch.add_chain(Change::AddChain(lowered));
            }
        }
        self.differing += 1;
        for rule in rules {
            self.batch.add_rule(rule);
        }
    }

    fn element(&mut self, element: &Element) {
        let lowered = lower::element(element);
        let there = match &lowered.key {
            switchyard_netlink::nftables::Key::One(key) => self
                .present
                .elements
                .get_mut(&element.set)
                .and_then(|elements| elements.remove(key)),
            _ => None,
        };
        match there {
            Some(there) if there == lowered.value => return,
            Some(_) => self.batch.remove_element(element.set, lowered),
            None => {}
        }
        self.differing += 1;
        self.batch.add_element(element);
    }

    /// What is there and belongs to nobody: elements go, chains are emptied. Returns the chains
    /// that can then be deleted, and the sets.
    fn surplus(&mut self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        self.batch.of_nobody();
        let sets = std::mem::take(&mut self.present.sets);
        let elements = std::mem::take(&mut self.present.elements);
        for (shared, elements) in elements {
            if !self.wanted_sets.contains(shared.name()) {
                continue; // it goes with all it has
            }
            self.differing += elements.len();
            for (key, value) in elements {
                let element = switchyard_netlink::nftables::Element::of(
                    switchyard_netlink::nftables::Key::One(key),
                    value,
                );
                self.batch.remove_element(shared, element);
            }
        }
        let mut chains = Vec::new();
        for (name, chain) in std::mem::take(&mut self.present.chains) {
            if self.wanted_chains.contains(&name) {
                continue;
            }
            // Without rules it waits for its deletion, which is nobody's fault.
            if !chain.rules.is_empty() || chain.base.is_some() {
                self.differing += 1;
                self.batch.flush_chain(Arc::clone(&name));
            }
            chains.push(name);
        }
        let sets = sets
            .into_keys()
            .filter(|name| !self.wanted_sets.contains(name))
            .collect();
        (chains, sets)
    }
}

impl PresentChain {
    fn names_set(&self, set: &str) -> bool {
        use switchyard_netlink::nftables::Expression;
        let mut expressions = self.rules.iter().flat_map(|rule| &rule.expressions);
        expressions.any(|expression| match expression {
            Expression::Lookup { set: named, .. } | Expression::Update { set: named, .. } => {
                &**named == set
            }
            _ => false,
        })
    }
}

fn add_table() -> Change {
    Change::AddTable {
        comment: Some(Arc::from("rules for kube-proxy")),
    }
}

/// Whether a set can be used as if it were the other. When elements vanish by themselves stands
/// with each.
fn is_alike(there: &Set, wanted: &Set) -> bool {
    use switchyard_netlink::nftables::Timeout;
    let vanish = |set: &Set| set.timeout != Timeout::Never;
    there.key == wanted.key
        && there.maps_to == wanted.maps_to
        && there.intervals == wanted.intervals
        && there.dynamic == wanted.dynamic
        && there.constant == wanted.constant
        && there.elements_max == wanted.elements_max
        && vanish(there) == vanish(wanted)
}
