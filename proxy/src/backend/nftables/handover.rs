//! Address translation for connections that another mode has begun, while no mode's rules ask for it.
//!
//! The kernel tracks and translates what it knows only while somebody has chains for translation and
//! a rule that looks at connections. A table of its own has both, and does nothing to what is new.

use std::sync::Arc;

use switchyard_netlink::Family;
use switchyard_netlink::nftables::{Change, Nftables, TableId};

use super::cleanup::delete_tables;
use super::error::NftablesModeError;
use super::fixed::{BASES, Kind};
use super::form::{Rule, Statement};
use super::lower;

/// The table, in each family.
pub(super) const TABLE: &str = "switchyard-handover";
const COMMENT: &str = "keeps connections of an earlier proxy mode, as long as there are any";

/// Has the kernel go on with the connections it knows.
///
/// # Errors
/// Of the kernel; the other family is tried all the same and the first error is returned.
pub fn keep_connections() -> Result<(), NftablesModeError> {
    let mut kernel = Nftables::open()?;
    let mut first_error = None;
    for family in [Family::V4, Family::V6] {
        let table = TableId::new(family, TABLE);
        if let Err(error) = kernel.apply(&table, &changes(family)) {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), |error| Err(error.into()))
}

/// Ends that. True if it was so.
///
/// # Errors
/// As [`keep_connections`]. A kernel without nf_tables has nothing to end.
pub fn release_connections() -> Result<bool, NftablesModeError> {
    delete_tables(TABLE)
}

fn changes(family: Family) -> Vec<Change> {
    let mut changes = vec![Change::AddTable {
        comment: Some(Arc::from(COMMENT)),
    }];
    for base in BASES.iter().filter(|base| base.kind == Kind::Nat) {
        let chain = Arc::from(base.name);
        changes.push(Change::AddChain(lower::base(base)));
        changes.push(Change::FlushChain(Arc::clone(&chain)));
        let looks = Rule::new([Statement::NewConnection]);
        changes.push(Change::AddRule(lower::rule(&chain, &looks, family)));
    }
    changes
}
