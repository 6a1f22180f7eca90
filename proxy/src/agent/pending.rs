//! What has changed and is not yet in the kernel.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use switchyard_cluster::object::{IpFamily, ObjectName};

use crate::plan::{PlanChange, PlanId, ServicePlan};

/// Trigger times kept for one sync; a storm has more, but says nothing new by them.
const TRIGGERS_PER_SYNC: usize = 10_000;

/// Everything that waits for the next sync.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Services to plan anew.
    pub(super) dirty: HashSet<ObjectName>,
    /// Plans that changed since the kernel last had them.
    pub(super) changes: HashMap<PlanId, PlanChange>,
    /// Families in which the kernel must be read and compared.
    pub(super) reconcile: HashSet<IpFamily>,
    /// Of those, some because of what we want, not of what somebody else may have done.
    pub(super) wants_other_rules: bool,
    /// When the changes of endpoints happened (nanoseconds since 1970).
    pub(super) triggers_unix_ns: Vec<i64>,
    /// Changes of Services and of endpoints, for the metrics.
    pub(super) service_changes: usize,
    pub(super) endpoint_changes: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.changes.is_empty() && self.reconcile.is_empty()
    }

    /// Adds a change to what waits, over an earlier one of the same plan.
    pub(super) fn add(&mut self, change: PlanChange) {
        match self.changes.get_mut(&change.id) {
            Some(waiting) => waiting.new = change.new,
            None => drop(self.changes.insert(change.id.clone(), change)),
        }
    }

    /// Has all of these families' rules compared with the kernel, and made what we now want.
    pub(super) fn rewrite(&mut self, families: impl IntoIterator<Item = IpFamily>) {
        self.reconcile.extend(families);
        self.wants_other_rules = true;
    }

    pub(super) fn triggered(&mut self, unix_ns: i64) {
        if self.triggers_unix_ns.len() < TRIGGERS_PER_SYNC {
            self.triggers_unix_ns.push(unix_ns);
        }
    }

    /// Takes everything that can be handed to the backend, in the order of the plans' names.
    pub(super) fn take(&mut self) -> Taken {
        // Not drained: after the first list it would stay as large as that was.
        let changes = std::mem::take(&mut self.changes).into_values();
        let mut changes: Vec<PlanChange> = changes.filter(|c| c.old != c.new).collect();
        changes.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        self.service_changes = 0;
        self.endpoint_changes = 0;
        Taken {
            changes,
            reconcile: std::mem::take(&mut self.reconcile),
            wants_other_rules: std::mem::take(&mut self.wants_other_rules),
            plans: Vec::new(),
            triggers_unix_ns: std::mem::take(&mut self.triggers_unix_ns),
        }
    }
}

/// What one sync works on.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) changes: Vec<PlanChange>,
    pub(super) reconcile: HashSet<IpFamily>,
    /// See [`Pending::wants_other_rules`].
    pub(super) wants_other_rules: bool,
    /// All plans, where a family is reconciled.
    pub(super) plans: Vec<Arc<ServicePlan>>,
    pub(super) triggers_unix_ns: Vec<i64>,
}
