//! Removing everything of ours, and nothing else.

use switchyard_netlink::nfacct::{Acct, AcctError};

use super::fixed;
use super::survey::is_per_service;
use super::{Shared, cluster_ips, names, nfacct_names};
use crate::backend::xtables::{Batch, RuleHash, Table, TableState, Tool, ToolError};

/// Removes our jumps and chains from every table of the tool's family. True if there were
/// any.
///
/// KUBE-FIREWALL stays, with its jumps: kubelet writes the same chain and relies on it.
///
/// # Errors
/// When a table can't be read or written; the others are tried all the same and the first
/// error is returned.
pub fn cleanup(tool: &Tool) -> Result<bool, ToolError> {
    let mut first_error = None;
    let mut any = false;
    for table in Table::ALL {
        match clean_table(tool, table) {
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

fn clean_table(tool: &Tool, table: Table) -> Result<bool, ToolError> {
    let state = tool.save(table)?;
    let mut batch = Batch::default();
    for jump in fixed::jumps().iter().filter(|jump| jump.table == table) {
        if jump.rule.ends_with(names::FIREWALL) && !jump.rule.ends_with(names::PROXY_FIREWALL) {
            continue;
        }
        // Every one of them: with a jump left its chain could not go.
        let wanted = RuleHash::of(&jump.rule);
        let there = state
            .rules(jump.from)
            .iter()
            .filter(|rule| **rule == wanted);
        for _ in there {
            batch.section(table);
            batch.delete(jump.from, &jump.rule);
        }
    }
    let chains = our_chains(table, &state);
    batch.delete_chains(table, chains.iter());
    let script = batch.finish();
    if script.is_empty() {
        return Ok(false);
    }
    tool.restore(script.text()).map(|()| true)
}

fn our_chains(table: Table, state: &TableState) -> Vec<String> {
    let created = fixed::CREATED_CHAINS.iter();
    let mut known: Vec<&str> = created
        .filter(|(of, name)| *of == table && *name != names::FIREWALL)
        .map(|(_, name)| *name)
        .collect();
    known.extend(match table {
        Table::Mangle => vec![],
        Table::Filter => vec![names::FORWARD],
        Table::Nat => vec![names::MARK_MASQ, names::POSTROUTING],
    });
    debug_assert!(
        Shared::ALL
            .iter()
            .all(|s| s.table() != table || known.contains(&s.chain()))
    );
    state
        .chains
        .keys()
        .filter(|name| {
            known.contains(&name.as_str()) || (table == Table::Nat && is_per_service(name))
        })
        .cloned()
        .collect()
}
