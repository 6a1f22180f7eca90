//! Changes of Services: made in the maps that are there, or in larger ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::compile;
use super::live::{Step, StepError};
use super::{Ebpf, EbpfError};
use crate::backend::Refusal;
use crate::plan::{PlanId, ServicePlan};

impl Ebpf {
    /// Compiles what is wanted; what has no form in the maps is refused, and stays as it is.
    pub(super) fn steps(&mut self, wanted: Vec<(PlanId, Option<Arc<ServicePlan>>)>) -> Vec<Step> {
        let mut steps = Vec::with_capacity(wanted.len());
        for (id, plan) in wanted {
            self.refused.remove(&id);
            let new = match plan {
                None => None,
                Some(plan) => match compile(&plan) {
                    Ok(compiled) => Some((plan, compiled)),
                    Err(error) => {
                        let message = error.to_string();
                        self.refused.insert(id, Refusal { message });
                        continue;
                    }
                },
            };
            steps.push(Step { id, new });
        }
        steps
    }

    /// Makes steps in the set that is there, or in a larger one.
    pub(super) fn make(&mut self, steps: Vec<Step>) -> Result<(), EbpfError> {
        let (Some(live), Some(shared)) = (&mut self.live, &mut self.shared) else {
            return self.rebuild(steps);
        };
        if !live
            .tables
            .sizes()
            .hold(&live.needed(&steps, &shared.identities))
        {
            return self.grow(steps);
        }
        let changed: Vec<_> = steps
            .iter()
            .map(|step| {
                let index = live.programmed.get(&step.id).map(|old| old.index);
                let plan = step.new.as_ref().map(|(plan, _)| Arc::clone(plan));
                (step.id.clone(), index, plan)
            })
            .collect();
        let was_torn = std::mem::replace(&mut self.is_torn, true);
        match live.make(steps, &mut shared.identities) {
            Ok(()) => self.is_torn = was_torn,
            Err(StepError::Failed(error)) => return Err(error),
            // There is room, but not in one piece: a new set has no gaps.
            Err(StepError::NoRoom) => {
                let steps = changed
                    .into_iter()
                    .map(|(id, _, plan)| (id, plan))
                    .collect();
                let steps = self.steps(steps);
                return self.grow(steps);
            }
        }
        for (id, index, new) in changed {
            let now = live.programmed.get(&id).map(|now| now.index);
            let Some(index) = now.or(index) else {
                continue;
            };
            self.has_stale_flows |= shared.follow(index, new.as_deref());
            if new.is_none() {
                self.due.affinity.hasten();
                self.due.counters.hasten();
            }
        }
        Ok(())
    }

    /// Moves everything to a set without gaps, larger if it must be, with these steps made.
    pub(super) fn grow(&mut self, steps: Vec<Step>) -> Result<(), EbpfError> {
        let before = self.live.as_ref().map(|live| live.tables.sizes());
        let mut wanted: BTreeMap<PlanId, Option<Arc<ServicePlan>>> = BTreeMap::new();
        for programmed in self.live.iter().flat_map(|live| &live.programmed) {
            let plan = &programmed.plan;
            wanted.insert(plan.id.clone(), Some(Arc::clone(plan)));
        }
        for step in steps {
            wanted.insert(step.id, step.new.map(|(plan, _)| plan));
        }
        wanted.retain(|_, plan| plan.is_some());
        let steps = self.steps(wanted.into_iter().collect());
        self.rebuild(steps)?;
        if let (Some(before), Some(live)) = (before, &self.live) {
            let after = live.tables.sizes();
            // The same sizes: what was torn, or had gaps, was replaced by something whole.
            tracing::info!(?before, ?after, "the maps were replaced by others");
        }
        Ok(())
    }
}
