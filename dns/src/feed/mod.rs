//! The cluster's objects, followed once for all plugins that answer from them.
//!
//! A [`Feed`] reads one cluster, from its API server or from a directory of manifests, into
//! one store. It has a thread of its own: reading a big list, and the work of its followers,
//! keep no query waiting. A [`Follower`] is shown the whole store when it comes, and then
//! every change.
//!
//! [`Feeds`] hands out the feed of a [`FeedSpec`], and the same one as long as anybody holds
//! it: a reload that leaves the spec as it was keeps the watches and the store. A feed that
//! nobody holds ends. What a feed knows stays when the API server goes away, and is compared
//! with a new list when that comes back.
//!
//! Of each kind there is one watch, and its next request begins when the last one has ended,
//! at least a second after it began. So the limits `apiserver_qps`, `apiserver_burst` and
//! `apiserver_max_inflight` of the Corefile have nothing to limit here, and are only checked.

mod batch;
mod follower;
mod metrics;
mod registry;
mod runner;
mod spec;
#[cfg(test)]
mod tests;

pub use follower::Follower;
pub use registry::Feeds;
pub use spec::{FeedSource, FeedSpec};
// What a spec is made of.
pub use switchyard_cluster::source::DnsNeeds;
pub use switchyard_cluster::source::api::{Access, TlsFiles};

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{Notify, watch};

use self::follower::Slot;

/// One cluster, followed. Ends when the last that holds it lets go.
pub struct Feed {
    spec: FeedSpec,
    started: AtomicBool,
    shared: Arc<Shared>,
}

/// What a feed shares with its thread.
#[derive(Default)]
struct Shared {
    /// Followers that wait for their first look. As many as plugins ask for.
    coming: Mutex<Vec<Slot>>,
    /// Followers came or went, or the feed is to end.
    wake: Notify,
    /// Nobody holds the feed any more.
    ended: AtomicBool,
    /// See [`Feed::is_synced`].
    synced: AtomicBool,
    /// The same, for who waits.
    synced_news: watch::Sender<bool>,
}

/// Keeps a follower, and the feed it follows. Dropping it ends the following.
#[must_use = "dropping it ends the following"]
#[derive(Debug)]
pub struct Following {
    feed: Arc<Feed>,
    ended: Arc<AtomicBool>,
}

impl Feed {
    fn new(spec: FeedSpec) -> Self {
        Self {
            spec,
            started: AtomicBool::new(false),
            shared: Arc::default(),
        }
    }

    /// What it follows, and how.
    #[must_use]
    pub const fn spec(&self) -> &FeedSpec {
        &self.spec
    }

    /// Begins to follow the cluster, unless it has begun.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(&self) -> io::Result<()> {
        if self.started.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let begin = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (spec, shared) = (self.spec.clone(), Arc::clone(&self.shared));
            thread::Builder::new()
                .name("cluster-feed".to_owned())
                .spawn(move || runtime.block_on(runner::run(spec, shared)))
        };
        let begun = begin().map(drop);
        if begun.is_err() {
            self.started.store(false, Ordering::Relaxed);
        }
        begun
    }

    /// Adds a follower: it is shown the store as it is, and then every change, on the feed's
    /// thread, once that has [started](Self::start).
    pub fn follow(self: &Arc<Self>, follower: impl Follower) -> Following {
        let ended = Arc::new(AtomicBool::new(false));
        let slot = Slot::new(follower, &ended);
        self.shared.coming().push(slot);
        self.shared.wake.notify_one();
        Following {
            feed: Arc::clone(self),
            ended,
        }
    }

    /// Whether the first list of every kind is in, and every follower has been told so. Once
    /// true, it stays so. Takes no lock.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.shared.synced.load(Ordering::Acquire)
    }

    /// Returns once [`Feed::is_synced`] is true.
    pub async fn until_synced(&self) {
        let mut news = self.shared.synced_news.subscribe();
        // An error would mean that the feed is gone, but we hold it.
        let _ = news.wait_for(|synced| *synced).await;
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("spec", &self.spec)
            .field("synced", &self.is_synced())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn coming(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following {
    /// The feed that is followed.
    #[must_use]
    pub const fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.feed.shared.wake.notify_one();
    }
}
