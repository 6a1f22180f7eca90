use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use switchyard_cluster::store::{Change, Store};

/// Somebody who derives something from the store. All calls come on the feed's thread, one
/// after the other; the change of a name is visible to clients when the call returns, so a
/// follower should be done in well under a millisecond for a small change.
pub trait Follower: Send + 'static {
    /// This is everything there is so far: nothing known from before counts. May come again.
    fn restart(&mut self, store: &Store);

    /// Something changed. The store may already be further than this change, where several
    /// came together: of those to one Service or to its endpoints the first is told, and
    /// says when it happened.
    fn change(&mut self, store: &Store, change: &Change);

    /// The changes that came together have all been told: a good moment to publish them.
    fn settled(&mut self, store: &Store) {
        let _nothing_to_publish = store;
    }

    /// The first list of every kind is in, and has been told. Comes once.
    fn synced(&mut self, store: &Store);
}

/// A follower and whether it still wants to be told.
pub(super) struct Slot {
    follower: Box<dyn Follower>,
    ended: Arc<AtomicBool>,
}

impl Slot {
    pub(super) fn new(follower: impl Follower, ended: &Arc<AtomicBool>) -> Self {
        Self {
            follower: Box::new(follower),
            ended: Arc::clone(ended),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&mut self, store: &Store) {
        self.follower.restart(store);
        self.follower.settled(store);
    }

    pub(super) fn tell(&mut self, store: &Store, changes: &[Change]) {
        for change in changes {
            self.follower.change(store, change);
        }
        self.follower.settled(store);
    }

    pub(super) fn synced(&mut self, store: &Store) {
        self.follower.synced(store);
    }
}
