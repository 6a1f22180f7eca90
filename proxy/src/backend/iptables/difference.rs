//! What one plan's change means for the rules. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use super::Shared;
use super::compile::{Fragment, compile};
use super::config::Config;
use crate::backend::xtables::{Batch, RuleCounts, Table};
use crate::plan::{PlanId, ServicePlan};

/// One plan as the kernel has it and as it should be.
pub(super) struct Step {
    pub(super) id: PlanId,
    pub(super) old: Option<Arc<ServicePlan>>,
    pub(super) new: Option<Arc<ServicePlan>>,
}

/// What one step changes in the rules.
pub(super) struct Difference {
    pub(super) id: PlanId,
    pub(super) new: Fragment,
    /// Rules the plan had.
    pub(super) old_rules: RuleCounts,
    /// Indexes into `new.chains`: those to write.
    written: Vec<usize>,
    /// Names of chains that are no longer there.
    deleted: Vec<String>,
    shared_added: Vec<(Shared, String)>,
    pub(super) shared_removed: Vec<(Shared, String)>,
}

impl Difference {
    pub(super) fn of(step: &Step, config: &Config) -> Self {
        let compiled = |plan: &Option<Arc<ServicePlan>>| match plan {
            Some(plan) => compile(plan, config),
            None => Fragment::default(),
        };
        let (old, new) = (compiled(&step.old), compiled(&step.new));
        let written = new.chains.iter().enumerate();
        let written = written.filter(|(_, chain)| !old.chains.contains(chain));
        let written = written.map(|(index, _)| index).collect();
        let gone = |name: &String| !new.chains.iter().any(|chain| chain.name == *name);
        let deleted = old
            .chains
            .iter()
            .map(|chain| chain.name.clone())
            .filter(gone)
            .collect();
        let missing_in = |fragment: &Fragment, rules: &[(Shared, String)]| -> Vec<_> {
            rules
                .iter()
                .filter(|rule| !fragment.shared.contains(rule))
                .cloned()
                .collect()
        };
        Self {
            id: step.id.clone(),
            old_rules: old.rule_counts(),
            written,
            deleted,
            shared_added: missing_in(&old, &new.shared),
            shared_removed: missing_in(&new, &old.shared),
            new,
        }
    }

    pub(super) fn write_own_chains(&self, batch: &mut Batch) {
        let chains = self.written.iter();
        let chains = chains.filter_map(|index| self.new.chains.get(*index));
        batch.write_chains(Table::Nat, chains);
    }

    pub(super) fn delete_own_chains(&self, batch: &mut Batch) {
        batch.delete_chains(Table::Nat, self.deleted.iter());
    }

    /// How many chains of its own are written or deleted.
    pub(super) const fn own_chains(&self) -> usize {
        self.written.len() + self.deleted.len()
    }

    /// At the head of the chain, in reverse, so that they come to stand in order.
    pub(super) fn add_shared(&self, batch: &mut Batch, table: Table, rewrite: &HashSet<Shared>) {
        for (shared, rule) in self.shared_added.iter().rev() {
            if shared.table() == table && !rewrite.contains(shared) {
                batch.section(table);
                batch.insert(shared.chain(), rule);
            }
        }
    }

    pub(super) fn remove_shared(&self, batch: &mut Batch, table: Table, rewrite: &HashSet<Shared>) {
        for (shared, rule) in &self.shared_removed {
            if shared.table() == table && !rewrite.contains(shared) {
                batch.section(table);
                batch.delete(shared.chain(), rule);
            }
        }
    }
}

/// The rules of a fragment that stand in one shared chain.
pub(super) fn rules_in(
    fragment: &Fragment,
    shared: Shared,
) -> impl Iterator<Item = &(Shared, String)> {
    fragment
        .shared
        .iter()
        .filter(move |(chain, _)| *chain == shared)
}
