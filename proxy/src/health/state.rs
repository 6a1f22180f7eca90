use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use switchyard_cluster::object::IpFamily;

/// A change may wait this many sync periods before its family counts as stuck.
const STUCK_AFTER_SYNC_PERIODS: u32 = 2;

/// A point in time, on the clock that never jumps (for rules) and on the wall (for readers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The steady clock.
    pub instant: Instant,
    /// The time of day.
    pub wall: Timestamp,
}

impl Moment {
    /// Now, by the machine's clocks.
    #[must_use]
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            wall: Timestamp::now(),
        }
    }
}

/// Whether the agent keeps up with the cluster. Knows no clock: every call says when it is.
///
/// A family is healthy from its first full sync on, and as long as no change has waited for
/// two sync periods. (The reference is healthy before the first sync too; we are not, so
/// that nobody sends traffic to a node without rules.)
#[derive(Clone, Debug)]
pub struct State {
    stuck_after: Duration,
    families: BTreeMap<IpFamily, Family>,
    node_eligible: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Family {
    /// The last sync that wrote everything there was to write.
    updated: Option<Moment>,
    /// The oldest change not yet written.
    waiting_since: Option<Instant>,
}

impl State {
    /// A state for an agent that programs these families. Nothing is healthy yet, and the
    /// node is not yet known to be eligible.
    #[must_use]
    pub fn new(sync_period: Duration, families: &[IpFamily]) -> Self {
        Self {
            stuck_after: sync_period.saturating_mul(STUCK_AFTER_SYNC_PERIODS),
            families: families
                .iter()
                .map(|&family| (family, Family::default()))
                .collect(),
            node_eligible: false,
        }
    }

    /// A change of this family waits to be written. Only the oldest one counts.
    pub fn queued(&mut self, family: IpFamily, now: Moment) {
        let family = self.families.entry(family).or_default();
        family.waiting_since.get_or_insert(now.instant);
    }

    /// Everything queued so far for this family is in the kernel. The first call must come
    /// after a full sync.
    pub fn updated(&mut self, family: IpFamily, now: Moment) {
        let family = self.families.entry(family).or_default();
        *family = Family {
            updated: Some(now),
            waiting_since: None,
        };
    }

    /// Whether this node should get traffic from outside: its Node object exists, is not
    /// being deleted and is not marked for removal by the autoscaler.
    pub fn set_node_eligible(&mut self, eligible: bool) {
        self.node_eligible = eligible;
    }

    /// What to say when asked at this moment.
    #[must_use]
    pub fn report(&self, now: Moment) -> Report {
        let families: BTreeMap<_, _> = self
            .families
            .iter()
            .map(|(&family, state)| (family, self.family_report(state, now)))
            .collect();
        let healthy = families.values().all(|family| family.healthy);
        Report {
            now: now.wall,
            node_eligible: self.node_eligible,
            healthy,
            families,
        }
    }

    fn family_report(&self, family: &Family, now: Moment) -> FamilyReport {
        let stuck = family
            .waiting_since
            .is_some_and(|since| now.instant.saturating_duration_since(since) >= self.stuck_after);
        FamilyReport {
            updated: family.updated.map(|moment| moment.wall),
            healthy: family.updated.is_some() && !stuck,
        }
    }
}

/// The agent's health at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When it was asked for.
    pub now: Timestamp,
    /// Whether the node should get traffic from outside.
    pub node_eligible: bool,
    /// Every family is healthy.
    pub healthy: bool,
    /// Each family by itself.
    pub families: BTreeMap<IpFamily, FamilyReport>,
}

/// The health of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyReport {
    /// When it was last in the kernel, completely.
    pub updated: Option<Timestamp>,
    /// It has been synced and no change has waited too long.
    pub healthy: bool,
}

impl Report {
    /// Whether `/healthz` says 200: healthy, and the node is eligible.
    #[must_use]
    pub const fn healthz_ok(&self) -> bool {
        self.healthy && self.node_eligible
    }

    /// Whether `/livez` says 200: healthy, whatever becomes of the node.
    #[must_use]
    pub const fn livez_ok(&self) -> bool {
        self.healthy
    }

    /// The answer at `/healthz`, on one line as the reference writes it.
    ///
    /// # Errors
    /// None that can happen with these fields.
    pub fn healthz_json(&self) -> serde_json::Result<String> {
        self.json(self.healthz_ok(), Some(self.node_eligible))
    }

    /// The answer at `/livez`: the same without the node.
    ///
    /// # Errors
    /// None that can happen with these fields.
    pub fn livez_json(&self) -> serde_json::Result<String> {
        self.json(self.livez_ok(), None)
    }

