//! What came of a sync, in the log and in metrics.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use switchyard_cluster::object::IpFamily;

use super::choice::names;
use super::pending::Taken;
use super::worker::Outcome;
use super::{AUDIT_PERIOD, Agent};
use crate::backend::ipvs::IpvsModeError;
use crate::backend::xtables::{RuleCounts, ToolError};
use crate::backend::{BackendError, Report, Written};
use crate::health::Moment;
use crate::metrics::{Amount, Table};

/// Repairs of what somebody else does are said this often at most; all are counted.
const REPAIR_NOTICE: Duration = Duration::from_secs(60);

/// What there is to say of a sync.
struct Line<'a> {
    family: &'a str,
    took: Duration,
    report: &'a Report,
}

impl Agent {
    /// Logs and counts what came of one job; false if it failed.
    pub(super) fn judge(&mut self, outcome: &Outcome, taken: &Taken) -> bool {
        let metrics = &self.metrics;
        for family in outcome.families.iter().copied() {
            metrics.sync_duration.observe(family, outcome.took);
            if outcome.full {
                metrics.sync_full_duration.observe(family, outcome.took);
            } else {
                metrics.sync_partial_duration.observe(family, outcome.took);
            }
            metrics
                .nftables_cleanup_failures
                .add(family, outcome.cleanup_failures);
            if let Some(totals) = outcome.rule_totals {
                show(&metrics.iptables_rules, family, totals);
            }
        }
        match &outcome.result {
            Ok(report) => {
                self.succeeded(outcome, report, taken);
                true
            }
            Err(error) => {
                self.failed(outcome, error);
                false
            }
        }
    }

    fn failed(&self, outcome: &Outcome, error: &BackendError) {
        let (family, metrics) = (names(&outcome.families), &self.metrics);
        match error {
            BackendError::Iptables(tool) => {
                for family in outcome.families.iter().copied() {
                    metrics.iptables_restore_failures.inc(family);
                    if !outcome.full && matches!(tool, ToolError::Failed { .. }) {
                        metrics.iptables_partial_restore_failures.inc(family);
                    }
                }
                tracing::error!(%family, %error, "sync failed; the rules stay as they are");
            }
            BackendError::Ipvs(cause) => {
                if matches!(cause, IpvsModeError::Tool(_)) {
                    for family in outcome.families.iter().copied() {
                        metrics.iptables_restore_failures.inc(family);
                    }
                }
                tracing::error!(
                    %family, %error,
                    "sync failed; virtual services that could not be written stay as they are"
                );
            }
            BackendError::Nftables(_) => {
                for family in outcome.families.iter().copied() {
                    metrics.nftables_sync_failures.inc(family);
                }
                tracing::error!(%family, %error, "sync failed; the table stays as it is");
            }
            BackendError::Ebpf(_) => {
                tracing::error!(%family, %error, "sync failed; what is in the maps stays");
            }
        }
    }

    fn succeeded(&mut self, outcome: &Outcome, report: &Report, taken: &Taken) {
        let now = Moment::now();
        for family in outcome.families.iter().copied() {
            if let Written::Rules(rules) = report.written {
                show(&self.metrics.iptables_rules_last, family, rules);
            }
            self.health.lock().updated(family, now);
            self.metrics.last_sync.set(family, now.wall.into());
        }
        let line = Line {
            family: &names(&outcome.families),
            took: outcome.took,
            report,
        };
        if !outcome.full {
            line.changes();
            return;
        }
        self.last_audit = Instant::now();
        let mut is_first = false;
        for family in &outcome.families {
            is_first |= self.adopted.insert(*family);
        }
        let our_doing = is_first || taken.wants_other_rules || !taken.changes.is_empty();
        if our_doing || report.repaired == 0 {
            line.comparison();
        } else {
            let count = u64::try_from(report.repaired).unwrap_or(u64::MAX);
            for family in outcome.families.iter().copied() {
                self.metrics.reconcile_repairs.add(family, count);
            }
            // A second program that keeps writing would fill the log.
            let now = Instant::now();
            let said = self.repair_said.is_some_and(|at| now < at + REPAIR_NOTICE);
            if said {
                tracing::debug!(family = line.family, repaired = count, "repaired again");
            } else {
                self.repair_said = Some(now);
                line.repair();
            }
        }
    }

