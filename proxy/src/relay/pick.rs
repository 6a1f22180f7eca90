use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::{ServicePlan, Target};

/// Picks an endpoint for each new connection, by the plan that is current then.
#[derive(Clone, Debug)]
pub(super) struct Picker(Arc<Mutex<Choice>>);

#[derive(Debug)]
struct Choice {
    plan: Arc<ServicePlan>,
    /// Affinity: what the last connection was given, and when. All clients of a loopback
    /// address are one client.
    last: Option<(Target, Instant)>,
}

impl Picker {
    pub(super) fn new(plan: &Arc<ServicePlan>) -> Self {
        Self(Arc::new(Mutex::new(Choice {
            plan: Arc::clone(plan),
            last: None,
        })))
    }

    /// From now on picks by this plan. Another Service's plan forgets the affinity.
    pub(super) fn set_plan(&self, plan: &Arc<ServicePlan>) {
        let mut choice = self.lock();
        if choice.plan.id != plan.id || plan.affinity_timeout_s.is_none() {
            choice.last = None;
        }
        choice.plan = Arc::clone(plan);
    }

    /// An endpoint for a connection that begins now; `None` when there is none.
    pub(super) fn pick(&self, now: Instant) -> Option<Target> {
        self.lock().pick(now, |count| fastrand::usize(..count))
    }

    /// How the Service port is called in the log.
    pub(super) fn service(&self) -> String {
        self.lock().plan.id.to_string()
    }

    fn lock(&self) -> MutexGuard<'_, Choice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Choice {
    fn pick(&mut self, now: Instant, random: impl FnOnce(usize) -> usize) -> Option<Target> {
        let targets = &self.plan.cluster;
        let kept = self.plan.affinity_timeout_s.and_then(|timeout_s| {
            let (target, used) = self.last?;
            let timeout = Duration::from_secs(u64::from(timeout_s));
            let is_fresh = now.saturating_duration_since(used) < timeout;
            (is_fresh && targets.contains(&target)).then_some(target)
        });
        let target = match kept {
            Some(target) => target,
            None if targets.is_empty() => return None,
            None => *targets.get(random(targets.len()))?,
        };
        if self.plan.affinity_timeout_s.is_some() {
            self.last = Some((target, now));
        }
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::object::{IpFamily, ObjectName, Protocol, TrafficPolicy};

    use super::*;
    use crate::plan::PlanId;

    fn target(last: u16) -> Target {
        Target {
            address: format!("fd00::{last}").parse().unwrap(),
            port: 80,
            is_local: false,
        }
    }

    fn plan(affinity_timeout_s: Option<u32>, targets: &[u16]) -> Arc<ServicePlan> {
        Arc::new(ServicePlan {
            id: PlanId {
                service: ObjectName::new("ns", "svc"),
                port_name: "".into(),
                protocol: Protocol::Tcp,
                family: IpFamily::V6,
            },
            port: 80,
            frontends: Vec::new(),
            affinity_timeout_s,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Local,
            source_ranges: None,
            source_ranges_include_node: false,
            health_check_node_port: None,
            ipvs_scheduler: None,
            cluster: targets.iter().map(|&last| target(last)).collect(),
            local: Box::default(),
            any_endpoint: true,
            serving: Box::default(),
        })
    }

    fn choice(plan: Arc<ServicePlan>) -> Choice {
        Choice { plan, last: None }
    }

    #[test]
    fn picks_what_the_dice_say_and_nothing_from_nothing() {
        let now = Instant::now();
        let mut choice = choice(plan(None, &[1, 2, 3]));
        assert_eq!(choice.pick(now, |_| 2), Some(target(3)));
        assert_eq!(choice.pick(now, |_| 0), Some(target(1)));
        choice.plan = plan(None, &[]);
        assert_eq!(choice.pick(now, |_| 0), None);
    }

    #[test]
    fn affinity_stays_is_renewed_expires_and_moves_on_when_its_endpoint_goes() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut choice = choice(plan(Some(10), &[1, 2, 3]));
        assert_eq!(choice.pick(at(0), |_| 1), Some(target(2)));
        assert_eq!(choice.pick(at(9), |_| 0), Some(target(2)), "stays");
        assert_eq!(
            choice.pick(at(18), |_| 0),
            Some(target(2)),
            "was renewed at 9"
        );
        assert_eq!(choice.pick(at(28), |_| 0), Some(target(1)), "expired");
        choice.plan = plan(Some(10), &[2, 3]);
        assert_eq!(
            choice.pick(at(29), |_| 0),
            Some(target(2)),
            "its endpoint went"
        );
    }

    #[test]
    fn affinity_that_is_switched_off_is_forgotten() {
        let picker = Picker::new(&plan(Some(10_800), &[1]));
        picker.pick(Instant::now());
        picker.set_plan(&plan(None, &[1]));
        assert!(picker.lock().last.is_none());
    }
}
