//! What a mode that is not in force left in the kernel: removed once the new one is complete.

use std::path::{Path, PathBuf};
use std::time::Duration;

use switchyard_cluster::object::IpFamily;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::backend::xtables::{Kept, Tool, ToolError};
use crate::backend::{
    BackendError, Mode, ebpf, iptables, ipvs, nftables, remove_rules_of_all_modes,
};

/// How often a removal that failed is tried in all.
const TRIES_MAX: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(30);

/// Removes, in the background and off the path that writes, everything of modes that are
/// not in force. Must be called within the runtime.
pub(super) fn remove(in_force: Mode, bpf_root: PathBuf) {
    tokio::spawn(async move {
        for attempt in 1..=TRIES_MAX {
            let bpf_root = bpf_root.clone();
            let removal = spawn_blocking(move || remove_others(in_force, &bpf_root)).await;
            let error = match removal {
                Ok(Ok(removed)) => return say(in_force, &removed),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(
                in_force = in_force.as_str(), %error, attempt, of = TRIES_MAX,
                "what another proxy mode left in the kernel could not all be removed"
            );
            sleep(PAUSE).await;
        }
    });
}

fn say(in_force: Mode, removed: &[Mode]) {
    if removed.is_empty() {
        tracing::debug!(%in_force, "other proxy modes have left nothing in the kernel");
    }
    for mode in removed {
        tracing::info!(
            mode = mode.as_str(),
            "removed what another proxy mode had left in the kernel"
        );
    }
}

/// Removes what all other modes left, and says of which there was anything.
fn remove_others(in_force: Mode, bpf_root: &Path) -> Result<Vec<Mode>, BackendError> {
    let kept = match in_force {
        Mode::Iptables => iptables::kept(),
        Mode::Ipvs => ipvs::kept(),
        Mode::Nftables | Mode::Ebpf => Kept::default(),
    };
    let mut removed = Vec::new();
    let mut first_error = None;
    let mut had_rules = false;
    if matches!(in_force, Mode::Nftables | Mode::Ebpf) {
        match on_each_tool(remove_rules_of_all_modes) {
            Ok(any) => had_rules = any.unwrap_or(false),
            Err(error) => drop(first_error.get_or_insert(error.into())),
        }
    }
    for mode in Mode::ALL.into_iter().filter(|mode| *mode != in_force) {
        let result = match mode {
            Mode::Ebpf => ebpf::cleanup(bpf_root).map_err(BackendError::from),
            Mode::Ipvs => ipvs::cleanup(&kept).map_err(BackendError::from),
            Mode::Nftables => nftables::cleanup().map_err(BackendError::from),
            Mode::Iptables => on_each_tool(|tool| iptables::cleanup(tool, &kept))
                .map(|any| any.unwrap_or(false))
                .map_err(BackendError::from),
        };
        match result {
            Ok(true) => removed.push(mode),
            Ok(false) => {}
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    // Rules alone are those of iptables mode: ipvs mode has services and a device besides.
    let has_rules = |mode| matches!(mode, Mode::Iptables | Mode::Ipvs);
    if had_rules && !removed.iter().copied().any(has_rules) {
        removed.push(Mode::Iptables);
    }
    first_error.map_or(Ok(removed), Err)
}

/// Removes something by the tools of both families: whether there was anything, or `None` where
/// there are no tools.
pub(super) fn on_each_tool(
    remove: impl Fn(&Tool) -> Result<bool, ToolError>,
) -> Result<Option<bool>, ToolError> {
    let mut first_error = None;
    let mut any = None;
    for family in IpFamily::BOTH {
        match Tool::find(family).and_then(|tool| remove(&tool)) {
            Ok(there) => any = Some(any.unwrap_or(false) | there),
            Err(ToolError::Missing(program)) => tracing::debug!(%program, "not installed"),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    first_error.map_or(Ok(any), Err)
}
