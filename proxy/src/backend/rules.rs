//! The rules of all modes that have some, removed together.

use super::xtables::{self, Kept, Table, Tool, ToolError};
use super::{iptables, ipvs};

/// Removes the rules of every mode from the tables of the tool's family, where no mode is in
/// force that wants any. Modes share chains, and one mode's rules lead to what another's
/// removal would take away: so all of a table go at once. True if there were any.
///
/// # Errors
/// When a table can't be read or written; the others are tried all the same and the first error
/// is returned.
pub fn remove_rules_of_all_modes(tool: &Tool) -> Result<bool, ToolError> {
    let mut jumps = iptables::cleaned_jumps();
    for jump in ipvs::cleaned_jumps() {
        if !jumps.contains(&jump) {
            jumps.push(jump);
        }
    }
    let mut first_error = None;
    let mut any = false;
    for table in Table::ALL {
        let is_ours = |name: &str| {
            iptables::is_chain_cleaned(table, name) || ipvs::is_chain_cleaned(table, name)
        };
        match xtables::remove(tool, table, &jumps, is_ours, &Kept::default()) {
            Ok(there) => any |= there,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    first_error.map_or(Ok(any), Err)
}
