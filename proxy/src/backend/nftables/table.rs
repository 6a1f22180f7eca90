//! The table of one IP family: what was programmed, and how to program more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use switchyard_netlink::nftables::{Change, TableId};

use super::batch::Batch;
use super::compile::compile;
use super::config::Config;
use super::form::{Element, Fragment, Key, Shared};
use super::lower;
use crate::backend::Refusal;
use crate::backend::holders::Holders;
use crate::plan::{PlanChange, PlanId, ServicePlan};

/// A plan that the kernel holds, if it does.
type Programmed = Option<Arc<ServicePlan>>;

/// One IP family.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) config: Config,
    pub(super) id: TableId,
    /// What the kernel holds, as far as we wrote it.
    pub(super) programmed: HashMap<PlanId, Arc<ServicePlan>>,
    /// Members of sets that several plans may want.
    pub(super) holders: Holders<(Shared, Key)>,
    /// What it should hold but refused.
    pub(super) refused: BTreeMap<PlanId, Refusal>,
    /// Chains that are empty and could not be deleted yet.
    pub(super) doomed: BTreeSet<Arc<str>>,
    /// A chain can be deleted together with the elements that lead to it (Linux 6.2).
    pub(super) releases_at_once: bool,
    /// Nobody else is known to have changed it since it was last compared.
    pub(super) trusted: bool,
}

impl Table {
    pub(super) fn new(config: Config, releases_at_once: bool) -> Self {
        Self {
            id: lower::table_id(config.netlink_family()),
            config,
            programmed: HashMap::new(),
            holders: Holders::default(),
            refused: BTreeMap::new(),
            doomed: BTreeSet::new(),
            releases_at_once,
            trusted: false,
        }
    }

    /// The changed plans as they were programmed, to go back to.
    pub(super) fn plans_before(&self, changes: &[PlanChange]) -> Vec<(PlanId, Programmed)> {
        let ids = changes.iter().map(|change| &change.id);
        ids.filter(|id| id.family == self.config.family)
            .map(|id| (id.clone(), self.programmed.get(id).cloned()))
            .collect()
    }

    /// The kernel did not take what was followed. What several plans hold is counted anew by the
    /// comparison that comes next.
    pub(super) fn go_back(&mut self, before: Vec<(PlanId, Programmed)>) {
        for (id, plan) in before {
            match plan {
                Some(plan) => drop(self.programmed.insert(id, plan)),
                None => drop(self.programmed.remove(&id)),
            }
        }
    }

    /// The kernel holds these plans, and refused those.
    pub(super) fn took(
        &mut self,
        plans: HashMap<&PlanId, Arc<ServicePlan>>,
        refused: BTreeMap<PlanId, Refusal>,
        holders: Holders<(Shared, Key)>,
    ) {
        let plans = plans.into_iter();
        self.programmed = plans.map(|(id, plan)| (id.clone(), plan)).collect();
        self.refused = refused;
        self.holders = holders;
    }

    /// What leads from what was programmed to the changed plans, which then count as
    /// programmed.
    pub(super) fn follow(&mut self, changes: &[PlanChange]) -> Batch {
        let mut batch = Batch::default();
        for change in changes {
            if change.id.family != self.config.family {
                continue;
            }
            let old = match &change.new {
                Some(new) => self.programmed.insert(change.id.clone(), Arc::clone(new)),
                None => self.programmed.remove(&change.id),
            };
            let fragment = |plan: &Option<Arc<ServicePlan>>| {
                plan.as_deref()
                    .map(|plan| compile(plan, &self.config))
                    .unwrap_or_default()
            };
            let (before, after) = (fragment(&old), fragment(&change.new));
            batch.of_plan(&change.id);
            self.step(&before, &after, &mut batch);
        }
        batch
    }

    /// What leads from one form of a plan to another.
    fn step(&mut self, before: &Fragment, after: &Fragment, batch: &mut Batch) {
        let family = self.config.netlink_family();
        let old: HashMap<&str, _> = before
            .chains
            .iter()
            .map(|chain| (&*chain.name, chain))
            .collect();
        let mut kept = BTreeSet::new();
        for chain in &after.chains {
            kept.insert(&*chain.name);
            match old.get(&*chain.name) {
                Some(old) if *old == chain => continue,
                Some(_) => batch.flush_chain(Arc::clone(&chain.name)),
                None => {
                    self.doomed.remove(&chain.name);
                    batch.add_chain(Change::AddChain(lower::chain(chain)));
                }
            }
            batch.add_rules(chain, family);
        }
        // What leads to others goes first.
        for chain in before.chains.iter().rev() {
            if !kept.contains(&*chain.name) {
                batch.flush_chain(Arc::clone(&chain.name));
                self.remove_chain(Arc::clone(&chain.name), batch);
            }
        }
        for set in &after.affinity_sets {
            if !before.remembers_in(set) {
                batch.add_set(Change::AddSet(lower::affinity_set(set, family)));
            }
        }
        for set in &before.affinity_sets {
            if !after.remembers_in(set) {
                batch.remove_set(Arc::clone(&set.name));
            }
        }
        self.step_elements(before, after, batch);
    }

    fn step_elements(&mut self, before: &Fragment, after: &Fragment, batch: &mut Batch) {
        let key = |element: &Element| (element.set, element.key);
        let mut old: HashMap<(Shared, Key), &Element> = before
            .elements
            .iter()
            .map(|element| (key(element), element))
            .collect();
        let (mut came, mut gone) = (Vec::new(), Vec::new());
        for element in &after.elements {
            match old.remove(&key(element)) {
                Some(old) if old.value == element.value => {}
                old => {
                    gone.extend(old);
                    came.push(element);
                }
            }
        }
        gone.extend(old.into_values());
        // In the order in which they were made: what the kernel refuses is then always the same.
        gone.sort_unstable_by_key(|element| key(element));
        for element in gone {
            if !element.set.is_held_by_many() || self.holders.let_go((element.set, element.key)) {
                batch.remove_element(element.set, lower::element(element));
            }
        }
        for element in came {
            if !element.set.is_held_by_many() || self.holders.hold((element.set, element.key)) {
                batch.add_element(element);
            }
        }
    }

    /// Deletes a chain that is emptied in the same batch, at once or when the kernel lets us.
    pub(super) fn remove_chain(&mut self, name: Arc<str>, batch: &mut Batch) {
        if self.releases_at_once {
            batch.remove_chain(name);
        } else {
            self.doomed.insert(name);
        }
    }
}
