//! A set of maps with its programs, and what was written to it.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use switchyard_datapath::layout::{Address, Frontend};

use super::Config;
use super::EbpfError;
use super::arena::Run;
use super::compile::{Compiled, compile};
use super::config::Forwarding;
use super::events::Events;
use super::features::Features;
use super::identities::Identities;
use super::node;
use super::pins::Pins;
use super::programs::{ETHERNET_PROGRAMS, Loaded, SOCKET_PROGRAMS};
use super::tables::{Sizes, Tables};
use crate::plan::{PlanId, ServicePlan};

/// The Service every node needs first: the API server's own.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// A loaded set.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) loaded: Loaded,
    pub(super) tables: Tables,
    pub(super) events: Events,
    #[cfg(kernel_log)]
    pub(super) log: super::kernel_log::KernelLog,
    pub(super) programmed: HashSet<Programmed>,
    settings: Option<Run>,
    next_ranges: u32,
}

/// What the kernel holds of a plan; found by the plan's id.
#[derive(Clone, Debug)]
pub(super) struct Programmed {
    pub(super) plan: Arc<ServicePlan>,
    pub(super) index: u32,
    run: Run,
    ranges: u32,
}

impl Borrow<PlanId> for Programmed {
    fn borrow(&self) -> &PlanId {
        &self.plan.id
    }
}

impl Hash for Programmed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plan.id.hash(state);
    }
}

impl PartialEq for Programmed {
    fn eq(&self, other: &Self) -> bool {
        self.plan.id == other.plan.id
    }
}

impl Eq for Programmed {}

/// A plan that is to change, or to go.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) id: PlanId,
    pub(super) new: Option<(Arc<ServicePlan>, Compiled)>,
}

/// Why a step was not made.
#[derive(Debug)]
pub(super) enum StepError {
    /// The set is too small: a larger one is needed.
    NoRoom,
    /// The kernel did not take something.
    Failed(EbpfError),
}

impl From<EbpfError> for StepError {
    fn from(error: EbpfError) -> Self {
        Self::Failed(error)
    }
}

impl Live {
    /// Loads a set with room for `needed`; its maps are empty, and its programs nowhere.
    pub(super) fn load(
        pins: &Pins,
        needed: Sizes,
        features: &Features,
        forwarding: Forwarding,
    ) -> Result<Self, EbpfError> {
        let sizes = Sizes::for_need(needed);
        let (mut loaded, tables) = Loaded::load(pins, sizes, features, forwarding)?;
        let names = [&SOCKET_PROGRAMS[..], &ETHERNET_PROGRAMS[..]].concat();
        loaded.verify(&names)?;
        let events = Events::of(loaded.events()?);
        Ok(Self {
            #[cfg(kernel_log)]
            log: loaded.log(),
            loaded,
            tables,
            events,
            programmed: HashSet::new(),
            settings: None,
            next_ranges: 1,
        })
    }

    /// How much room a set needs for what is programmed after these steps.
    pub(super) fn needed(&self, steps: &[Step], identities: &Identities) -> Sizes {
        let new = steps.iter().filter_map(|step| step.new.as_ref());
        let mut needed = need_of(new.map(|(_, compiled)| compiled));
        needed.slots += self.tables.slots_taken();
        needed.frontends += count(
            self.tables
                .frontend_count()
                .max(self.tables.address_count()),
        );
        needed.ranges += self.tables.range_count();
        needed.services = services_after(steps, Some(identities));
        needed
    }

    /// Writes what holds for all Services. `beside_rules`: rules of another mode translate as well.
    pub(super) fn write_settings(
        &mut self,
        config: &Config,
        host_cookie: u64,
        beside_rules: bool,
    ) -> Result<(), StepError> {
        let addresses = node::addresses(config);
        for address in self.tables.node_addresses() {
            if !addresses.contains_key(&address) {
                self.tables.set_node_address(address, 0)?;
            }
        }
        for (address, flags) in addresses {
            self.tables.set_node_address(address, flags)?;
        }
        self.tables
            .set_devices(&node::devices(config, beside_rules))?;
        self.tables.set_stations(&node::stations(config))?;
        let block = node::settings_block(config, host_cookie, beside_rules);
        let is_there = match self.settings {
            Some(run) => {
                let words = block.iter().flat_map(|slot| slot.0);
                self.tables.base(0) == u64::from(run.first)
                    && self.tables.read_block(run)?.into_iter().eq(words)
            }
            None => false,
        };
        if !is_there {
            let run = self.tables.write_block(&block)?;
            let run = run.ok_or(StepError::NoRoom)?;
            self.tables.flip(0, Some(run));
            if let Some(old) = self.settings.replace(run) {
                self.tables.give_back(old);
            }
        }
        Ok(())
    }

