use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::entry::Entry;

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0 << 8 | u64::from(*octet);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Entries by the hash of their question. Over its bounds it throws out some at random.
#[derive(Debug)]
pub(super) struct Table {
    index: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
    entries: Vec<(u64, Entry)>,
    octets: usize,
    capacity: usize,
    octets_capacity: usize,
}

impl Table {
    pub(super) fn new(capacity: usize, octets_capacity: usize) -> Self {
        Self {
            index: HashMap::default(),
            entries: Vec::new(),
            octets: 0,
            capacity,
            octets_capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn octets(&self) -> usize {
        self.octets
    }

    pub(super) fn get(&self, key: u64) -> Option<&Entry> {
        let at = *self.index.get(&key)?;
        self.entries.get(at).map(|(_, entry)| entry)
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut Entry> {
        let at = *self.index.get(&key)?;
        self.entries.get_mut(at).map(|(_, entry)| entry)
    }

    /// Takes an entry in the place of the one with its key. Says how many others had to go;
    /// `None` if it is too large to be kept.
    pub(super) fn insert(&mut self, key: u64, entry: Entry) -> Option<u64> {
        self.remove(key);
        if entry.octets() > self.octets_capacity || self.capacity == 0 {
            return None;
        }
        let mut evicted = 0;
        while self.entries.len() >= self.capacity
            || self.octets + entry.octets() > self.octets_capacity
        {
            let (victim, _) = self.entries.get(fastrand::usize(..self.entries.len()))?;
            self.remove(*victim);
            evicted += 1;
        }
        self.octets += entry.octets();
        self.index.insert(key, self.entries.len());
        self.entries.push((key, entry));
        Some(evicted)
    }

    pub(super) fn remove(&mut self, key: u64) {
        let Some(at) = self.index.remove(&key) else {
            return;
        };
        let (_, entry) = self.entries.swap_remove(at);
        self.octets -= entry.octets();
        // The last one lies here now.
        if let Some((moved, _)) = self.entries.get(at) {
            self.index.insert(*moved, at);
        }
    }
}
