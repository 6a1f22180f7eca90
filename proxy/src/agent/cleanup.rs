//! `--cleanup`.

use std::path::Path;

use super::error::StartError;
use super::host;
use super::leftovers::on_each_tool;
use crate::backend::xtables::Kept;
use crate::backend::{ebpf, iptables, ipvs, nftables, remove_rules_of_all_modes};

/// Removes everything of ours, of every mode and in both families.
///
/// # Errors
/// The first one; what can be removed is, all the same.
pub fn cleanup(bpf_root: &Path) -> Result<(), StartError> {
    host::check_privileges()?;
    let programs = ebpf::cleanup(bpf_root);
    let of_all_modes = on_each_tool(remove_rules_of_all_modes);
    let services = ipvs::cleanup(&Kept::default());
    let tables = nftables::cleanup().and(nftables::release_connections());
    let rules = on_each_tool(|tool| iptables::cleanup(tool, &Kept::default()));
    let programs = programs.map_err(StartError::EbpfCleanup)?;
    of_all_modes?;
    services.map_err(StartError::IpvsCleanup)?;
    tables.map_err(StartError::NftablesCleanup)?;
    let rules = rules?;
    if rules.is_none() {
        // A node that only ever ran in ebpf mode has none, and nothing for them to remove.
        tracing::warn!(
            "no iptables here, so rules of iptables and ipvs mode, if there are any, stay; programs and \
             maps of ebpf mode are {}",
            if programs { "removed" } else { "not there" }
        );
    }
    Ok(())
}
