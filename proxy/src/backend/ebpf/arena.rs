//! Which slots are taken.

use std::collections::BTreeMap;

/// A run of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Run {
    /// The first slot.
    pub(super) first: u32,
    /// How many.
    pub(super) count: u32,
}

/// Hands out runs of slots and takes them back. What was given back is not handed out before
/// [`Arena::settle`]: kernel programs may still read it.
#[derive(Debug)]
pub(super) struct Arena {
    /// Free runs by their first slot; none touches another.
    free: BTreeMap<u32, u32>,
    /// Given back, but perhaps still read.
    returned: Vec<Run>,
    taken: u32,
}

impl Arena {
    /// An arena of slots `1..capacity`; slot 0 stands for "none".
    pub(super) fn new(capacity: u32) -> Self {
        let mut free = BTreeMap::new();
        if capacity > 1 {
            free.insert(1, capacity - 1);
        }
        Self {
            free,
            returned: Vec::new(),
            taken: 0,
        }
    }

    /// How many are handed out; what was given back counts no more.
    pub(super) const fn taken(&self) -> u32 {
        self.taken
    }

    /// Takes the smallest free run that is large enough; `None` if there is none.
    pub(super) fn take(&mut self, count: u32) -> Option<Run> {
        let fitting = self.free.iter().filter(|(_, free)| **free >= count);
        let (first, free) = fitting.min_by_key(|(_, free)| **free)?;
        let (first, free) = (*first, *free);
        self.free.remove(&first);
        if free > count {
            self.free.insert(first + count, free - count);
        }
        self.taken += count;
        Some(Run { first, count })
    }

    /// Gives a run back.
    pub(super) fn give_back(&mut self, run: Run) {
        self.taken -= run.count;
        self.returned.push(run);
    }

    /// Whether something waits to be settled.
    pub(super) fn has_returned(&self) -> bool {
        !self.returned.is_empty()
    }

    /// No program can read what was given back until now: it may be handed out again.
    pub(super) fn settle(&mut self) {
        for run in std::mem::take(&mut self.returned) {
            self.insert(run);
        }
    }

    /// Adds a free run, joined with those it touches.
    fn insert(&mut self, run: Run) {
        let Run {
            mut first,
            mut count,
        } = run;
        if let Some((before, length)) = self.free.range(..first).next_back()
            && before + length == first
        {
            (first, count) = (*before, length + count);
            self.free.remove(&first);
        }
        if let Some(length) = self.free.remove(&(first + count)) {
            count += length;
        }
        self.free.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_given_back_waits() {
        let mut arena = Arena::new(11);
        let all = arena.take(10).unwrap();
        assert_eq!(arena.take(1), None);
        arena.give_back(all);
        assert_eq!((arena.take(1), arena.taken()), (None, 0));
        arena.settle();
        assert_eq!(
            arena.take(10),
            Some(Run {
                first: 1,
                count: 10
            })
        );
    }

    proptest! {
        /// Runs never overlap, and when all are back the arena is whole again.
        #[test]
        fn runs_do_not_overlap(sizes in proptest::collection::vec((1_u32..20, any::<bool>()), 1..80)) {
            let mut arena = Arena::new(400);
            let mut held: Vec<Run> = Vec::new();
            for (size, gives_back) in sizes {
                if gives_back && !held.is_empty() {
                    arena.give_back(held.remove(usize::try_from(size).unwrap() % held.len()));
                    if size % 2 == 0 {
                        arena.settle();
                    }
                } else if let Some(run) = arena.take(size) {
                    held.push(run);
                }
                let mut sorted = held.clone();
                sorted.sort_unstable();
                for pair in sorted.windows(2) {
                    prop_assert!(pair[0].first + pair[0].count <= pair[1].first);
                }
                prop_assert!(sorted.iter().all(|run| run.first >= 1 && run.first + run.count <= 400));
                prop_assert_eq!(arena.taken(), held.iter().map(|run| run.count).sum::<u32>());
            }
            held.into_iter().for_each(|run| arena.give_back(run));
            arena.settle();
            prop_assert_eq!(arena.free, BTreeMap::from([(1, 399)]));
        }
    }
}
