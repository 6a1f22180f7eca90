//! What ties an index to the feed that it is made from.

use std::sync::Arc;

use switchyard_cluster::store::{Change, Store};

use super::config::Config;
use super::index::Index;
use super::metrics;
use crate::feed::{Feeds, Follower, Following};

/// An index that is kept up to date as long as somebody holds this.
#[derive(Debug)]
pub(super) struct Followed {
    index: Arc<Index>,
    following: Following,
}

struct Writer(Arc<Index>);

impl Followed {
    /// An index that begins to fill when [`Followed::start`] is called.
    #[must_use]
    pub(super) fn new(config: &Config, feeds: &Feeds) -> Self {
        let index = Arc::new(Index::new(config.options.clone()));
        let feed = feeds.feed(&config.feed);
        let following = feed.follow(Writer(Arc::clone(&index)));
        Self { index, following }
    }

    /// The index.
    #[must_use]
    pub(super) const fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Begins to follow the cluster, if nobody has yet.
    pub(super) fn start(&self) {
        if let Err(error) = self.following.feed().start() {
            tracing::error!(%error, "the cluster can't be followed");
        }
    }
}

impl Follower for Writer {
    fn restart(&mut self, store: &Store) {
        self.0.restart(store);
    }

    fn change(&mut self, store: &Store, change: &Change) {
        self.0.change(store, change);
        if let Change::Endpoints {
            service,
            trigger_unix_ns: Some(trigger),
        } = change
            && self.0.is_synced()
        {
            metrics::programmed(store, service, *trigger);
        }
    }

    fn synced(&mut self, _: &Store) {
        self.0.set_synced();
    }
}
