//! What several plans want at the same time, and goes only when the last of them lets go. Pure.

use std::collections::HashMap;
use std::hash::Hash;

/// How many want each thing.
#[derive(Clone, Debug)]
pub(in crate::backend) struct Holders<T>(HashMap<T, u32>);

impl<T> Default for Holders<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Copy + Eq + Hash> Holders<T> {
    /// One more wants it; true if nobody did.
    pub(in crate::backend) fn hold(&mut self, thing: T) -> bool {
        let holders = self.0.entry(thing).or_default();
        *holders += 1;
        *holders == 1
    }

    /// One less wants it; true if nobody does any more.
    pub(in crate::backend) fn let_go(&mut self, thing: T) -> bool {
        let Some(holders) = self.0.get_mut(&thing) else {
            return false;
        };
        *holders = holders.saturating_sub(1);
        let is_last = *holders == 0;
        if is_last {
            self.0.remove(&thing);
        }
        is_last
    }

    /// One less wants each of `before`, one more each of `after`: what was wanted by nobody and
    /// is now, and what is wanted by nobody any more.
    pub(in crate::backend) fn change(&mut self, before: &[T], after: &[T]) -> (Vec<T>, Vec<T>) {
        let mut came = Vec::new();
        for thing in after {
            if self.hold(*thing) {
                came.push(*thing);
            }
        }
        let mut gone = Vec::new();
        for thing in before {
            if self.let_go(*thing) {
                gone.push(*thing);
            }
        }
        (came, gone)
    }

    /// All that is wanted.
    pub(in crate::backend) fn all(&self) -> impl Iterator<Item = T> {
        self.0.keys().copied()
    }

    /// How many things are wanted.
    pub(in crate::backend) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether somebody wants it.
    pub(in crate::backend) fn contains(&self, thing: T) -> bool {
        self.0.contains_key(&thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_want_stays_until_both_let_go() {
        let mut holders = Holders::default();
        assert_eq!(holders.change(&[], &[1, 2]), (vec![1, 2], vec![]));
        assert_eq!(holders.change(&[], &[2]), (vec![], vec![]));
        assert_eq!(holders.change(&[1, 2], &[3]), (vec![3], vec![1]));
        assert!(holders.contains(2));
        assert_eq!(holders.change(&[2, 3], &[3]), (vec![], vec![2]));
    }
}
