//! `--cleanup`.

use std::path::Path;

use super::error::StartError;
use super::host;
use super::leftovers::remove_rules;
use crate::backend::ebpf;
use crate::backend::iptables::ToolError;

/// Removes everything of ours, of every mode and in both families.
///
/// # Errors
/// The first one; what can be removed is, all the same.
pub fn cleanup(bpf_root: &Path) -> Result<(), StartError> {
    host::check_privileges()?;
    let programs = ebpf::cleanup(bpf_root);
    let rules = remove_rules();
    let programs = programs.map_err(StartError::EbpfCleanup)?;
    let rules = rules?;
    if rules.is_none() && !programs {
        return Err(ToolError::Missing("iptables".to_owned()).into());
    }
    Ok(())
}