    /// Service ports that the kernel does not take are said once, counted, and tried again
    /// with growing pauses.
    pub(super) fn watch_refused(&mut self, outcomes: &[Outcome]) {
        self.refused = outcomes
            .iter()
            .flat_map(|outcome| outcome.refused.iter().map(|(id, _)| id.clone()))
            .collect();
        let refused = &self.refused;
        self.not_programmed_told.retain(|id| refused.contains(id));
        for outcome in outcomes {
            for family in outcome.families.iter().copied() {
                self.count_refused(outcome, family);
            }
        }
        if self.refused.is_empty() {
            self.refused_failures = 0;
            self.retry_refused_at = None;
        } else if self.retry_refused_at.is_none() {
            let pause = self
                .settings
                .sync_period
                .saturating_mul(1 << self.refused_failures.min(10));
            self.refused_failures += 1;
            self.retry_refused_at = Some(Instant::now() + pause.min(AUDIT_PERIOD));
        }
    }

    fn count_refused(&mut self, outcome: &Outcome, family: IpFamily) {
        let refused = || outcome.refused.iter().filter(|(id, _)| id.family == family);
        self.metrics
            .services_not_programmed
            .set(family, refused().count());
        if !outcome.full {
            return;
        }
        for (id, refusal) in refused() {
            tracing::error!(
                service_port = %id, protocol = %id.protocol, %family,
                error = %refusal.message,
                "Service port can't be programmed; all others are"
            );
            if self.not_programmed_told.insert(id.clone()) {
                let what = format!(
                    "port {id} ({}, {family}) can't be programmed: {}",
                    id.protocol, refusal.message
                );
                self.teller.not_programmed(&id.service, &what);
            }
        }
    }

    /// Everything wanted is in the kernel for the first time: only now may what another mode
    /// left there go.
    pub(super) fn is_complete(&self) -> bool {
        let adopted: HashSet<IpFamily> = self.families.iter().copied().collect();
        self.adopted == adopted && self.refused.is_empty()
    }
}

impl Line<'_> {
    fn changes(&self) {
        let (family, took_ms) = (self.family, self.took.as_millis());
        match self.report.written {
            Written::Rules(rules) if rules.total() > 0 => {
                tracing::info!(%family, took_ms, rules_written = rules.total(), "wrote the changes");
            }
            Written::Elements(elements) if elements > 0 => {
                tracing::info!(%family, took_ms, elements_written = elements, "wrote the changes");
            }
            Written::Changes(changes) if changes > 0 => {
                tracing::info!(%family, took_ms, changes, "wrote the changes");
            }
            Written::Objects(objects) if objects > 0 => {
                tracing::info!(%family, took_ms, objects_written = objects, "wrote the changes");
            }
            Written::Rules(_)
            | Written::Elements(_)
            | Written::Changes(_)
            | Written::Objects(_) => {}
        }
    }

    fn comparison(&self) {
        let (family, took_ms, repaired) =
            (self.family, self.took.as_millis(), self.report.repaired);
        match self.report.written {
            Written::Rules(rules) => tracing::info!(
                %family, took_ms, rules_written = rules.total(), chains_that_differed = repaired,
                "compared all rules with the kernel"
            ),
            Written::Elements(elements) => tracing::info!(
                %family, took_ms, elements_written = elements, that_differed = repaired,
                "compared all maps and programs with the kernel"
            ),
            Written::Objects(0) if repaired == 0 => tracing::debug!(
                %family, took_ms, "compared the table with the kernel"
            ),
            Written::Objects(objects) => tracing::info!(
                %family, took_ms, objects_written = objects, that_differed = repaired,
                "compared the table with the kernel"
            ),
            // Every sync period.
            Written::Changes(0) if repaired == 0 => tracing::debug!(
                %family, took_ms, "compared all virtual services, sets and rules with the kernel"
            ),
            Written::Changes(changes) => tracing::info!(
                %family, took_ms, changes, that_differed = repaired,
                "compared all virtual services, sets and rules with the kernel"
            ),
        }
    }

    fn repair(&self) {
        let (family, took_ms, repaired) =
            (self.family, self.took.as_millis(), self.report.repaired);
        match self.report.written {
            Written::Rules(rules) => tracing::warn!(
                %family, took_ms, rules_written = rules.total(), chains = repaired,
                "rules of ours had been changed or removed by somebody else: put right"
            ),
            Written::Elements(elements) => tracing::warn!(
                %family, took_ms, elements_written = elements, repaired,
                "programs or map elements of ours had been changed or removed by somebody \
                 else: put right"
            ),
            Written::Objects(objects) => tracing::warn!(
                %family, took_ms, objects_written = objects, repaired,
                "chains, rules or elements of ours had been changed or removed by somebody \
                 else: put right"
            ),
            Written::Changes(changes) => tracing::warn!(
                %family, took_ms, changes, repaired,
                "virtual services, sets or rules of ours had been changed or removed by \
                 somebody else: put right"
            ),
        }
    }
}

fn show(metric: &Amount<(Table, IpFamily)>, family: IpFamily, rules: RuleCounts) {
    metric.set((Table::Filter, family), rules.filter);
    metric.set((Table::Nat, family), rules.nat);
}
