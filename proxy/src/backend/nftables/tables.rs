//! Writing: what changed, and everything there is a difference in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use switchyard_cluster::object::IpFamily;
use switchyard_netlink::nft_generation::{Generation, GenerationReader};
use switchyard_netlink::nftables::{Change, NftError, Nftables, TableId};

use super::batch::{Ordered, Unknown};
use super::compare::compare;
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
        let Some(table) = table_of(&mut self.families, family) else {
            return Ok(report(0, 0));
        };
        let before = table.plans_before(changes);
        let batch = table.follow(changes);
        let size = batch.len();
        let id = table.id.clone();
        let ordered = batch.ordered(false);
        if !ordered.changes.is_empty()
            && let Err(error) = self.write(&id, &ordered.changes)
        {
            self.distrust();
            if let Some(table) = table_of(&mut self.families, family) {
                table.go_back(before);
            }
            return Err(error.into());
        }
        self.delete_doomed(family);
        Ok(report(size, 0))
    }

    /// Writes a transaction. Whether somebody else was there since our last one is noted.
    fn write(&mut self, table: &TableId, changes: &[Change]) -> Result<(), NftError> {
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
        let table = table_of(&mut self.families, family);
        let Some(table) = table.filter(|table| !table.doomed.is_empty()) else {
            return;
        };
        let id = table.id.clone();
        let doomed = table.doomed.iter().cloned().map(Change::DeleteChain);
        let changes: Vec<Change> = doomed.collect();
        match self.write(&id, &changes) {
            Ok(()) => {
                if let Some(table) = table_of(&mut self.families, family) {
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
        config: &Config,
        plans: &[Arc<ServicePlan>],
    ) -> Result<Report, NftablesModeError> {
        let family = config.family;
        let wanted = plans.iter().filter(|plan| plan.id.family == family);
        let mut attempt = Attempt {
            wanted: wanted.map(|plan| (&plan.id, Arc::clone(plan))).collect(),
            refused: BTreeMap::new(),
            each_alone: false,
        };
        let mut overtaken = 0;
        loop {
            let seen = self.look();
            let Some(table) = table_of(&mut self.families, family) else {
                return Ok(report(0, 0));
            };
            table.config.clone_from(config);
            let present = read(&mut self.kernel, &table.id)?;
            let compared = compare(table, present, attempt.wanted.values());
            let size = compared.batch.len();
            let is_last = overtaken >= OVERTAKEN_MAX;
            let (id, holders) = (table.id.clone(), compared.holders);
            let ordered = compared.batch.ordered(attempt.each_alone);
            let expected = seen.filter(|_| !is_last);
            match self.kernel.apply_if(&id, &ordered.changes, expected) {
                Ok(applied) => {
                    if !ordered.changes.is_empty() {
                        self.generation = applied.generation;
                    }
                    let trusted = self.generation.is_some() && !is_last;
                    if let Some(table) = table_of(&mut self.families, family) {
                        table.took(attempt.wanted, attempt.refused, holders);
                        table.trusted = trusted;
                    }
                    self.delete_doomed(family);
                    return Ok(report(size, compared.differing));
                }
                Err(NftError::Overtaken { .. }) if !is_last => overtaken += 1,
                Err(error) => {
                    let programmed = table_of(&mut self.families, family)
                        .map(|table| &table.programmed)
                        .filter(|programmed| attempt.blame(&error, &ordered, programmed));
                    if programmed.is_none() {
                        self.distrust();
                        return Err(error.into());
                    }
                }
            }
        }
    }
}

fn table_of(families: &mut [Table], family: IpFamily) -> Option<&mut Table> {
    families
        .iter_mut()
        .find(|table| table.config.family == family)
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
                Err(Unknown) if !self.each_alone => {
                    self.each_alone = true;
                    return true;
                }
                Ok(None) | Err(Unknown) => {}
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

#[cfg(test)]
mod tests {
    use switchyard_cluster::object::{ObjectName, Protocol};
    use switchyard_netlink::nftables;

    use super::super::batch::Batch;
    use super::super::form::Shared;
    use super::*;

    fn plan(name: &str, port: u16) -> Arc<ServicePlan> {
        Arc::new(ServicePlan {
            id: PlanId {
                service: ObjectName::new("ns", name),
                port_name: "p".into(),
                protocol: Protocol::Tcp,
                family: IpFamily::V4,
            },
            port,
            frontends: Vec::new(),
            affinity_timeout_s: None,
            internal_policy: Default::default(),
            external_policy: Default::default(),
            source_ranges: None,
            source_ranges_include_node: false,
            health_check_node_port: None,
            ipvs_scheduler: None,
            cluster: Box::default(),
            local: Box::default(),
            any_endpoint: false,
            serving: Box::default(),
        })
    }

    /// What the kernel says when it refuses an element of the first change.
    fn refused(item: Option<usize>) -> NftError {
        NftError::Refused {
            table: "ip kube-proxy".to_owned(),
            refusals: vec![nftables::Refusal {
                change: Some(0),
                request: "add elements".to_owned(),
                item,
                attribute: None,
                message: None,
                code: nix::libc::ENFILE,
            }],
            more: 0,
        }
    }

    /// A change with an element of each plan.
    fn ordered(plans: &[&PlanId], each_alone: bool) -> Ordered {
        let mut batch = Batch::default();
        for (number, plan) in (0..).zip(plans) {
            batch.of_plan(plan);
            let element = nftables::Element::new(nftables::Data::new(&[number]));
            batch.remove_element(Shared::ServiceIps, element);
        }
        batch.ordered(each_alone)
    }

    #[test]
    fn what_is_refused_stays_as_it_was_or_goes_and_all_else_is_written() {
        let (old, new, other) = (plan("a", 1), plan("a", 2), plan("b", 1));
        let programmed = HashMap::from([(old.id.clone(), Arc::clone(&old))]);
        let wanted = [&other, &new].map(|plan| (&plan.id, Arc::clone(plan)));
        let mut attempt = Attempt {
            wanted: wanted.into(),
            refused: BTreeMap::new(),
            each_alone: false,
        };
        let ids = [&other.id, &new.id];
        // A kernel that does not say which element is asked again.
        assert!(attempt.blame(&refused(None), &ordered(&ids, false), &programmed));
        assert!(attempt.each_alone && attempt.refused.is_empty());
        assert!(attempt.blame(&refused(Some(1)), &ordered(&ids, false), &programmed));
        assert_eq!(attempt.wanted[&new.id], old);
        assert!(attempt.blame(&refused(Some(1)), &ordered(&ids, false), &programmed));
        assert_eq!(attempt.wanted.keys().collect::<Vec<_>>(), [&&other.id]);
        let said = &attempt.refused[&new.id].message;
        assert!(said.starts_with("add elements"), "{said}");
        // Nobody is left to be blamed.
        assert!(!attempt.blame(&refused(Some(1)), &ordered(&ids, false), &programmed));
        assert!(!attempt.blame(&refused(Some(0)), &ordered(&[], true), &programmed));
        assert!(attempt.refused.len() == 1 && attempt.wanted.len() == 1);
    }
}
