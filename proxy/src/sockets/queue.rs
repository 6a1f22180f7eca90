use std::collections::HashMap;

use super::GivenEndpoint;

/// Stale endpoints remembered at once. Many more than the endpoints that leave a large
/// cluster in the time of one pass.
pub const STALE_ENDPOINTS_MAX: usize = 65_536;
/// How often it is looked for sockets of a stale endpoint. A socket that was being connected
/// during the first look, or whose neighbour in the kernel's table was just closed, is found
/// by the second.
const LOOKS: u8 = 2;
/// Passes in a row that may fail before what they were for is given up.
const FAILURES_MAX: u32 = 8;

/// Says whether an endpoint serves at present.
pub(super) type Serves = Box<dyn Fn(GivenEndpoint) -> bool + Send>;

/// What is to be looked for.
#[derive(Default)]
pub(super) struct Queue {
    stale: HashMap<GivenEndpoint, Wanted>,
    retained: Option<(Serves, Wanted)>,
    /// Counts what was asked for.
    asked: u64,
    failures: u32,
    forgotten: u64,
}

#[derive(Clone, Copy)]
struct Wanted {
    asked: u64,
    looks_left: u8,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Complete,
    /// It may go better next time.
    Failed,
    /// It never will.
    Hopeless,
}

impl Queue {
    /// Asking for one that waits already starts its looks anew.
    pub(super) fn add(&mut self, endpoints: &[GivenEndpoint]) {
        let wanted = self.wanted();
        for endpoint in endpoints {
            let is_full = self.stale.len() >= STALE_ENDPOINTS_MAX;
            if is_full && !self.stale.contains_key(endpoint) {
                self.forgotten += 1;
            } else {
                self.stale.insert(*endpoint, wanted);
            }
        }
    }

    /// They serve again.
    pub(super) fn withdraw(&mut self, endpoints: &[GivenEndpoint]) {
        for endpoint in endpoints {
            self.stale.remove(endpoint);
        }
    }

    /// All that does not serve is stale.
    pub(super) fn retain(&mut self, serves: Serves) {
        let wanted = self.wanted();
        self.retained = Some((serves, wanted));
    }

    fn wanted(&mut self) -> Wanted {
        self.asked += 1;
        Wanted {
            asked: self.asked,
            looks_left: LOOKS,
        }
    }

    pub(super) fn is_stale(&self, endpoint: GivenEndpoint) -> bool {
        let serves_not = |(serves, _): &(Serves, Wanted)| !serves(endpoint);
        self.stale.contains_key(&endpoint) || self.retained.as_ref().is_some_and(serves_not)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stale.is_empty() && self.retained.is_none()
    }

    /// How much was asked for until now: what a pass that starts now is for.
    pub(super) const fn asked(&self) -> u64 {
        self.asked
    }

    /// How many endpoints found no room since this was last asked.
    pub(super) const fn take_forgotten(&mut self) -> u64 {
        std::mem::replace(&mut self.forgotten, 0)
    }

    /// Takes note of a pass for all that was asked for up to `asked`. Returns how many
    /// endpoints are given up.
    pub(super) fn finish(&mut self, asked: u64, outcome: Outcome) -> usize {
        self.failures = match outcome {
            Outcome::Failed => self.failures + 1,
            Outcome::Complete | Outcome::Hopeless => 0,
        };
        let is_given_up = outcome == Outcome::Hopeless || self.failures >= FAILURES_MAX;
        let before = self.stale.len() + usize::from(self.retained.is_some());
        let stays = |wanted: &mut Wanted| {
            if wanted.asked > asked {
                return true;
            }
            if outcome == Outcome::Complete {
                wanted.looks_left = wanted.looks_left.saturating_sub(1);
            }
            wanted.looks_left > 0 && !is_given_up
        };
        self.stale.retain(|_, wanted| stays(wanted));
        if let Some((_, wanted)) = &mut self.retained
            && !stays(wanted)
        {
            self.retained = None;
        }
        if !is_given_up {
            return 0;
        }
        self.failures = 0;
        before - self.stale.len() - usize::from(self.retained.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(number: usize) -> GivenEndpoint {
        GivenEndpoint {
            service: u32::try_from(number).unwrap(),
            address: "10.0.0.5:53".parse().unwrap(),
        }
    }

    #[test]
    fn an_endpoint_is_looked_for_twice() {
        let mut queue = Queue::default();
        queue.add(&[endpoint(1)]);
        assert!(queue.is_stale(endpoint(1)) && !queue.is_stale(endpoint(2)));
        assert_eq!(queue.finish(queue.asked(), Outcome::Complete), 0);
        assert!(queue.is_stale(endpoint(1)));
        assert_eq!(queue.finish(queue.asked(), Outcome::Complete), 0);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_asked_for_during_a_pass_is_not_done_with_it() {
        let mut queue = Queue::default();
        queue.add(&[endpoint(1), endpoint(2)]);
        queue.finish(queue.asked(), Outcome::Complete);
        let asked = queue.asked();
        queue.add(&[endpoint(1), endpoint(3)]);
        queue.finish(asked, Outcome::Complete);
        let left: Vec<_> = (1..4)
            .filter(|number| queue.is_stale(endpoint(*number)))
            .collect();
        assert_eq!(left, [1, 3]);
        queue.withdraw(&[endpoint(1)]);
        queue.finish(queue.asked(), Outcome::Complete);
        assert!(!queue.is_stale(endpoint(1)) && queue.is_stale(endpoint(3)));
    }

    #[test]
    fn to_retain_what_serves_is_to_look_for_the_rest() {
        let mut queue = Queue::default();
        queue.retain(Box::new(|given| given == endpoint(1)));
        assert!(!queue.is_empty());
        assert!(!queue.is_stale(endpoint(1)) && queue.is_stale(endpoint(2)));
        for _ in 0..LOOKS {
            queue.finish(queue.asked(), Outcome::Complete);
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn failed_passes_are_repeated_but_not_for_ever() {
        let mut queue = Queue::default();
        queue.add(&[endpoint(1)]);
        queue.retain(Box::new(|_| true));
        for _ in 1..FAILURES_MAX {
            assert_eq!(queue.finish(queue.asked(), Outcome::Failed), 0);
        }
        assert!(!queue.is_empty());
        assert_eq!(queue.finish(queue.asked(), Outcome::Failed), 2);
        assert!(queue.is_empty());
        queue.add(&[endpoint(1)]);
        assert_eq!(queue.finish(queue.asked(), Outcome::Hopeless), 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_counts_what_it_does_not_take() {
        let mut queue = Queue::default();
        let all: Vec<_> = (0..STALE_ENDPOINTS_MAX + 2).map(endpoint).collect();
        queue.add(&all);
        queue.add(&all[..1]);
        assert_eq!(queue.take_forgotten(), 2);
        assert_eq!(queue.take_forgotten(), 0);
    }
}
