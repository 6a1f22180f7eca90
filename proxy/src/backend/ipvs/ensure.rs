//! The sets are there and of the right kind: they are made, and made anew where somebody has put
//! something else under one of our names.
//!
//! The kernel destroys no set that a rule uses, and swaps only sets of one kind. So our rules that
//! use it are taken out, the set is made anew and filled, and they are put back where they stood:
//! some hundredths of a second in which they do not hold, as they did not before. Where others'
//! rules use it nothing is touched: they were written for what it is.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use switchyard_netlink::ipset::{Entry, IpsetError};

use super::apply::Ipvs;
use super::error::IpvsModeError;
use super::rules::{self, CHAINS};
use super::sets::Set;
use crate::backend::holders::Holders;
use crate::backend::xtables::{Batch, Table, ToolError};

/// nf_tables lets go of a deleted rule's set a moment after the rule is gone.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked at until then.
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// A rule that uses a set.
struct Use {
    table: Table,
    chain: String,
    rule: String,
}

impl Ipvs {
    /// Makes the sets that are missing. One of another kind stays as it is if it can be made anew.
    ///
    /// # Errors
    /// [`IpvsModeError::SetHeld`] if it can't; those of [`Ipset`](switchyard_netlink::ipset::Ipset).
    pub(super) fn make_sets(&mut self) -> Result<(), IpvsModeError> {
        for set in Set::ALL {
            if let Err(mismatch) = self.ensure_set(set) {
                self.uses(set, mismatch)?;
            }
        }
        Ok(())
    }

    /// Makes sure that all sets are there and of the right kind. One that is made anew gets its
    /// members at once. Returns how many were not right.
    ///
    /// # Errors
    /// [`IpvsModeError::SetHeld`] if others' rules use a set of another kind.
    pub(super) fn ensure_sets(
        &mut self,
        wanted: &BTreeMap<Set, Holders<Entry>>,
    ) -> Result<usize, IpvsModeError> {
        let mut made = 0;
        for set in Set::ALL {
            match self.ensure_set(set) {
                Ok(is_new) => made += usize::from(is_new),
                Err(mismatch) => {
                    let members = wanted.get(&set).into_iter().flat_map(Holders::all);
                    self.remake(set, mismatch, &members.collect::<Vec<_>>())?;
                    made += 1;
                }
            }
        }
        Ok(made)
    }

    fn ensure_set(&mut self, set: Set) -> Result<bool, IpsetError> {
        let family = self.config.family;
        let spec = *self.specs.entry(set).or_insert_with(|| set.spec(family));
        self.ipset.ensure(&set.name(family), &spec)
    }

    fn remake(
        &mut self,
        set: Set,
        mismatch: IpsetError,
        members: &[Entry],
    ) -> Result<(), IpvsModeError> {
        let said = mismatch.to_string();
        let uses = self.uses(set, mismatch)?;
        tracing::warn!(error = %said, rules = uses.len(), "a set of ours is of another kind: made anew");
        self.take_out(&uses)?;
        let remade = self.replace_unused(set, members);
        let back = self.put_back(&uses);
        remade?;
        back.map_err(IpvsModeError::from)
    }

    /// Our rules that use a set of another kind.
    ///
    /// # Errors
    /// [`IpvsModeError::SetHeld`] if it is not only these; any other error as it is.
    fn uses(&mut self, set: Set, error: IpsetError) -> Result<Vec<Use>, IpvsModeError> {
        if !matches!(error, IpsetError::TypeMismatch { .. }) {
            return Err(error.into());
        }
        let name = set.name(self.config.family);
        let mut uses = Vec::new();
        for table in Table::ALL {
            let found = self
                .tool
                .rules_with(table, &format!("--match-set {name} "))?;
            let ours = found
                .into_iter()
                .filter(|(chain, _)| CHAINS.contains(&(table, chain)));
            uses.extend(ours.map(|(chain, rule)| Use { table, chain, rule }));
        }
        let deadline = Instant::now() + RELEASE_LIMIT;
        loop {
            let header = self.ipset.header(&name)?;
            let all = header.map_or(0, |header| header.references);
            let others = usize::try_from(all)
                .unwrap_or(usize::MAX)
                .saturating_sub(uses.len());
            if others == 0 {
                return Ok(uses);
            }
            if Instant::now() >= deadline {
                return Err(IpvsModeError::SetHeld {
                    name,
                    others,
                    source: error,
                });
            }
            thread::sleep(RELEASE_POLL);
        }
    }

    fn take_out(&self, uses: &[Use]) -> Result<(), ToolError> {
        let mut batch = Batch::default();
        for held in uses {
            batch.section(held.table);
            batch.delete(&held.chain, &held.rule);
        }
        self.restore(batch)
    }

    /// Writes the chains that lost rules as they should be.
    fn put_back(&self, uses: &[Use]) -> Result<(), ToolError> {
        let mut batch = Batch::default();
        for fixed in rules::chains(&self.config) {
            let lost = |held: &Use| held.table == fixed.table && held.chain == fixed.chain.name;
            if uses.iter().any(lost) {
                batch.write_chains(fixed.table, std::iter::once(&fixed.chain));
            }
        }
        self.restore(batch)
    }

    fn replace_unused(&mut self, set: Set, members: &[Entry]) -> Result<(), IpsetError> {
        let family = self.config.family;
        let name = set.name(family);
        let deadline = Instant::now() + RELEASE_LIMIT;
        loop {
            match self.ipset.destroy(&name) {
                Err(IpsetError::InUse { .. }) if Instant::now() < deadline => {
                    thread::sleep(RELEASE_POLL);
                }
                Ok(()) | Err(IpsetError::Missing { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        let spec = self.specs.entry(set).or_insert_with(|| set.spec(family));
        self.ipset.create(&name, spec)?;
        self.ipset.make_room(&name, spec, members.len())?;
        self.ipset.add(&name, members)
    }

    /// Writes rules, if there are any.
    pub(super) fn restore(&self, batch: Batch) -> Result<(), ToolError> {
        let script = batch.finish();
        if script.is_empty() {
            return Ok(());
        }
        self.tool.restore(script.text())
    }
}
