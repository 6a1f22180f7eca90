//! The script that takes the kernel from what it has to what it should have.

use std::collections::{HashMap, HashSet};

use super::Shared;
use super::apply::Rules;
use super::batch::{Batch, Script};
use super::compile::compile;
use super::difference::{Difference, Step, rules_in};
use super::fixed::{self, Table};
use super::tool::Variant;
use crate::plan::PlanId;

/// Chains in one commit. The nf_tables tools look chains up in a list, so a commit's time
/// grows with their square: 5,000 Services take 8 s in one commit and 1.1 s in commits of
/// this size.
const CHAINS_PER_COMMIT: usize = 400;
/// Deletions of single rules in one shared chain up to which they are done one by one; each
/// searches the chain. Beyond, the chain is written anew.
const SINGLE_DELETIONS: usize = 64;

impl Rules {
    pub(super) const fn chains_per_commit(&self) -> usize {
        match self.tool.variant {
            Variant::Nft => CHAINS_PER_COMMIT,
            // Every commit replaces the table: one is the cheapest.
            Variant::Legacy => usize::MAX,
        }
    }

    /// New refusals, then the nat table, then refusals that are over.
    pub(super) fn render(&self, steps: &[Step]) -> Script {
        let changes: Vec<Difference> = steps
            .iter()
            .map(|step| Difference::of(step, &self.config))
            .collect();
        let rewrite = self.chains_to_rewrite(&changes);
        let mut batch = Batch::default();
        for change in &changes {
            batch.owner(Some(&change.id));
            change.add_shared(&mut batch, Table::Filter, &HashSet::new());
        }
        batch.commit();
        self.render_nat(&mut batch, &changes, &rewrite);
        for shared in rewrite
            .iter()
            .filter(|shared| shared.table() == Table::Filter)
        {
            self.rewrite_shared(&mut batch, *shared, &changes);
        }
        for change in &changes {
            batch.owner(Some(&change.id));
            change.remove_shared(&mut batch, Table::Filter, &rewrite);
        }
        batch.finish()
    }

    /// Chains before the rules that jump to them; rules that jump to chains that go before
    /// those.
    fn render_nat(&self, batch: &mut Batch, changes: &[Difference], rewrite: &HashSet<Shared>) {
        let rewritten = rewrite.iter().filter(|shared| shared.table() == Table::Nat);
        let rewritten: Vec<Shared> = rewritten.copied().collect();
        let mut chains = 0;
        for change in changes {
            batch.owner(Some(&change.id));
            change.write_own_chains(batch);
            change.add_shared(batch, Table::Nat, rewrite);
            change.remove_shared(batch, Table::Nat, rewrite);
            if rewritten.is_empty() {
                change.delete_own_chains(batch);
            }
            chains += change.own_chains();
            if chains > self.chains_per_commit() {
                batch.commit();
                chains = 0;
            }
        }
        batch.owner(None);
        for shared in &rewritten {
            self.rewrite_shared(batch, *shared, changes);
        }
        if rewritten.is_empty() {
            return;
        }
        batch.commit();
        for change in changes {
            batch.owner(Some(&change.id));
            change.delete_own_chains(batch);
            chains += change.own_chains();
            if chains > self.chains_per_commit() {
                batch.commit();
                chains = 0;
            }
        }
    }

    fn chains_to_rewrite(&self, changes: &[Difference]) -> HashSet<Shared> {
        let mut deletions: HashMap<Shared, usize> = HashMap::new();
        for (shared, _) in changes.iter().flat_map(|change| &change.shared_removed) {
            *deletions.entry(*shared).or_default() += 1;
        }
        deletions.retain(|_, count| *count > SINGLE_DELETIONS);
        deletions.into_keys().collect()
    }

    /// Writes a shared chain as it will be once `changes` are made.
    fn rewrite_shared(&self, batch: &mut Batch, shared: Shared, changes: &[Difference]) {
        let changing: HashSet<&PlanId> = changes.iter().map(|change| &change.id).collect();
        batch.section(shared.table());
        batch.chain(shared.chain());
        let unchanged = self
            .programmed
            .iter()
            .filter(|(id, _)| !changing.contains(id));
        for (_, plan) in unchanged {
            for (_, rule) in rules_in(&compile(plan, &self.config), shared) {
                batch.append(shared.chain(), rule);
            }
        }
        for change in changes {
            batch.owner(Some(&change.id));
            for (_, rule) in rules_in(&change.new, shared) {
                batch.append(shared.chain(), rule);
            }
        }
        batch.owner(None);
        for rule in fixed::tail(shared, &self.config) {
            batch.append(shared.chain(), &rule);
        }
    }
}
