//! Writing: what changed, and everything there is a difference in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use switchyard_cluster::object::IpFamily;
use switchyard_netlink::nft_generation::{Generation, GenerationReader};
use switchyard_netlink::nftables::{Change, NftError, Nftables};

use super::batch::{Batch, Ordered, Unknown};
use super::compare::Comparison;
use super::config::Config;
use super::error::NftablesModeError;
use super::probe::Features;
use super::read::read;
use super::table::Table;
use crate::backend::{Refusal, Report, Written};
use crate::plan::{PlanChange, PlanId, ServicePlan};

/// How often a table is compared anew because somebody else changes the rule set meanwhile.
const OVERTAKEN_MAX: u32 = 5;

/// The tables of all IP families.
#[derive(Debug)]
pub struct Tables {
    kernel: Nftables,
    generations: GenerationReader,
    /// Of the rule set after our last write, unless somebody else was there in between.
    generation: Option<Generation>,
    families: Vec<Table>,
    cleanup_failures: u64,
}

impl Tables {
    /// Opens the sockets; touches nothing.
    ///
    /// # Errors
    /// No nf_tables.
    pub fn open(
        families: impl IntoIterator<Item = (Config, Features)>,
    ) -> Result<Self, NftablesModeError> {
        Ok(Self {
            kernel: Nftables::open()?,
            generations: GenerationReader::open()?,
            generation: None,
            cleanup_failures: 0,
            families: families
                .into_iter()
                .map(|(config, features)| Table::new(config, features.releases_at_once))
                .collect(),
        })
    }

    /// The families there are tables of.
    #[must_use]
    pub fn families(&self) -> Vec<IpFamily> {
        let families = self.families.iter();
        families.map(|table| table.config.family).collect()
    }

    /// The plans the kernel does not hold as they should be, and why.
    #[must_use]
    pub fn refused(&self, family: IpFamily) -> BTreeMap<PlanId, Refusal> {
        let table = self
            .families
            .iter()
            .find(|table| table.config.family == family);
        table.map(|table| table.refused.clone()).unwrap_or_default()
    }

    /// How often, since this was last asked, emptied chains could not be deleted.
    pub fn take_cleanup_failures(&mut self) -> u64 {
        std::mem::take(&mut self.cleanup_failures)
    }

    /// The families in which somebody else may have changed something since the last write:
    /// cheap, and [`Tables::reconcile`] finds out.
    pub fn disturbed(&mut self) -> Vec<IpFamily> {
        self.look();
        let untrusted = self.families.iter().filter(|table| !table.trusted);
        untrusted.map(|table| table.config.family).collect()
    }

    /// Reads the generation. Another one than ours is somebody else's doing.
    fn look(&mut self) -> Option<Generation> {
        let now = self.generations.read().ok();
        if now.is_none() || now != self.generation {
            self.distrust();
        }
        self.generation = now;
        now
    }

    fn distrust(&mut self) {
        for table in &mut self.families {
            table.trusted = false;
        }
    }

    /// Writes the changes of one family as one transaction. Lists nothing.
    ///
    /// # Errors
    /// When it was refused; nothing of it was written, then. Reconcile: that finds out which
    /// change is to blame, and writes all others.
    pub fn apply(
        &mut self,
        family: IpFamily,
        changes: &[PlanChange],
    ) -> Result<Report, NftablesModeError> {
        let Some(table) = self
            .families
            .iter_mut()
            .find(|table| table.config.family == family)
        else {
            return Ok(report(0, 0));
        };
        let batch = table.follow(changes);
        let size = batch.len();
        let id = table.id.clone();
        if !batch.is_empty() {
            let ordered = batch.ordered(false);
            if let Err(error) = self.write(&id, &ordered.changes) {
                self.distrust();
                return Err(error.into());
            }
        }
        self.delete_doomed(family);
        Ok(report(size, 0))
    }

    /// Writes a transaction. Whether somebody else was there since our last one is noted.
    fn write(
        &mut self,
        table: &switchyard_netlink::nftables::TableId,
        changes: &[Change],
    ) -> Result<(), NftError> {
        let applied = match self.kernel.apply_if(table, changes, self.generation) {
            Err(NftError::Overtaken { .. }) => {
                tracing::debug!(%table, "somebody else has changed rules since our last write");
                self.distrust();
                self.kernel.apply(table, changes)?
            }
            result => result?,
        };
        self.generation = applied.generation;
        if self.generation.is_none() {
            self.look();
        }
        Ok(())
    }

    /// Chains that were emptied before, now that nothing leads to them.
    fn delete_doomed(&mut self, family: IpFamily) {
        let Some(at) = self
            .families
            .iter()
            .position(|table| table.config.family == family)
        else {
            return;
        };
        let Some(table) = self
            .families
            .get(at)
            .filter(|table| !table.doomed.is_empty())
        else {
            return;
        };
        let id = table.id.clone();
        let doomed = table.doomed.iter().cloned().map(Change::DeleteChain);
        let changes: Vec<Change> = doomed.collect();
        match self.write(&id, &changes) {
            Ok(()) => {
                if let Some(table) = self.families.get_mut(at) {
                    table.doomed.clear();
                }
            }
            // The kernel lets go of them a moment after the elements went.
            Err(error) => {
                self.cleanup_failures += 1;
                tracing::debug!(%error, "emptied chains stay a while");
            }
        }
    }