    /// Has programs leave everything alone that is not part of a flow they know, or do their work
    /// (again). Either takes effect at once, wherever they are.
    pub(super) fn rest(&mut self, is_resting: bool) {
        self.tables.flip(0, self.settings.filter(|_| !is_resting));
    }

    /// The slots that the settings take.
    pub(super) fn settings_slots(&self) -> u32 {
        self.settings.map_or(0, |run| run.count)
    }

    /// Makes all steps: first the endpoints of all, then the ways to them (the API server's
    /// first), then what goes.
    pub(super) fn make(
        &mut self,
        steps: Vec<Step>,
        identities: &mut Identities,
    ) -> Result<(), StepError> {
        let mut made = Vec::with_capacity(steps.len());
        for step in steps {
            made.push(self.write_endpoints(step, identities)?);
        }
        made.sort_by_key(|made: &Made| {
            let service = &made.id.service;
            (&*service.namespace, &*service.name) != API_SERVER
        });
        for step in &made {
            self.open_ways(step)?;
        }
        for step in made.into_iter().rev() {
            self.close_ways(step, identities)?;
        }
        Ok(())
    }

    /// A new block, and the flip to it. Nothing leads there yet if the Service is new.
    fn write_endpoints(
        &mut self,
        step: Step,
        identities: &mut Identities,
    ) -> Result<Made, StepError> {
        let Step { id, new } = step;
        let old = self.programmed.get(&id).cloned();
        let Some((plan, compiled)) = new else {
            return Ok(Made { id, old, new: None });
        };
        let index = match &old {
            Some(old) => old.index,
            None => identities.assign(&id)?.ok_or(StepError::NoRoom)?,
        };
        if index >= self.tables.sizes().services {
            return Err(StepError::NoRoom);
        }
        let ranges = self.write_ranges(&compiled)?;
        let run = self.tables.write_block(&compiled.block(index, ranges))?;
        let run = run.ok_or(StepError::NoRoom)?;
        self.tables.flip(index, Some(run));
        let programmed = Programmed {
            plan,
            index,
            run,
            ranges,
        };
        self.programmed.replace(programmed);
        if let Some(old) = &old {
            self.tables.give_back(old.run);
        }
        Ok(Made {
            id,
            old,
            new: Some((index, compiled)),
        })
    }

    fn write_ranges(&mut self, compiled: &Compiled) -> Result<u32, EbpfError> {
        let Some(ranges) = &compiled.ranges else {
            return Ok(0);
        };
        let set = self.next_ranges;
        self.next_ranges = self.next_ranges.checked_add(1).unwrap_or(1);
        for (bits, net) in ranges {
            self.tables.add_range(set, *bits, *net)?;
        }
        Ok(set)
    }

    fn open_ways(&mut self, made: &Made) -> Result<(), EbpfError> {
        let Some((index, compiled)) = &made.new else {
            return Ok(());
        };
        for (address, flag) in &compiled.addresses {
            self.tables.claim(*address, *flag)?;
        }
        for (key, kind) in &compiled.frontends {
            let frontend = Frontend {
                service: *index,
                kind: kind.number(),
            };
            self.tables.set_frontend(*key, frontend)?;
        }
        Ok(())
    }

    fn close_ways(&mut self, made: Made, identities: &mut Identities) -> Result<(), EbpfError> {
        let Some(old) = made.old else {
            return Ok(());
        };
        // It was compiled when it was programmed, so it compiles.
        if let Ok(compiled) = compile(&old.plan) {
            let stays = |key| {
                let new = made.new.as_ref().map(|(_, new)| &new.frontends);
                new.is_some_and(|new| new.iter().any(|(kept, _)| kept == key))
            };
            for (key, _) in compiled.frontends.iter().filter(|(key, _)| !stays(key)) {
                self.tables.remove_frontend(key, old.index)?;
            }
            for (address, flag) in &compiled.addresses {
                self.tables.release(*address, *flag)?;
            }
            self.remove_ranges(&compiled, old.ranges)?;
        }
        if made.new.is_none() {
            self.tables.flip(old.index, None);
            self.tables.give_back(old.run);
            self.programmed.remove(&made.id);
            identities.forget(old.index);
        }
        Ok(())
    }

