use std::collections::HashSet;

use switchyard_cluster::object::ObjectName;
use switchyard_cluster::store::Change;

/// Changes that came together. A Service whose endpoints changed ten times in them is looked
/// at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: Vec<Change>,
    services: HashSet<ObjectName>,
    endpoints: HashSet<ObjectName>,
}

impl Batch {
    /// Forgets what was told.
    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.services.clear();
        self.endpoints.clear();
    }

    pub(super) fn add(&mut self, change: Change) {
        let new = match &change {
            Change::Service(name) => self.services.insert(name.clone()),
            Change::Endpoints { service, .. } => self.endpoints.insert(service.clone()),
            // Each of a pod says what was before it; the others are rare.
            Change::Pod { .. } | Change::Namespace(_) | Change::Node(_) | Change::ServiceCidrs => {
                true
            }
        };
        if new {
            self.changes.push(change);
        }
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }
}
