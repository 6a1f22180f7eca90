//! What a mode that is not in force left in the kernel: removed once the new one is complete.

use std::path::{Path, PathBuf};
use std::time::Duration;

use switchyard_cluster::object::IpFamily;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::backend::xtables::{Tool, ToolError};
use crate::backend::{BackendError, Mode, ebpf, iptables};

/// How often a removal that failed is tried in all.
const TRIES_MAX: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(30);

/// Removes, in the background and off the path that writes, everything of the mode that is
/// not in force. Must be called within the runtime.
pub(super) fn remove(in_force: Mode, bpf_root: PathBuf) {
    tokio::spawn(async move {
        for attempt in 1..=TRIES_MAX {
            let bpf_root = bpf_root.clone();
            let removal = spawn_blocking(move || remove_other(in_force, &bpf_root)).await;
            let error = match removal {
                Ok(Ok(any)) => return say(in_force, any),
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

fn say(in_force: Mode, any: bool) {
    let mode = other(in_force).as_str();
    if any {
        tracing::info!(
            mode,
            "removed what another proxy mode had left in the kernel"
        );
    } else {
        tracing::debug!(mode, "another proxy mode has left nothing in the kernel");
    }
}

const fn other(in_force: Mode) -> Mode {
    match in_force {
        Mode::Iptables => Mode::Ebpf,
        Mode::Ebpf => Mode::Iptables,
    }
}

fn remove_other(in_force: Mode, bpf_root: &Path) -> Result<bool, BackendError> {
    match other(in_force) {
        Mode::Ebpf => Ok(ebpf::cleanup(bpf_root)?),
        Mode::Iptables => Ok(remove_rules()?.unwrap_or(false)),
    }
}

/// Removes everything of iptables in both families: whether there was any, or `None` where
/// there are no tools.
pub(super) fn remove_rules() -> Result<Option<bool>, ToolError> {
    let mut first_error = None;
    let mut any = None;
    for family in IpFamily::BOTH {
        match Tool::find(family).and_then(|tool| iptables::cleanup(&tool)) {
            Ok(there) => any = Some(any.unwrap_or(false) | there),
            Err(ToolError::Missing(program)) => tracing::debug!(%program, "not installed"),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    first_error.map_or(Ok(any), Err)
}
