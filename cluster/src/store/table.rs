use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::object::{Named, ObjectName};

/// Objects of one kind by name, each with the generation of the list that named it last.
#[derive(Debug)]
pub(super) struct Table<V: Named> {
    entries: HashSet<Entry<V>>,
    generation: u32,
}

/// What putting an object changed.
pub(super) enum Put<V> {
    Unchanged,
    /// With what was there before.
    Changed(Option<Arc<V>>),
}

/// An object that is found by the name within it: a name costs twice as much as the entry.
#[derive(Debug)]
struct Entry<V> {
    object: Arc<V>,
    /// Changes without its place in the set.
    generation: AtomicU32,
}

impl<V> Put<V> {
    pub(super) const fn is_changed(&self) -> bool {
        matches!(self, Self::Changed(_))
    }
}

impl<V: Named> Default for Table<V> {
    fn default() -> Self {
        Self {
            entries: HashSet::new(),
            generation: 0,
        }
    }
}

impl<V: Named + PartialEq> Table<V> {
    pub(super) const fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<&Arc<V>> {
        self.entries.get(name).map(|entry| &entry.object)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.entries.iter().map(|entry| &entry.object)
    }

    pub(super) fn put(&mut self, new: Arc<V>) -> Put<V> {
        self.touch(new.name());
        if self.get(new.name()).is_some_and(|old| **old == *new) {
            return Put::Unchanged;
        }
        let old = self.entries.replace(Entry {
            object: new,
            generation: AtomicU32::new(self.generation),
        });
        Put::Changed(old.map(|old| old.object))
    }

    /// The list that is being read names this object.
    pub(super) fn touch(&self, name: &ObjectName) {
        if let Some(entry) = self.entries.get(name) {
            entry.generation.store(self.generation, Ordering::Relaxed);
        }
    }

    /// The objects that the list did not name.
    pub(super) fn untouched(&self) -> Vec<ObjectName> {
        let stale = self
            .entries
            .iter()
            .filter(|entry| entry.generation.load(Ordering::Relaxed) != self.generation);
        stale.map(|entry| entry.object.name().clone()).collect()
    }

    pub(super) fn remove(&mut self, name: &ObjectName) -> Option<Arc<V>> {
        self.entries.take(name).map(|entry| entry.object)
    }
}

impl<V: Named> Borrow<ObjectName> for Entry<V> {
    fn borrow(&self) -> &ObjectName {
        self.object.name()
    }
}

impl<V: Named> Hash for Entry<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.object.name().hash(state);
    }
}

impl<V: Named> PartialEq for Entry<V> {
    fn eq(&self, other: &Self) -> bool {
        self.object.name() == other.object.name()
    }
}

impl<V: Named> Eq for Entry<V> {}
