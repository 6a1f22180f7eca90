//! Removing everything of ours, and nothing else.

use switchyard_netlink::nfacct::{Acct, AcctError};

use super::fixed;
use super::survey::is_per_service;
use super::{Shared, cluster_ips, names, nfacct_names};
use crate::backend::xtables::{self, Batch, Jump, Kept, Table, Tool, ToolError};

/// Removes our jumps and chains from every table of the tool's family, but for those that the
/// mode in force keeps. True if there were any.
///
/// KUBE-FIREWALL stays, with its jumps: kubelet writes the same chain and relies on it.
///
/// # Errors
/// When a table can't be read or written; the others are tried all the same and the first
/// error is returned.
pub fn cleanup(tool: &Tool, kept: &Kept) -> Result<bool, ToolError> {
    let mut first_error = None;
    let mut any = false;
    for table in Table::ALL {
        match clean_table(tool, table, kept) {
            Ok(there) => any |= there,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    remove_accounting();
    if let Err(error) = cluster_ips::destroy(tool.family) {
        first_error.get_or_insert(error.into());
    }
    first_error.map_or(Ok(any), Err)
}

/// Takes away the rules that drop what connection tracking can't make sense of, whoever's of this
/// mode they are. Behind a bridge, it sees the answers of flows that programs at devices translate
/// before they are translated back, and takes what follows for invalid.
///
/// # Errors
/// When the table can't be read or written.
pub fn accept_invalid(tool: &Tool) -> Result<bool, ToolError> {
    let rules = tool.rules_with(Table::Filter, "--ctstate INVALID ")?;
    let mut batch = Batch::default();
    for (chain, rule) in rules.iter().filter(|(chain, _)| chain == names::FORWARD) {
        batch.section(Table::Filter);
        batch.delete(chain, rule);
    }
    let script = batch.finish();
    if script.is_empty() {
        return Ok(false);
    }
    tool.restore(script.text()).map(|()| true)
}

/// The accounting objects, unless the other family's rules, or the reference, still count in
/// them.
fn remove_accounting() {
    let Ok(mut acct) = Acct::open() else { return };
    for name in nfacct_names::ALL {
        match acct.remove(name) {
            Ok(()) | Err(AcctError::Missing { .. } | AcctError::InUse { .. }) => {}
            Err(error) => tracing::debug!(%error, "accounting object stays"),
        }
    }
}

fn clean_table(tool: &Tool, table: Table, kept: &Kept) -> Result<bool, ToolError> {
    debug_assert!(
        Shared::ALL
            .iter()
            .all(|s| s.table() != table || is_chain_cleaned(table, s.chain()))
    );
    xtables::remove(
        tool,
        table,
        &cleaned_jumps(),
        |name| is_chain_cleaned(table, name),
        kept,
    )
}

/// The jumps that are removed: not kubelet's.
pub(in crate::backend) fn cleaned_jumps() -> Vec<Jump> {
    let mut jumps = fixed::jumps();
    jumps.retain(|jump| {
        !jump.rule.ends_with(names::FIREWALL) || jump.rule.ends_with(names::PROXY_FIREWALL)
    });
    jumps
}

/// Whether a chain is removed.
pub(in crate::backend) fn is_chain_cleaned(table: Table, name: &str) -> bool {
    let is_fixed = name != names::FIREWALL && chains().any(|chain| chain == (table, name));
    is_fixed || (table == Table::Nat && is_per_service(name))
}

/// What stays when another mode's rules are removed while this one is in force.
#[must_use]
pub fn kept() -> Kept {
    Kept {
        jumps: fixed::jumps(),
        chains: chains().collect(),
    }
}

/// Chains that are there however many Services there are.
fn chains() -> impl Iterator<Item = (Table, &'static str)> {
    let filled = [
        (Table::Filter, names::FORWARD),
        (Table::Nat, names::MARK_MASQ),
        (Table::Nat, names::POSTROUTING),
    ];
    fixed::CREATED_CHAINS.into_iter().chain(filled)
}