    fn remove_ranges(&mut self, compiled: &Compiled, set: u32) -> Result<(), EbpfError> {
        for (bits, net) in compiled.ranges.iter().flatten() {
            self.tables.remove_range(set, *bits, *net)?;
        }
        Ok(())
    }

    /// Compares what the kernel holds with what was written, and puts it right; says how much
    /// was wrong.
    pub(super) fn audit(&mut self) -> Result<usize, EbpfError> {
        let mut wrong = self.tables.audit()?;
        for programmed in &self.programmed {
            if self.tables.base(programmed.index) != u64::from(programmed.run.first) {
                self.tables.flip(programmed.index, Some(programmed.run));
                wrong += 1;
            }
        }
        Ok(wrong)
    }

    /// Whether every Service's word is as it was written: cheap.
    pub(super) fn words_are_right(&self) -> bool {
        self.programmed
            .iter()
            .all(|programmed| self.tables.base(programmed.index) == u64::from(programmed.run.first))
    }
}

/// A step whose endpoints are written.
struct Made {
    id: PlanId,
    old: Option<Programmed>,
    new: Option<(u32, Compiled)>,
}

/// What fits into the largest set, and what is left of `steps` then: as many as there is room
/// for, in the order of their names, and the API server's own Service before all.
pub(super) fn fit(mut steps: Vec<Step>, max: &Sizes) -> (Vec<Step>, Vec<PlanId>) {
    let name = |step: &Step| {
        (
            step.id.service.namespace.clone(),
            step.id.service.name.clone(),
        )
    };
    steps.sort_by_key(|step| {
        let (namespace, service) = name(step);
        (&*namespace, &*service) != API_SERVER
    });
    let mut sum = need_of(std::iter::empty());
    let (mut fitting, mut left) = (Vec::with_capacity(steps.len()), Vec::new());
    for step in steps {
        let own = Sizes {
            services: 1,
            ..need_of(step.new.iter().map(|(_, compiled)| compiled))
        };
        let with = sum.and(&own);
        if max.hold(&with) {
            sum = with;
            fitting.push(step);
        } else {
            left.push(step.id);
        }
    }
    (fitting, left)
}

/// How many indexes there must be for these steps. Those that have one already need no more.
pub(super) fn services_after(steps: &[Step], identities: Option<&Identities>) -> u32 {
    let is_new = |step: &&Step| {
        step.new.is_some() && identities.is_none_or(|identities| !identities.knows(&step.id))
    };
    let new = count(steps.iter().filter(is_new).count());
    identities.map_or(new.saturating_add(1), |identities| {
        identities.end_after(new)
    })
}

/// The room that compiled plans take by themselves, but for indexes.
pub(super) fn need_of<'a>(compiled: impl Iterator<Item = &'a Compiled>) -> Sizes {
    let mut needed = Sizes {
        services: 0,
        slots: 16,
        frontends: 0,
        ranges: 0,
    };
    for compiled in compiled {
        needed.slots = needed.slots.saturating_add(compiled.slots());
        let (frontends, addresses) = (compiled.frontends.len(), compiled.addresses.len());
        needed.frontends += count(frontends.max(addresses));
        needed.ranges += compiled
            .ranges
            .as_ref()
            .map_or(0, |ranges| count(ranges.len()));
    }
    needed
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX / 4)
}

/// The endpoints of a plan that a UDP socket or flow may keep, as they stand in maps.
pub(super) fn serving(plan: &ServicePlan) -> impl Iterator<Item = (Address, u16)> + '_ {
    let targets = plan.serving.iter();
    targets.map(|target| (Address::from(target.address), target.port.to_be()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of each Service port beside its plan.
    #[test]
    fn what_is_kept_of_a_service_port_is_small() {
        assert!(size_of::<Programmed>() <= 24, "{}", size_of::<Programmed>());
    }
}
