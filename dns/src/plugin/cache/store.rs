use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;

use super::config::Stale;
use super::entry::Entry;
use super::table::Table;
use crate::wire::{Question, Rcode};

/// Shards of a cache, each with its own lock; as many as the reference has.
const SHARDS: usize = 256;
/// The least that a shard keeps of each kind.
const SHARD_ENTRIES_MIN: usize = 4;
/// Octets that a kind may take for each message of its capacity: so the default capacity is
/// at most 10 MB a kind, whatever is asked. Most messages take about 300.
const OCTETS_PER_ENTRY: usize = 1_024;
/// Questions that a cache asks again by itself at one time (prefetch, stale). Further ones
/// wait for the next hit and are counted.
const REFRESHES_CAPACITY: usize = 512;

/// Replies, over all threads.
#[derive(Debug)]
pub(super) struct Store {
    shards: Box<[Shard]>,
    hasher: foldhash::fast::RandomState,
    /// Labels of its metrics: server, zones.
    pub(super) labels: [String; 2],
    pub(super) refreshes: Arc<Semaphore>,
    /// Refreshes that found no place.
    pub(super) refreshes_skipped: AtomicU64,
}

/// Kept apart, so that threads do not share a cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    tables: Mutex<Tables>,
    /// Entries in the tables, for whoever has no lock.
    filled: AtomicUsize,
    /// Requests for which no lock was taken.
    passed: AtomicU64,
}

/// What is in one shard.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) success: Table,
    pub(super) denial: Table,
    pub(super) counts: Counts,
}

/// What happened, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) success_hits: u64,
    pub(super) denial_hits: u64,
    pub(super) served_stale: u64,
    pub(super) prefetches: u64,
    pub(super) drops: u64,
    pub(super) success_evictions: u64,
    pub(super) denial_evictions: u64,
    pub(super) success_entries: usize,
    pub(super) denial_entries: usize,
    pub(super) octets: usize,
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Success,
    Denial,
}

impl Store {
    /// A cache that keeps so many messages, rounded down to what all shards can have alike.
    pub(super) fn new(labels: [String; 2], success: usize, denial: usize) -> Self {
        let table = |capacity: usize| {
            let capacity = (capacity / SHARDS).max(SHARD_ENTRIES_MIN);
            Table::new(capacity, capacity * OCTETS_PER_ENTRY)
        };
        let shards = (0..SHARDS).map(|_| Shard {
            tables: Mutex::new(Tables {
                success: table(success),
                denial: table(denial),
                counts: Counts::default(),
            }),
            filled: AtomicUsize::new(0),
            passed: AtomicU64::new(0),
        });
        Self {
            shards: shards.collect(),
            hasher: foldhash::fast::RandomState::default(),
            labels,
            refreshes: Arc::new(Semaphore::new(REFRESHES_CAPACITY)),
            refreshes_skipped: AtomicU64::new(0),
        }
    }

    /// The key of a question: of its name in lower case, type, class, and the bits that make
    /// other answers of the same question.
    pub(super) fn key(&self, question: &Question, dnssec_ok: bool, checking: bool) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(question.lower().as_wire());
        hasher.write_u64(
            u64::from(question.rtype.0)
                | u64::from(question.class.0) << 16
                | u64::from(dnssec_ok) << 32
                | u64::from(checking) << 33,
        );
        hasher.finish()
    }

    fn shard(&self, key: u64) -> Option<&Shard> {
        // The tables take the key's ends for themselves.
        let [_, _, _, number, ..] = key.to_be_bytes();
        self.shards.get(usize::from(number))
    }

    /// The tables a key is in, locked; `None` if they are empty, for which no lock is taken.
    pub(super) fn tables(&self, key: u64) -> Option<MutexGuard<'_, Tables>> {
        let shard = self.shard(key)?;
        if shard.filled.load(Ordering::Relaxed) == 0 {
            shard.passed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(lock(shard))
    }

    /// Counts a request that is not looked for; `spread` keeps threads apart.
    pub(super) fn pass(&self, spread: u16) {
        let [_, number] = spread.to_be_bytes();
        if let Some(shard) = self.shards.get(usize::from(number)) {
            shard.passed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Changes the tables of a key, empty or not.
    pub(super) fn change<T>(&self, key: u64, change: impl FnOnce(&mut Tables) -> T) -> Option<T> {
        let shard = self.shard(key)?;
        let mut tables = lock(shard);
        let changed = change(&mut tables);
        let filled = tables.success.len() + tables.denial.len();
        shard.filled.store(filled, Ordering::Relaxed);
        Some(changed)
    }

    /// All shards together.
    pub(super) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for shard in &self.shards {
            let tables = lock(shard);
            let counts = tables.counts;
            sum.requests += counts.requests + shard.passed.load(Ordering::Relaxed);
            sum.success_hits += counts.success_hits;
            sum.denial_hits += counts.denial_hits;
            sum.served_stale += counts.served_stale;
            sum.prefetches += counts.prefetches;
            sum.drops += counts.drops;
            sum.success_evictions += counts.success_evictions;
            sum.denial_evictions += counts.denial_evictions;
            sum.success_entries += tables.success.len();
            sum.denial_entries += tables.denial.len();
            sum.octets += tables.success.octets() + tables.denial.octets();
        }
        sum
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, Tables> {
    shard.tables.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tables {
    pub(super) const fn table_mut(&mut self, side: Side) -> &mut Table {
        match side {
            Side::Success => &mut self.success,
            Side::Denial => &mut self.denial,
        }
    }

    /// Where the reply to give is, if there is one that is good or may be given stale.
    pub(super) fn choose(
        &self,
        key: u64,
        question: &Question,
        now: Instant,
        stale: Option<&Stale>,
    ) -> Option<Side> {
        let stale_s = stale.map_or(0, |stale| {
            i64::try_from(stale.up_to.as_secs()).unwrap_or(i64::MAX)
        });
        let usable = |entry: &&Entry| {
            let left = entry.left_s(now);
            entry.is_for(question) && (left > 0 || (stale_s > 0 && -left < stale_s))
        };
        let success = self.success.get(key).filter(usable);
        if stale.is_some_and(|stale| stale.prefer_positive)
            && success.is_some_and(|entry| entry.answers)
        {
            return Some(Side::Success);
        }
        match self.denial.get(key).filter(usable) {
            // A failure passes; what was good before is better.
            Some(denial) if denial.rcode() == Rcode::SERVFAIL && success.is_some() => {
                Some(Side::Success)
            }
            Some(_) => Some(Side::Denial),
            None => success.map(|_| Side::Success),
        }
    }
}
