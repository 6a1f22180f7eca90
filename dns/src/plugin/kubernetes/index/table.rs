//! Sorted entries in many small shards: whoever reads takes no lock, a change copies one shard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

/// Bits of the number of shards. With 10,000 names a shard has ten of them.
const SHARD_BITS: u32 = 10;
/// 2^64 divided by the golden ratio: spreads keys that differ little (Fibonacci hashing).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// What entries are found by.
pub(super) trait Key: Ord + Copy {
    /// A number whose upper bits choose the shard.
    fn spread(self) -> u64;
}

impl Key for u64 {
    /// A number that is a hash already.
    fn spread(self) -> u64 {
        self
    }
}

impl Key for Ipv4Addr {
    fn spread(self) -> u64 {
        u64::from(u32::from(self)).wrapping_mul(SPREAD)
    }
}

impl Key for Ipv6Addr {
    fn spread(self) -> u64 {
        let octets = u128::from(self).to_be_bytes();
        let mut folded = 0;
        for half in octets.chunks_exact(8) {
            let half = half
                .iter()
                .fold(0, |sum, octet| sum << 8 | u64::from(*octet));
            folded = (folded ^ half).wrapping_mul(SPREAD);
        }
        folded
    }
}

/// Entries by key; several may have the same key.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    shards: Box<[ArcSwap<Box<[(K, V)]>>]>,
}

/// The entries of one key, as they were when they were looked up.
pub(super) struct Found<K, V> {
    shard: Guard<Arc<Box<[(K, V)]>>>,
    start: usize,
    end: usize,
}

impl<K: Key, V: Clone> Table<K, V> {
    /// No entries.
    #[must_use]
    pub(super) fn new() -> Self {
        let empty: Arc<Box<[(K, V)]>> = Arc::default();
        let shards = (0..1_usize << SHARD_BITS).map(|_| ArcSwap::new(Arc::clone(&empty)));
        Self {
            shards: shards.collect(),
        }
    }

    fn shard(&self, key: K) -> Option<&ArcSwap<Box<[(K, V)]>>> {
        let at = usize::try_from(key.spread() >> (64 - SHARD_BITS)).unwrap_or_default();
        self.shards.get(at)
    }

    /// What is under a key. Waits for nobody and allocates nothing.
    pub(super) fn find(&self, key: K) -> Option<Found<K, V>> {
        let shard = self.shard(key)?.load();
        let start = shard.partition_point(|(other, _)| *other < key);
        let mut end = start;
        while shard.get(end).is_some_and(|(other, _)| *other == key) {
            end += 1;
        }
        (start < end).then_some(Found { shard, start, end })
    }

    /// Adds an entry. For one writer at a time.
    pub(super) fn insert(&self, key: K, value: V) {
        let Some(shard) = self.shard(key) else {
            return;
        };
        let old = shard.load();
        let at = old.partition_point(|(other, _)| *other <= key);
        let (before, after) = old.split_at_checked(at).unwrap_or((&old, &[]));
        let mut new = Vec::with_capacity(old.len() + 1);
        new.extend_from_slice(before);
        new.push((key, value));
        new.extend_from_slice(after);
        shard.store(Arc::new(new.into()));
    }

    /// Removes the entries of this key that `gone` says. For one writer at a time.
    pub(super) fn remove(&self, key: K, mut gone: impl FnMut(&V) -> bool) {
        let Some(shard) = self.shard(key) else {
            return;
        };
        let kept = shard.load();
        let kept = kept
            .iter()
            .filter(|(other, value)| *other != key || !gone(value));
        let kept: Box<[(K, V)]> = kept.cloned().collect();
        shard.store(Arc::new(kept));
    }

    /// Replaces everything, shard by shard. For one writer at a time.
    pub(super) fn replace(&self, entries: impl IntoIterator<Item = (K, V)>) {
        let mut shards: Vec<Vec<(K, V)>> = Vec::new();
        shards.resize_with(self.shards.len(), Vec::new);
        for (key, value) in entries {
            let at = usize::try_from(key.spread() >> (64 - SHARD_BITS)).unwrap_or_default();
            if let Some(shard) = shards.get_mut(at) {
                shard.push((key, value));
            }
        }
        for (place, mut entries) in self.shards.iter().zip(shards) {
            entries.sort_by_key(|(key, _)| *key);
            place.store(Arc::new(entries.into()));
        }
    }

    /// Every entry, shard by shard.
    pub(super) fn for_each(&self, mut each: impl FnMut(K, &V)) {
        for shard in &self.shards {
            for (key, value) in shard.load().iter() {
                each(*key, value);
            }
        }
    }
}

impl<K, V> Deref for Found<K, V> {
    type Target = [(K, V)];

    fn deref(&self) -> &[(K, V)] {
        self.shard.get(self.start..self.end).unwrap_or_default()
    }
}

/// Entries by address, each family on its own so that IPv4 costs four octets.
#[derive(Debug)]
pub(super) struct ByAddress<V> {
    v4: Table<Ipv4Addr, V>,
    v6: Table<Ipv6Addr, V>,
}

impl<V: Clone> ByAddress<V> {
    /// No entries.
    #[must_use]
    pub(super) fn new() -> Self {
        Self {
            v4: Table::new(),
            v6: Table::new(),
        }
    }

    /// Calls `each` with what is under an address, until it says that it has enough.
    pub(super) fn find(&self, address: IpAddr, mut each: impl FnMut(&V) -> bool) {
        match address {
            IpAddr::V4(address) => {
                let found = self.v4.find(address);
                let _enough = found.is_some_and(|found| found.iter().any(|(_, value)| each(value)));
            }
            IpAddr::V6(address) => {
                let found = self.v6.find(address);
                let _enough = found.is_some_and(|found| found.iter().any(|(_, value)| each(value)));
            }
        }
    }

    /// Adds an entry. For one writer at a time.
    pub(super) fn insert(&self, address: IpAddr, value: V) {
        match address {
            IpAddr::V4(address) => self.v4.insert(address, value),
            IpAddr::V6(address) => self.v6.insert(address, value),
        }
    }

    /// Removes the entries of an address that `gone` says. For one writer at a time.
    pub(super) fn remove(&self, address: IpAddr, gone: impl FnMut(&V) -> bool) {
        match address {
            IpAddr::V4(address) => self.v4.remove(address, gone),
            IpAddr::V6(address) => self.v6.remove(address, gone),
        }
    }

    /// Replaces everything. For one writer at a time.
    pub(super) fn replace(&self, entries: impl IntoIterator<Item = (IpAddr, V)>) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (address, value) in entries {
            match address {
                IpAddr::V4(address) => v4.push((address, value)),
                IpAddr::V6(address) => v6.push((address, value)),
            }
        }
        self.v4.replace(v4);
        self.v6.replace(v6);
    }
}
