//! Reading what is there, and writing the difference to what should be.

use std::collections::HashSet;
use std::sync::Arc;

use super::apply::{Rules, Tally};
use super::compile::compile;
use super::config::Config;
use super::fixed;
use super::render::chains_per_commit;
use super::survey::{Survey, is_per_service};
use super::{Shared, names};
use crate::backend::Report;
use crate::backend::xtables::{Batch, FixedChain, RuleCounts, RuleHash, Table, Tables, ToolError};
use crate::plan::ServicePlan;
use crate::plan::is_api_server;

/// How many plans may be taken out of the shared chains, one after the other, before a sync
/// gives up and is tried again later.
const SHARED_REFUSALS: usize = 32;

impl Rules {
    /// Reads all tables, compares them with `plans` and writes the difference: at start this
    /// adopts what an earlier run or the reference left, later it repairs.
    ///
    /// Nothing that serves is taken away before what replaces it is there, so a restart over
    /// running rules moves no packet.
    ///
    /// # Errors
    /// When the tables can't be read or written. What was written until then stays; the next
    /// try goes on from there.
    pub fn reconcile(
        &mut self,
        config: Config,
        plans: &[Arc<ServicePlan>],
    ) -> Result<Report, ToolError> {
        let nfacct = config.nfacct && self.config.nfacct;
        self.config = Config { nfacct, ..config };
        self.complete_config();
        let tables = Tables::read(&self.tool)?;
        let family = self.config.family;
        let mut plans: Vec<&Arc<ServicePlan>> = plans
            .iter()
            .filter(|plan| plan.id.family == family)
            .collect();
        // The API server's own Service first: other agents of the node wait for it.
        plans.sort_unstable_by_key(|plan| (!is_api_server(&plan.id), plan.id.clone()));
        self.programmed.clear();
        self.refused.clear();
        self.counts = RuleCounts::default();
        let mut tally = Tally::default();
        let mut survey = Survey::of(&plans, &self.config, &tables);
        self.write_blaming(&mut survey, &mut tally, |rules, survey, tally| {
            rules.preparation(&tables, survey, tally)
        })?;
        let dirty = survey.dirty.clone();
        tally.chains_repaired += survey.dirty_chains;
        self.write_chains(dirty, &survey, &mut tally)?;
        for id in self.refused.keys() {
            survey.leave_out(id, &tables);
        }
        self.write_blaming(&mut survey, &mut tally, |rules, survey, tally| {
            rules.completion(&tables, survey, tally)
        })?;
        self.delete_stale(&tables, &survey);
        if let Some(set) = &mut self.cluster_ips {
            tally.chains_repaired += set.reconcile(plans.iter().map(|plan| &***plan))?;
        }
        self.counts = survey.rules;
        for plan in plans {
            if self.refused.contains_key(&plan.id) {
                self.counts -= compile(plan, &self.config).rule_counts();
            } else {
                self.programmed.insert(plan.id.clone(), Arc::clone(plan));
            }
        }
        Ok(tally.report())
    }

