//! Handing work to the worker, and what comes of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use switchyard_cluster::object::{Kind, TrafficPolicy};
use tokio::task::{JoinHandle, spawn_blocking};

use super::leftovers::Removal;
use super::pending::Taken;
use super::worker::{Outcome, Worker};
use super::{AUDIT_PERIOD, Agent, Done, REST_MAX, RETRY_PAUSE, journal};
use crate::backend::Mode;
use crate::health::Moment;
use crate::metrics::Direction;
use crate::plan::{PlanChange, ServicePlan};

/// After a sync of so many changes, free memory goes back to the kernel: a first list leaves a
/// third of the heap free, in pieces that the allocator would keep for ever.
const LARGE_SYNC_CHANGES: usize = 1000;

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
            self.devices_wait = false; // they go along
        }
        let facts = self.facts();
        let is_first = self.adopted.is_empty() && self.mode == Mode::Ebpf;
        let way = is_first.then(|| self.leftovers.make_way());
        Some(spawn_blocking(move || {
            if let Some(way) = way {
                // An error says that it was made before.
                let _ = way.recv();
            }
            let outcomes = worker.work(&taken, &facts);
            Done::Synced {
                round: worker.housekeep(),
                worker,
                outcomes,
                taken,
            }
        }))
    }

    /// Attaches to devices that came, before anything else is done. What the kernel has never
    /// been compared with gets them by its first comparison.
    pub(super) fn attach(&mut self) -> Option<JoinHandle<Done>> {
        if !self.devices_wait || self.adopted.is_empty() {
            return None;
        }
        let mut worker = self.worker.take()?;
        self.devices_wait = false;
        let devices = Arc::clone(&self.devices);
        let stations = Arc::clone(&self.stations);
        Some(spawn_blocking(move || Done::Attached {
            result: worker.set_devices(devices, stations),
            worker,
        }))
    }

    /// Looks now and then whether the rules are still there.
    pub(super) fn tick(&mut self) -> Option<JoinHandle<Done>> {
        self.follow_up();
        if self.drains && !self.draining.is_so() {
            self.drains = false;
            self.pending.rewrite(self.families.iter().copied());
        }
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
            Done::Attached { worker, result } => {
                self.worker = Some(worker);
                if let Err(error) = result {
                    tracing::error!(%error, "can't attach to a device; all is compared anew");
                    self.not_before = Instant::now() + RETRY_PAUSE;
                    self.pending.rewrite(self.families.iter().copied());
                    self.queued();
                }
            }
            Done::Housekept { worker, round } => {
                self.worker = Some(worker);
                self.housekept(round);
            }
            Done::Synced {
                worker,
                outcomes,
                taken,
                round,
            } => {
                let was_large = taken.changes.len() >= LARGE_SYNC_CHANGES;
                if !self.leftovers_removed {
                    self.hands_over = round.as_ref().is_some_and(|round| round.hands_over);
                }
                self.synced(worker, &outcomes, taken);
                self.housekept(round);
                if was_large {
                    give_memory_back();
                }
            }
        }
    }

    fn synced(&mut self, worker: Worker, outcomes: &[Outcome], taken: Taken) {
        self.worker = Some(worker);
        let took: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
        let (mut failed, mut full_failed) = (false, false);
        for outcome in outcomes {
            if !self.judge(outcome, &taken) {
                failed = true;
                full_failed |= outcome.full;
            }
        }
        self.watch_refused(outcomes);
        self.remove_leftovers();
        let rest = self
            .settings
            .min_sync_period
            .unwrap_or_else(|| took.min(REST_MAX));
        self.not_before = Instant::now() + rest;
        if !failed {
            self.failures = 0;
            self.written(&taken);
            return;
        }
        // A failed incremental sync is followed by a full one at once: that finds out which
        // Service is to blame. After a failed full one comes a pause.
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
        let Some(conntrack) = &self.conntrack else {
            return;
        };
        for family in &taken.reconcile {
            conntrack.replace(*family, &taken.plans);
        }
        conntrack.apply(&taken.changes);
    }

    /// Once all that is wanted is in the kernel, what another mode left there goes.
    fn remove_leftovers(&mut self) {
        if !self.leftovers_removed && self.is_complete() {
            self.leftovers_removed = true;
            self.leftovers.remove(self.removal());
        }
    }

    /// No connection needs what another mode left any more.
    pub(super) fn end_handover(&mut self) {
        if self.leftovers_removed && std::mem::replace(&mut self.hands_over, false) {
            self.leftovers.remove(self.removal());
        }
    }

    fn removal(&self) -> Removal {
        Removal {
            in_force: self.mode,
            bpf_root: self.settings.ebpf.bpf_root.clone(),
            hands_over: self.hands_over,
            ebpf: self.facts().ebpf(),
            plans: self.table.plans().cloned().collect(),
            draining: self.draining.clone(),
        }
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

/// Off the agent's own thread: it takes some milliseconds.
fn give_memory_back() {
    spawn_blocking(|| {
        let start = Instant::now();
        let given = switchyard_kernel::trim_heaps();
        tracing::debug!(given, took = ?start.elapsed(), "gave free memory back to the kernel");
    });
}

fn concerns_local_policy(change: &PlanChange) -> bool {
    change.old.iter().chain(&change.new).any(|plan| {
        plan.internal_policy == TrafficPolicy::Local || plan.external_policy == TrafficPolicy::Local
    })
}
