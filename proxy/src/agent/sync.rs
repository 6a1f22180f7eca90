//! Handing work to the worker, and what comes of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use switchyard_cluster::object::{IpFamily, Kind, TrafficPolicy};
use tokio::task::{JoinHandle, spawn_blocking};

use super::pending::Taken;
use super::worker::{Job, Outcome, Worker};
use super::{AUDIT_PERIOD, Agent, Done, REST_MAX, RETRY_PAUSE, journal, start};
use crate::backend::iptables::{Report, RuleCounts, ToolError};
use crate::health::Moment;
use crate::metrics::{Amount, Direction, Table};
use crate::plan::{PlanChange, ServicePlan};

impl Agent {
    /// When there is something to write and somebody to write it: from when on it may be.
    pub(super) fn may_sync_at(&self) -> Option<Instant> {
        let ready = self.worker.is_some() && self.announced_sync && !self.pending.is_empty();
        ready.then_some(self.not_before)
    }

    /// Plans what changed and hands it to the worker. `None` if in the end nothing differs.
    pub(super) fn start_sync(&mut self) -> Option<JoinHandle<Done>> {
        self.plan();
        self.measure();
        let mut taken = self.pending.take();
        journal::announce(&taken.changes);
        if taken.changes.is_empty() && taken.reconcile.is_empty() {
            self.written(&taken);
            return None;
        }
        let mut worker = self.worker.take()?;
        let refused = taken
            .changes
            .iter()
            .filter(|change| self.refused.contains(&change.id));
        taken
            .reconcile
            .extend(refused.map(|change| change.id.family));
        if !taken.reconcile.is_empty() {
            taken.plans = self.table.plans().cloned().collect();
        }
        let configs: Vec<_> = self
            .families
            .iter()
            .map(|family| start::config(self, *family))
            .collect();
        Some(spawn_blocking(move || {
            let mut configs = configs.into_iter();
            let outcomes = worker.work(|family| {
                let config = configs.next();
                match config.filter(|_| taken.reconcile.contains(&family)) {
                    Some(config) => Job::Reconcile(Box::new(config), taken.plans.clone()),
                    None => Job::Apply(of_family(&taken.changes, family)),
                }
            });
            Done::Synced {
                worker,
                outcomes,
                taken,
            }
        }))
    }

    /// Looks now and then whether the rules are still there.
    pub(super) fn tick(&mut self) -> Option<JoinHandle<Done>> {
        self.follow_up();
        let now = Instant::now();
        let audit = now.duration_since(self.last_audit) >= AUDIT_PERIOD;
        let retry = self.retry_refused_at.is_some_and(|at| now >= at);
        if audit || retry {
            self.pending.reconcile.extend(self.families.iter().copied());
            self.retry_refused_at = None;
            return None;
        }
        if !self.announced_sync || !self.pending.is_empty() {
            return None;
        }
        let mut worker = self.worker.take()?;
        Some(spawn_blocking(move || {
            let disturbed = worker.disturbed();
            Done::Checked { worker, disturbed }
        }))
    }