    /// Writes a batch; where a line of it is refused that belongs to one plan, writes it
    /// again without that plan's rules in shared chains.
    fn write_blaming(
        &mut self,
        survey: &mut Survey<'_>,
        tally: &mut Tally,
        render: impl Fn(&Self, &Survey<'_>, &mut Tally) -> Batch,
    ) -> Result<(), ToolError> {
        for _ in 0..SHARED_REFUSALS {
            let mut attempt = *tally;
            let script = render(self, survey, &mut attempt).finish();
            match self.run(&script) {
                Ok(()) => {
                    *tally = attempt;
                    tally.rules_written += script.rules();
                    return Ok(());
                }
                Err(failed) => {
                    let Some(id) = &failed.culprit else {
                        return Err(failed.error);
                    };
                    survey.drop_shared(id);
                    self.refused.insert(id.clone(), failed.refusal());
                }
            }
        }
        Err(ToolError::Failed {
            program: "iptables-restore".to_owned(),
            message: format!("more than {SHARED_REFUSALS} Service ports were refused in one sync"),
            line: None,
        })
    }

    /// Fixed chains, jumps, and refusals that are missing: nothing here lets a packet through
    /// that was not let through before.
    fn preparation(&self, tables: &Tables, survey: &Survey<'_>, tally: &mut Tally) -> Batch {
        let mut batch = Batch::default();
        self.fixed_chains(&mut batch, tables, tally);
        for shared in Shared::ALL
            .iter()
            .filter(|shared| shared.table() == Table::Filter)
        {
            let there: HashSet<RuleHash> = tables
                .filter
                .rules(shared.chain())
                .iter()
                .copied()
                .collect();
            for (id, rule) in survey.shared(*shared) {
                if !there.contains(&RuleHash::of(rule)) {
                    batch.section(Table::Filter);
                    batch.owner(Some(id));
                    batch.insert(shared.chain(), rule);
                }
            }
        }
        batch.owner(None);
        tally.chains_repaired += batch.insert_missing(&fixed::jumps(), tables);
        batch
    }

    fn fixed_chains(&self, batch: &mut Batch, tables: &Tables, tally: &mut Tally) {
        for (table, chain) in fixed::CREATED_CHAINS {
            if !tables.table(table).has_chain(chain) {
                batch.section(table);
                batch.chain(chain);
                tally.chains_repaired += 1;
            }
        }
        for FixedChain { table, chain } in fixed::chains(&self.config) {
            if tables.table(table).differs(&chain) {
                batch.write_chains(table, std::iter::once(&chain));
                tally.chains_repaired += 1;
            }
        }
        for rule in fixed::firewall_rules(&self.config) {
            if !tables.filter.has_rule(names::FIREWALL, &rule) {
                batch.section(Table::Filter);
                batch.append(names::FIREWALL, &rule);
                tally.chains_repaired += 1;
            }
        }
    }

    /// The chains of single plans that differ; nothing jumps to new ones yet, except that
    /// the API server's Service is reachable at once. Where the lot is refused, takes out
    /// the plan that is to blame, or halves the lot until it is alone.
    fn write_chains(
        &mut self,
        mut plans: Vec<&Arc<ServicePlan>>,
        survey: &Survey<'_>,
        tally: &mut Tally,
    ) -> Result<(), ToolError> {
        while !plans.is_empty() {
            let script = self.render_chains(&plans, survey).finish();
            let failed = match self.run(&script) {
                Ok(()) => {
                    tally.rules_written += script.rules();
                    return Ok(());
                }
                Err(failed) => failed,
            };
            if !matches!(failed.error, ToolError::Failed { .. }) {
                return Err(failed.error);
            }
            let named = plans
                .iter()
                .position(|plan| Some(&plan.id) == failed.culprit.as_ref());
            if let Some(guilty) = named.or((plans.len() == 1).then_some(0)) {
                let plan = plans.remove(guilty);
                self.refused.insert(plan.id.clone(), failed.refusal());
            } else {
                let second = plans.split_off(plans.len() / 2);
                self.write_chains(plans, survey, tally)?;
                plans = second;
            }
        }
        Ok(())
    }

    fn render_chains(&self, plans: &[&Arc<ServicePlan>], survey: &Survey<'_>) -> Batch {
        let mut batch = Batch::default();
        let mut chains = 0;
        for plan in plans {
            let fragment = compile(plan, &self.config);
            batch.owner(Some(&plan.id));
            batch.section(Table::Nat);
            batch.write_chains(Table::Nat, fragment.chains.iter());
            for (_, rule) in survey.early.iter().filter(|(id, _)| **id == plan.id) {
                batch.insert(names::SERVICES, rule);
            }
            chains += fragment.chains.len();
            if chains >= chains_per_commit(self.tool.variant) {
                batch.commit();
                chains = 0;
            }
        }
        batch
    }

    /// The shared chains, exactly. Those of the nat table first.
    fn completion(&self, tables: &Tables, survey: &Survey<'_>, tally: &mut Tally) -> Batch {
        let mut batch = Batch::default();
        for shared in Shared::ALL.iter().rev() {
            if self.shared_differs(tables, survey, *shared) {
                self.write_shared(&mut batch, survey, *shared);
                tally.chains_repaired += 1;
            }
        }
        batch
    }

    fn shared_differs(&self, tables: &Tables, survey: &Survey<'_>, shared: Shared) -> bool {
        let there = tables.table(shared.table()).rules(shared.chain());
        let tail = RuleHash::all(&fixed::tail(shared, &self.config));
        let Some(body) = there.strip_suffix(tail.as_slice()) else {
            return true;
        };
        let mut body = body.to_vec();
        let mut wanted: Vec<RuleHash> = survey
            .shared(shared)
            .map(|(_, rule)| RuleHash::of(rule))
            .collect();
        body.sort_unstable();
        wanted.sort_unstable();
        body != wanted
    }

    fn write_shared(&self, batch: &mut Batch, survey: &Survey<'_>, shared: Shared) {
        batch.section(shared.table());
        batch.chain(shared.chain());
        for (id, rule) in survey.shared(shared) {
            batch.owner(Some(id));
            batch.append(shared.chain(), rule);
        }
        batch.owner(None);
        for rule in fixed::tail(shared, &self.config) {
            batch.append(shared.chain(), &rule);
        }
    }

    /// Chains of Services that are no more. Somebody else's rule may still jump to one: then
    /// it stays, empty, and is tried again at the next reconciliation.
    fn delete_stale(&self, tables: &Tables, survey: &Survey<'_>) {
        let stale: Vec<&String> = tables
            .nat
            .chains
            .keys()
            .filter(|name| is_per_service(name) && !survey.chains.contains(*name))
            .collect();
        if stale.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        batch.delete_chains(Table::Nat, stale.iter().copied());
        if let Err(failed) = self.run(&batch.finish()) {
            tracing::warn!(
                family = %self.config.family, chains = stale.len(), error = %failed.error,
                "chains of removed Services could not be deleted; does a rule of somebody \
                 else's jump to one?"
            );
        }
    }
}