    /// Reads the table of the configuration's family, and writes the difference to what
    /// `plans` (of all families) want, as one transaction. A plan the kernel does not take
    /// stays as it was last taken, or is left out.
    ///
    /// # Errors
    /// When the table could not be read, or what belongs to no plan was refused.
    pub fn reconcile(
        &mut self,
        config: Config,
        plans: &[Arc<ServicePlan>],
    ) -> Result<Report, NftablesModeError> {
        let family = config.family;
        let Some(at) = self
            .families
            .iter()
            .position(|table| table.config.family == family)
        else {
            return Ok(report(0, 0));
        };
        let wanted = plans.iter().filter(|plan| plan.id.family == family);
        let mut attempt = Attempt {
            wanted: wanted.map(|plan| (&plan.id, Arc::clone(plan))).collect(),
            refused: BTreeMap::new(),
            each_alone: false,
        };
        let mut overtaken = 0;
        loop {
            let seen = self.look();
            let table = self.families.get_mut(at);
            let Some(table) = table else {
                return Ok(report(0, 0));
            };
            table.config = config.clone();
            let present = read(&mut self.kernel, &table.id)?;
            let mut comparison = Comparison::new(&config, present);
            for plan in attempt.wanted.values() {
                comparison.plan(plan);
            }
            let (chains, sets) = comparison.surplus();
            let Comparison {
                mut batch,
                holders,
                differing,
                ..
            } = comparison;
            table.doomed.clear();
            for chain in chains {
                table.remove_chain(chain, &mut batch);
            }
            for set in sets {
                batch.remove_set(set);
            }
            let size = batch.len();
            let id = table.id.clone();
            let expected = seen.filter(|_| overtaken < OVERTAKEN_MAX);
            match self.write_compared(&id, batch, expected, attempt.each_alone) {
                Ok(()) => {
                    self.took(at, &attempt, holders, overtaken < OVERTAKEN_MAX);
                    self.delete_doomed(family);
                    return Ok(report(size, differing));
                }
                Err(Failed::Overtaken) => overtaken += 1,
                Err(Failed::Refused(error, ordered)) => {
                    let Some(table) = self.families.get(at) else {
                        return Err(error.into());
                    };
                    if !attempt.blame(&error, &ordered, &table.programmed) {
                        self.distrust();
                        return Err(error.into());
                    }
                }
                Err(Failed::Other(error)) => {
                    self.distrust();
                    return Err(error.into());
                }
            }
        }
    }

    fn write_compared(
        &mut self,
        table: &switchyard_netlink::nftables::TableId,
        batch: Batch,
        expected: Option<Generation>,
        each_alone: bool,
    ) -> Result<(), Failed> {
        if batch.is_empty() {
            return Ok(());
        }
        let ordered = batch.ordered(each_alone);
        match self.kernel.apply_if(table, &ordered.changes, expected) {
            Ok(applied) => {
                self.generation = applied.generation;
                Ok(())
            }
            Err(NftError::Overtaken { .. }) => Err(Failed::Overtaken),
            Err(error @ NftError::Refused { .. }) => Err(Failed::Refused(error, ordered)),
            Err(error) => Err(Failed::Other(error)),
        }
    }

    /// The kernel holds all that was attempted.
    fn took(
        &mut self,
        at: usize,
        attempt: &Attempt<'_>,
        holders: crate::backend::holders::Holders<(super::form::Shared, super::form::Key)>,
        trusted: bool,
    ) {
        let Some(table) = self.families.get_mut(at) else {
            return;
        };
        let wanted = attempt.wanted.iter();
        table.programmed = wanted
            .map(|(id, plan)| ((*id).clone(), Arc::clone(plan)))
            .collect();
        table.holders = holders;
        table.refused.clone_from(&attempt.refused);
        table.trusted = trusted && self.generation.is_some();
    }
}

/// Why a transaction of a comparison was not made.
enum Failed {
    Overtaken,
    Refused(NftError, Ordered),
    Other(NftError),
}

/// What is to be written, after what the kernel refused is left out.
struct Attempt<'a> {
    wanted: HashMap<&'a PlanId, Arc<ServicePlan>>,
    refused: BTreeMap<PlanId, Refusal>,
    each_alone: bool,
}

impl Attempt<'_> {
    /// Leaves out what was refused, or asks again so that it is known what that is. False if
    /// there is nothing left to be blamed.
    fn blame(
        &mut self,
        error: &NftError,
        ordered: &Ordered,
        programmed: &HashMap<PlanId, Arc<ServicePlan>>,
    ) -> bool {
        let NftError::Refused { refusals, .. } = error else {
            return false;
        };
        let mut culprits = HashSet::new();
        for refusal in refusals {
            match ordered.culprit(refusal) {
                Ok(Some(plan)) => {
                    let message = refusal.to_string();
                    culprits.insert(plan.clone());
                    self.refused
                        .entry(plan.clone())
                        .or_insert(Refusal { message });
                }
                Ok(None) => {}
                Err(Unknown) if !self.each_alone => {
                    self.each_alone = true;
                    return true;
                }
                Err(Unknown) => {}
            }
        }
        let mut any = false;
        for culprit in &culprits {
            any |= self.leave_out(culprit, programmed.get(culprit));
        }
        any
    }

    /// Has a plan stay as it was last taken, or where that is refused as well, not be there.
    fn leave_out(&mut self, culprit: &PlanId, last: Option<&Arc<ServicePlan>>) -> bool {
        let Some(wanted) = self.wanted.get_mut(culprit) else {
            return false;
        };
        match last {
            Some(last) if last != wanted => *wanted = Arc::clone(last),
            _ => drop(self.wanted.remove(culprit)),
        }
        true
    }
}

const fn report(changes: usize, repaired: usize) -> Report {
    Report {
        written: Written::Objects(changes),
        repaired,
    }
}