    fn json(&self, ok: bool, node_eligible: Option<bool>) -> serde_json::Result<String> {
        // As of when what is said holds: now while well, else the newest family's last sync.
        let newest = self
            .families
            .values()
            .filter_map(|family| family.updated)
            .max();
        let last_updated = if ok { Some(self.now) } else { newest };
        serde_json::to_string(&Body {
            last_updated: go_time(last_updated),
            current_time: go_time(Some(self.now)),
            node_eligible,
            healthy: self.healthy,
            status: self
                .families
                .iter()
                .map(|(family, report)| {
                    let body = FamilyBody {
                        last_updated: go_time(report.updated),
                        healthy: report.healthy,
                    };
                    (family.as_str(), body)
                })
                .collect(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: BTreeMap<&'static str, FamilyBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

/// RFC 3339 with as many digits of the second as it needs; "never" is the year 1, as
/// readers of the reference know it.
fn go_time(time: Option<Timestamp>) -> String {
    time.map_or_else(
        || "0001-01-01T00:00:00Z".to_owned(),
        |time| time.to_string(),
    )
}

/// The state as the agent and its servers share it.
#[derive(Clone, Debug)]
pub struct SharedState(Arc<Mutex<State>>);

impl SharedState {
    /// Shares a state.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// The state, for as long as the guard lives; hold it for one call.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // No call of State can leave it half changed, so a poisoned one is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    struct Clock(Moment);

    impl Clock {
        fn new() -> Self {
            Self(Moment {
                instant: Instant::now(),
                wall: "2026-11-21T01:22:52.5Z".parse().unwrap(),
            })
        }

        fn at(&self, seconds: u64) -> Moment {
            let passed = Duration::from_secs(seconds);
            Moment {
                instant: self.0.instant + passed,
                wall: self.0.wall + passed,
            }
        }
    }

    fn synced(clock: &Clock) -> State {
        let mut state = State::new(PERIOD, &IpFamily::BOTH);
        state.set_node_eligible(true);
        state.updated(IpFamily::V4, clock.at(0));
        state.updated(IpFamily::V6, clock.at(1));
        state
    }

    #[test]
    fn nothing_is_healthy_before_every_family_is_in_the_kernel() {
        let clock = Clock::new();
        let mut state = State::new(PERIOD, &IpFamily::BOTH);
        state.set_node_eligible(true);
        assert!(!state.report(clock.at(0)).livez_ok());
        let never = state.report(clock.at(0)).livez_json().unwrap();
        assert!(
            never.starts_with(r#"{"lastUpdated":"0001-01-01T00:00:00Z","#),
            "{never}"
        );

        state.updated(IpFamily::V4, clock.at(1));
        assert!(!state.report(clock.at(1)).livez_ok());
        state.updated(IpFamily::V6, clock.at(2));
        assert!(state.report(clock.at(2)).livez_ok());
        assert!(state.report(clock.at(2)).healthz_ok());
    }

    #[test]
    fn a_change_may_wait_less_than_two_sync_periods() {
        let clock = Clock::new();
        let mut state = synced(&clock);
        assert!(state.report(clock.at(86_400)).livez_ok(), "idle is healthy");

        state.queued(IpFamily::V6, clock.at(100));
        state.queued(IpFamily::V6, clock.at(150));
        assert!(state.report(clock.at(159)).livez_ok());
        let late = state.report(clock.at(160));
        assert!(!late.livez_ok());
        assert!(late.families[&IpFamily::V4].healthy);
        assert!(!late.families[&IpFamily::V6].healthy);

        state.updated(IpFamily::V6, clock.at(161));
        assert!(state.report(clock.at(161)).livez_ok());
    }

    #[test]
    fn an_ineligible_node_is_alive_but_not_for_load_balancers() {
        let clock = Clock::new();
        let mut state = synced(&clock);
        state.set_node_eligible(false);
        let report = state.report(clock.at(5));
        assert!(report.livez_ok());
        assert!(!report.healthz_ok());
        assert!(report.healthy, "the body's field leaves the node out");
        // The top-level time is rewritten only on a 200.
        assert!(report.healthz_json().unwrap().contains(
            r#"{"lastUpdated":"2026-11-21T01:22:53.5Z","currentTime":"2026-11-21T01:22:57.5Z","#
        ));
        assert!(
            report
                .livez_json()
                .unwrap()
                .contains(r#"{"lastUpdated":"2026-11-21T01:22:57.5Z","#)
        );
    }

    #[test]
    fn bodies_have_the_recorded_fields_in_the_recorded_order() {
        let clock = Clock::new();
        let report = synced(&clock).report(clock.at(5));
        assert_eq!(
            report.healthz_json().unwrap(),
            r#"{"lastUpdated":"2026-11-21T01:22:57.5Z","currentTime":"2026-11-21T01:22:57.5Z","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-11-21T01:22:52.5Z","healthy":true},"IPv6":{"lastUpdated":"2026-11-21T01:22:53.5Z","healthy":true}}}"#
        );
        assert_eq!(
            report.livez_json().unwrap(),
            r#"{"lastUpdated":"2026-11-21T01:22:57.5Z","currentTime":"2026-11-21T01:22:57.5Z","healthy":true,"status":{"IPv4":{"lastUpdated":"2026-11-21T01:22:52.5Z","healthy":true},"IPv6":{"lastUpdated":"2026-11-21T01:22:53.5Z","healthy":true}}}"#
        );
    }
}
