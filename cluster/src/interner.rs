//! Names that repeat are kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// Names below this count are never swept for ones that nobody uses any more.
const SWEEP_FLOOR_NAMES: usize = 1024;

/// Keeps one copy of every name that occurs often: nodes, zones, namespaces, port names,
/// Services. A name that nobody else holds is dropped by the next sweep; sweeps happen when
/// the names have doubled since the last one, so their cost per new name is constant.
#[derive(Debug)]
pub struct Interner {
    names: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            names: HashSet::new(),
            sweep_at: SWEEP_FLOOR_NAMES,
        }
    }
}

impl Interner {
    /// The shared copy of this name.
    pub fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.names.len() >= self.sweep_at {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = SWEEP_FLOOR_NAMES.max(2 * self.names.len());
        }
        let new: Arc<str> = name.into();
        self.names.insert(Arc::clone(&new));
        new
    }

    /// How many names are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one() {
        let mut names = Interner::default();
        let first = names.share("node1");
        let second = names.share("node1");
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn names_nobody_holds_do_not_pile_up() {
        let mut names = Interner::default();
        let held = names.share("held");
        for turn in 0..100_000 {
            names.share(&format!("node-{turn}"));
        }
        assert!(names.len() <= 2 * SWEEP_FLOOR_NAMES, "{}", names.len());
        assert!(Arc::ptr_eq(&held, &names.share("held")));
    }
}
