//! The one who writes: owns the backend, runs off the agent's own thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use switchyard_cluster::object::IpFamily;

use crate::backend::iptables::{Config, Refusal, Report, RuleCounts, Rules, ToolError};
use crate::plan::{PlanChange, PlanId, ServicePlan};

/// Writes the rules of all families.
#[derive(Debug)]
pub(super) struct Worker {
    families: Vec<Rules>,
}

/// What a worker is to do in one family.
#[derive(Debug)]
pub(super) enum Job {
    /// Write these changes.
    Apply(Vec<PlanChange>),
    /// Read the kernel and write whatever differs from these plans.
    Reconcile(Box<Config>, Vec<Arc<ServicePlan>>),
}

/// What became of a job.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) family: IpFamily,
    pub(super) full: bool,
    pub(super) took: Duration,
    pub(super) result: Result<Report, ToolError>,
    /// Rules of ours that there are now.
    pub(super) totals: RuleCounts,
    pub(super) refused: Vec<(PlanId, Refusal)>,
}

impl Worker {
    pub(super) const fn new(families: Vec<Rules>) -> Self {
        Self { families }
    }

    /// Does one job in each family.
    pub(super) fn work(&mut self, mut job: impl FnMut(IpFamily) -> Job) -> Vec<Outcome> {
        // Asked before anything is written: what tells of changes by others is the same for
        // both families, and our own writes would hide them.
        let disturbed = self.disturbed();
        let outcomes: Vec<Outcome> = self
            .families
            .iter_mut()
            .map(|rules| run(rules, job(rules.config().family)))
            .collect();
        for (rules, outcome) in self.families.iter_mut().zip(&outcomes) {
            let known = outcome.full || !disturbed.contains(&outcome.family);
            if known && outcome.result.is_ok() {
                rules.settle();
            } else {
                rules.unsettle();
            }
        }
        outcomes
    }

    /// The families in which the kernel no longer has what was written there.
    pub(super) fn disturbed(&mut self) -> Vec<IpFamily> {
        let disturbed = self.families.iter_mut().filter_map(|rules| {
            let family = rules.config().family;
            rules.disturbed().then_some(family)
        });
        disturbed.collect()
    }
}

fn run(rules: &mut Rules, job: Job) -> Outcome {
    let start = Instant::now();
    let (full, result) = match job {
        Job::Apply(changes) => (false, rules.apply(&changes)),
        Job::Reconcile(config, plans) => (true, rules.reconcile(*config, &plans)),
    };
    Outcome {
        family: rules.config().family,
        full,
        took: start.elapsed(),
        result,
        totals: rules.rule_totals(),
        refused: rules
            .refused()
            .iter()
            .map(|(id, why)| (id.clone(), why.clone()))
            .collect(),
    }
}