    /// Takes the worker back.
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Checked { worker, disturbed } => {
                self.worker = Some(worker);
                self.pending.reconcile.extend(disturbed);
            }
            Done::Synced {
                worker,
                outcomes,
                taken,
            } => self.synced(worker, &outcomes, taken),
        }
    }

    fn synced(&mut self, worker: Worker, outcomes: &[Outcome], taken: Taken) {
        self.worker = Some(worker);
        let took: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
        let failed: HashSet<IpFamily> = outcomes
            .iter()
            .filter(|outcome| !self.judge(outcome, &taken))
            .map(|outcome| outcome.family)
            .collect();
        self.watch_refused(outcomes);
        let rest = self
            .settings
            .min_sync_period
            .unwrap_or_else(|| took.min(REST_MAX));
        self.not_before = Instant::now() + rest;
        if failed.is_empty() {
            self.failures = 0;
            self.written(&taken);
            return;
        }
        // A failed incremental sync is followed by a full one at once: that finds out which
        // Service is to blame. After a failed full one comes a pause.
        let full_failed = outcomes
            .iter()
            .any(|outcome| outcome.full && failed.contains(&outcome.family));
        if full_failed {
            let pause = RETRY_PAUSE.saturating_mul(1 << self.failures.min(10));
            self.failures += 1;
            self.not_before = Instant::now() + pause.min(self.settings.sync_period);
        }
        // All families: what follows a sync (conntrack) is then done for the changes of both.
        self.pending.rewrite(self.families.iter().copied());
        for trigger in taken.triggers_unix_ns {
            self.pending.triggered(trigger);
        }
        self.queued();
    }

    /// Logs and counts one family's outcome; false if it failed.
    fn judge(&mut self, outcome: &Outcome, taken: &Taken) -> bool {
        let (family, metrics) = (outcome.family, &self.metrics);
        metrics.sync_duration.observe(family, outcome.took);
        if outcome.full {
            metrics.sync_full_duration.observe(family, outcome.took);
        } else {
            metrics.sync_partial_duration.observe(family, outcome.took);
        }
        show(&metrics.iptables_rules, family, outcome.totals);
        match &outcome.result {
            Ok(report) => {
                self.succeeded(outcome, report, taken);
                true
            }
            Err(error) => {
                metrics.iptables_restore_failures.inc(family);
                if !outcome.full && matches!(error, ToolError::Failed { .. }) {
                    metrics.iptables_partial_restore_failures.inc(family);
                }
                tracing::error!(%family, %error, "sync failed; the rules stay as they are");
                false
            }
        }
    }

    fn succeeded(&mut self, outcome: &Outcome, report: &Report, taken: &Taken) {
        let (family, metrics) = (outcome.family, &self.metrics);
        show(&metrics.iptables_rules_last, family, report.rules_written);
        let now = Moment::now();
        self.health.lock().updated(family, now);
        metrics.last_sync.set(family, now.wall.into());
        let (took_ms, rules) = (outcome.took.as_millis(), report.rules_written.total());
        if !outcome.full {
            if rules > 0 {
                tracing::info!(%family, took_ms, rules_written = rules, "wrote the changes");
            }
            return;
        }
        self.last_audit = Instant::now();
        let is_first = self.adopted.insert(family);
        let repaired = report.chains_repaired;
        let our_doing = is_first || taken.wants_other_rules || !taken.changes.is_empty();
        if our_doing || repaired == 0 {
            tracing::info!(
                %family, took_ms, rules_written = rules, chains_that_differed = repaired,
                "compared all rules with the kernel"
            );
        } else {
            let count = u64::try_from(repaired).unwrap_or(u64::MAX);
            metrics.reconcile_repairs.add(family, count);
            tracing::warn!(
                %family, took_ms, rules_written = rules, chains = repaired,
                "rules of ours had been changed or removed by somebody else: put right"
            );
        }
    }

    /// Service ports that the kernel does not take are said once, counted, and tried again
    /// with growing pauses.
    fn watch_refused(&mut self, outcomes: &[Outcome]) {
        self.refused = outcomes
            .iter()
            .flat_map(|outcome| outcome.refused.iter().map(|(id, _)| id.clone()))
            .collect();
        for outcome in outcomes {
            let family = outcome.family;
            self.metrics
                .services_not_programmed
                .set(family, outcome.refused.len());
            if outcome.full {
                for (id, refusal) in &outcome.refused {
                    tracing::error!(
                        service_port = %id, protocol = %id.protocol, %family,
                        error = %refusal.message,
                        "Service port can't be programmed; all others are"
                    );
                }
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

    /// Everything taken is in the kernel.
    fn written(&mut self, taken: &Taken) {
        let now = Moment::now();
        let mut health = self.health.lock();
        for family in &self.families {
            health.updated(*family, now);
        }
        drop(health);
        if !self.pending.is_empty() {
            self.queued();
        }
        self.clean_conntrack(taken);
        let now = SystemTime::now();
        for trigger in &taken.triggers_unix_ns {
            let Ok(nanoseconds) = u64::try_from(*trigger) else {
                continue;
            };
            let happened = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
            let took = now.duration_since(happened).unwrap_or_default();
            for family in &self.families {
                self.metrics
                    .network_programming_duration
                    .observe(*family, took);
            }
        }
        self.show_pending();
        for kind in Kind::FOR_PROXY {
            self.metrics.objects.set(kind, self.store.count(kind));
        }
        if taken.changes.iter().any(concerns_local_policy) {
            self.count_without_local_endpoints();
        }
        self.follow_up();
    }

    /// Now that new rules are there, flows that old ones made can go.
    fn clean_conntrack(&self, taken: &Taken) {
        for family in &taken.reconcile {
            self.conntrack.replace(*family, &taken.plans);
        }
        self.conntrack.apply(&taken.changes);
    }

    fn count_without_local_endpoints(&self) {
        for family in &self.families {
            let plans = || self.table.plans().filter(|plan| plan.id.family == *family);
            let lacks_local = |plan: &&Arc<ServicePlan>| plan.any_endpoint && plan.local.is_empty();
            let internal = plans()
                .filter(|plan| plan.internal_policy == TrafficPolicy::Local)
                .filter(lacks_local);
            let external = plans()
                .filter(|plan| plan.is_external() && plan.external_policy == TrafficPolicy::Local)
                .filter(lacks_local);
            let metric = &self.metrics.no_local_endpoints;
            metric.set((Direction::Internal, *family), internal.count());
            metric.set((Direction::External, *family), external.count());
        }
    }
}

fn show(metric: &Amount<(Table, IpFamily)>, family: IpFamily, rules: RuleCounts) {
    metric.set((Table::Filter, family), rules.filter);
    metric.set((Table::Nat, family), rules.nat);
}

fn of_family(changes: &[PlanChange], family: IpFamily) -> Vec<PlanChange> {
    changes
        .iter()
        .filter(|change| change.id.family == family)
        .cloned()
        .collect()
}

fn concerns_local_policy(change: &PlanChange) -> bool {
    change.old.iter().chain(&change.new).any(|plan| {
        plan.internal_policy == TrafficPolicy::Local || plan.external_policy == TrafficPolicy::Local
    })
}
