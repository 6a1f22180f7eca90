use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use switchyard_cluster::journal::Journal;
use switchyard_cluster::object::Kind;
use switchyard_cluster::source::UPDATES_CAPACITY;
use switchyard_cluster::store::Store;
use switchyard_cluster::update::Update;
use tokio::sync::mpsc::channel;
use tokio::time::{Instant, sleep_until};

use super::batch::Batch;
use super::follower::Slot;
use super::metrics::FeedMetrics;
use super::{FeedSpec, Shared};

/// A source that had to stop (its folder is gone, its credentials can't be read) begins
/// again after this…
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// …and after twice as long each further time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The thread of a feed.
pub(super) async fn run(spec: FeedSpec, shared: Arc<Shared>) {
    let mut runner = Runner {
        store: Store::new(&spec.kinds()),
        followers: Vec::new(),
        journal: Journal::default(),
        metrics: FeedMetrics::new(),
        kinds: spec.kinds(),
        batch: Batch::default(),
        began: Instant::now(),
        shared,
        spec,
    };
    let mut pause = FIRST_PAUSE;
    while !runner.has_ended() {
        let began = Instant::now();
        runner.follow().await;
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        runner.rest(pause).await;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

struct Runner {
    spec: FeedSpec,
    shared: Arc<Shared>,
    store: Store,
    followers: Vec<Slot>,
    journal: Journal,
    metrics: FeedMetrics,
    kinds: Vec<Kind>,
    batch: Batch,
    began: Instant,
}

impl Runner {
    fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Takes in what one run of the source says, until it or the feed ends.
    async fn follow(&mut self) {
        let (sender, mut updates) = channel(UPDATES_CAPACITY);
        let spec = self.spec.clone();
        let source = tokio::spawn(async move {
            let Err(error) = spec.run(sender).await;
            error
        });
        let shared = Arc::clone(&self.shared);
        let mut taken = Vec::with_capacity(UPDATES_CAPACITY);
        loop {
            tokio::select! {
                biased;
                () = shared.wake.notified() => {
                    self.look_at_followers();
                    if self.has_ended() {
                        source.abort();
                        return;
                    }
                }
                count = updates.recv_many(&mut taken, UPDATES_CAPACITY) => {
                    if count == 0 {
                        break;
                    }
                    self.take_in(&mut taken);
                }
            }
        }
        if let Ok(error) = source.await {
            let from = &self.spec.source;
            tracing::error!(%from, %error, "the cluster can't be followed; what is known stays");
        }
    }

    /// Waits before the source begins again; followers may come and go meanwhile.
    async fn rest(&mut self, pause: Duration) {
        let shared = Arc::clone(&self.shared);
        let end = Instant::now() + pause;
        while !self.has_ended() {
            tokio::select! {
                () = shared.wake.notified() => self.look_at_followers(),
                () = sleep_until(end) => return,
            }
        }
    }

    fn look_at_followers(&mut self) {
        self.followers.retain(|slot| !slot.has_ended());
        let coming = std::mem::take(&mut *self.shared.coming());
        for mut slot in coming {
            if slot.has_ended() {
                continue;
            }
            slot.begin(&self.store);
            if self.store.synced() {
                slot.synced(&self.store);
            }
            self.followers.push(slot);
        }
    }

    fn take_in(&mut self, updates: &mut Vec<Update>) {
        let was_synced = self.store.synced();
        self.batch.clear();
        for update in updates.drain(..) {
            self.journal.tell(&update);
            self.metrics.tell(&update);
            let batch = &mut self.batch;
            self.store.apply(update, &mut |change| batch.add(change));
        }
        if !self.batch.changes().is_empty() {
            self.metrics.count(&self.kinds, &self.store);
            for slot in &mut self.followers {
                slot.tell(&self.store, self.batch.changes());
            }
        }
        if self.store.synced() && !was_synced {
            self.synced();
        }
    }

    fn synced(&mut self) {
        for slot in &mut self.followers {
            slot.synced(&self.store);
        }
        self.shared.synced.store(true, Ordering::Release);
        self.shared.synced_news.send_replace(true);
        tracing::info!(
            from = %self.spec.source,
            services = self.store.count(Kind::Service),
            endpoint_slices = self.store.count(Kind::EndpointSlice),
            namespaces = self.store.count(Kind::Namespace),
            pods = self.store.count(Kind::Pod),
            seconds = self.began.elapsed().as_secs_f32(),
            "the cluster is known"
        );
    }
}
