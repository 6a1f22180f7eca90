//! What repeats is kept once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::object::{Hints, Place};

/// Below this count nothing is ever swept for what nobody uses any more.
const SWEEP_FLOOR: usize = 1024;

/// Keeps one copy of what occurs often: names of nodes, zones, namespaces, ports and Services,
/// the places of endpoints, and their topology hints.
#[derive(Debug, Default)]
pub struct Interner {
    names: Kept<str>,
    places: Kept<Place>,
    hints: Kept<Hints>,
}

/// One copy of each. What nobody else holds is dropped by the next sweep; sweeps happen when
/// the copies have doubled since the last one, so their cost per new one is constant.
#[derive(Debug)]
struct Kept<T: ?Sized> {
    copies: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Kept<T> {
    fn default() -> Self {
        Self {
            copies: HashSet::new(),
            sweep_at: SWEEP_FLOOR,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Kept<T> {
    fn share<G>(&mut self, given: G) -> Arc<T>
    where
        G: Borrow<T> + Into<Arc<T>>,
    {
        if let Some(known) = self.copies.get(given.borrow()) {
            return Arc::clone(known);
        }
        if self.copies.len() >= self.sweep_at {
            self.copies.retain(|copy| Arc::strong_count(copy) > 1);
            self.sweep_at = SWEEP_FLOOR.max(2 * self.copies.len());
        }
        let new: Arc<T> = given.into();
        self.copies.insert(Arc::clone(&new));
        new
    }
}

impl Interner {
    /// The shared copy of this name.
    pub fn share(&mut self, name: &str) -> Arc<str> {
        self.names.share(name)
    }

    /// The shared place of these names; `None` where nothing is known.
    pub fn place(&mut self, node: Option<&str>, zone: Option<&str>) -> Option<Arc<Place>> {
        if node.is_none() && zone.is_none() {
            return None;
        }
        let place = Place {
            node: node.map(|name| self.share(name)),
            zone: zone.map(|name| self.share(name)),
        };
        Some(self.places.share(place))
    }

    /// The shared copy of these hints.
    pub fn hints(&mut self, hints: Hints) -> Arc<Hints> {
        self.hints.share(hints)
    }

    /// How many names are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.copies.len()
    }

    /// Whether no name is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.copies.is_empty()
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
    fn equal_places_and_hints_are_one() {
        let mut names = Interner::default();
        let mut place = |node, zone| names.place(node, zone);
        let first = place(Some("node1"), Some("a")).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &place(Some("node1"), Some("a")).unwrap()
        ));
        assert_ne!(first, place(Some("node1"), None).unwrap());
        assert_ne!(first, place(Some("node1"), Some("b")).unwrap());
        assert_eq!(place(None, None), None);
        let mut hints = |zone: &str| {
            let zones = Box::new([names.share(zone)]);
            names.hints(Hints {
                zones,
                nodes: Box::default(),
            })
        };
        assert!(Arc::ptr_eq(&hints("a"), &hints("a")));
        assert_ne!(hints("a"), hints("b"));
    }

    #[test]
    fn what_nobody_holds_does_not_pile_up() {
        let mut names = Interner::default();
        let held = names.place(Some("held"), None).unwrap();
        for turn in 0..100_000 {
            names.place(Some(&format!("node-{turn}")), None);
        }
        // Names go once the places that have them are gone.
        assert!(names.places.copies.len() <= 2 * SWEEP_FLOOR);
        assert!(names.len() <= 4 * SWEEP_FLOOR, "{}", names.len());
        assert!(Arc::ptr_eq(
            &held,
            &names.place(Some("held"), None).unwrap()
        ));
    }
}
