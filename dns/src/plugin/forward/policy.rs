//! In which order upstreams are tried (`policy`).

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many upstreams one `forward` may have, as in the reference.
pub(super) const UPSTREAMS_MAX: usize = 15;

/// Which upstream is asked first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum PolicyKind {
    /// Any.
    #[default]
    Random,
    /// Each in turn.
    RoundRobin,
    /// The first that works, in the order written.
    Sequential,
}

/// A policy and where it stands.
#[derive(Debug)]
pub(super) struct Policy {
    kind: PolicyKind,
    turn: AtomicUsize,
}

impl Policy {
    pub(super) const fn new(kind: PolicyKind) -> Self {
        Self {
            kind,
            turn: AtomicUsize::new(0),
        }
    }

    /// The order for one query: places in a list of `count` upstreams, of
    /// [`UPSTREAMS_MAX`] at most.
    pub(super) fn order(&self, count: usize) -> Order {
        let mut order = Order {
            places: [0; UPSTREAMS_MAX],
            count: count.min(UPSTREAMS_MAX),
        };
        let used = order.places.get_mut(..order.count).unwrap_or_default();
        for (place, slot) in used.iter_mut().enumerate() {
            *slot = place;
        }
        match self.kind {
            PolicyKind::Random => fastrand::shuffle(used),
            PolicyKind::RoundRobin if count > 0 => {
                used.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % used.len());
            }
            PolicyKind::RoundRobin | PolicyKind::Sequential => {}
        }
        order
    }
}

/// Places in the list of upstreams, each once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    places: [usize; UPSTREAMS_MAX],
    count: usize,
}

impl Order {
    /// The places, first to last.
    pub(super) fn places(&self) -> &[usize] {
        self.places.get(..self.count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(kind: PolicyKind, times: usize) -> Vec<Vec<usize>> {
        let policy = Policy::new(kind);
        (0..times)
            .map(|_| policy.order(3).places().to_vec())
            .collect()
    }

    #[test]
    fn sequential_is_always_the_order_written() {
        assert_eq!(orders(PolicyKind::Sequential, 2), [[0, 1, 2], [0, 1, 2]]);
    }

    #[test]
    fn round_robin_begins_with_each_in_turn() {
        let expected = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]];
        assert_eq!(orders(PolicyKind::RoundRobin, 4), expected);
    }

    #[test]
    fn random_begins_with_each_about_as_often_and_tries_all() {
        let orders = orders(PolicyKind::Random, 3000);
        for first in 0..3 {
            let times = orders.iter().filter(|order| order[0] == first).count();
            assert!(
                (800..1200).contains(&times),
                "{first} came first {times} times"
            );
        }
        for mut order in orders {
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
    }

    #[test]
    fn no_upstreams_have_no_order() {
        for kind in [PolicyKind::Random, PolicyKind::RoundRobin] {
            assert!(Policy::new(kind).order(0).places().is_empty());
        }
    }
}
