//! What should be there, compared with what is. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::compile::compile;
use super::config::Config;
use super::difference::rules_in;
use super::{Shared, names};
use crate::backend::xtables::{RuleCounts, Tables};
use crate::plan::{PlanId, ServicePlan, is_api_server};

/// What should be there, compared with what is.
pub(super) struct Survey<'a> {
    /// Plans with a chain that differs.
    pub(super) dirty: Vec<&'a Arc<ServicePlan>>,
    pub(super) dirty_chains: usize,
    /// Rules of all plans.
    pub(super) rules: RuleCounts,
    /// Names of all chains of single plans that should be there.
    pub(super) chains: HashSet<String>,
    /// Rules of shared chains, by the plan they belong to.
    pub(super) shared: BTreeMap<Shared, Vec<(&'a PlanId, String)>>,
    /// Rules of KUBE-SERVICES that must not wait until the end.
    pub(super) early: Vec<(&'a PlanId, String)>,
}

impl<'a> Survey<'a> {
    pub(super) fn of(plans: &[&'a Arc<ServicePlan>], config: &Config, tables: &Tables) -> Self {
        let mut survey = Self {
            dirty: Vec::new(),
            dirty_chains: 0,
            rules: RuleCounts::default(),
            chains: HashSet::new(),
            shared: BTreeMap::new(),
            early: Vec::new(),
        };
        for plan in plans {
            let fragment = compile(plan, config);
            survey.rules += fragment.rule_counts();
            let chains = fragment.chains.iter();
            let dirty_chains = chains.filter(|chain| tables.nat.differs(chain)).count();
            if dirty_chains > 0 {
                survey.dirty.push(plan);
                survey.dirty_chains += dirty_chains;
                if is_api_server(&plan.id) {
                    let rules = rules_in(&fragment, Shared::NatServices);
                    let missing = rules
                        .filter(|(_, rule)| !tables.nat.has_rule(names::SERVICES, rule))
                        .map(|(_, rule)| (&plan.id, rule.clone()));
                    survey.early.extend(missing);
                }
            }
            survey
                .chains
                .extend(fragment.chains.into_iter().map(|chain| chain.name));
            for (shared, rule) in fragment.shared {
                survey
                    .shared
                    .entry(shared)
                    .or_default()
                    .push((&plan.id, rule));
            }
        }
        survey
    }

    pub(super) fn shared(&self, shared: Shared) -> impl Iterator<Item = &(&'a PlanId, String)> {
        self.shared.get(&shared).into_iter().flatten()
    }

    /// A plan whose chains were refused: what is in the shared chains for it stays only if
    /// the chains it jumps to are there from before.
    pub(super) fn leave_out(&mut self, id: &PlanId, tables: &Tables) {
        for rules in self.shared.values_mut() {
            rules.retain(|(owner, rule)| {
                let target = rule.rsplit_once("-j ").map_or("", |(_, target)| target);
                *owner != id || !is_per_service(target) || tables.nat.has_chain(target)
            });
        }
    }

    pub(super) fn drop_shared(&mut self, id: &PlanId) {
        for rules in self.shared.values_mut() {
            rules.retain(|(owner, _)| *owner != id);
        }
    }
}

/// Whether a chain of this name belongs to a single Service port.
pub(super) fn is_per_service(name: &str) -> bool {
    names::PER_SERVICE_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
}
