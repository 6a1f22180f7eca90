//! What a mode that is not in force left in the kernel: removed once the new one is complete.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use switchyard_cluster::object::IpFamily;

use crate::backend::xtables::{Kept, Tool, ToolError};
use crate::backend::{
    BackendError, Mode, ebpf, iptables, ipvs, nftables, remove_rules_of_all_modes,
};

/// How often a removal that failed is tried in all.
const TRIES_MAX: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(30);

/// Somebody who may do everything that the agent gave up, and waits for the one time that it is
/// needed.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// `None` from when it is dropped on.
    orders: Option<Sender<Mode>>,
    thread: Option<JoinHandle<()>>,
}

impl Leftovers {
    /// Starts the thread, which has the rights that the caller has now.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(bpf_root: PathBuf) -> io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("leftovers".to_owned())
            .spawn(move || {
                // An error says that the agent ends.
                if let Ok(in_force) = received.recv() {
                    remove(in_force, &bpf_root, &received);
                }
            })?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Removes, off the path that writes, everything of modes that are not in force. Only the
    /// first call counts.
    pub(super) fn remove(&self, in_force: Mode) {
        if let Some(orders) = &self.orders {
            // Nobody waits for a second order.
            let _ = orders.send(in_force);
        }
    }
}

impl Drop for Leftovers {
    /// Waits for a removal that is under way, and for no further try.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there ended the process.
            let _ = thread.join();
        }
    }
}

fn remove(in_force: Mode, bpf_root: &Path, orders: &Receiver<Mode>) {
    for attempt in 1..=TRIES_MAX {
        let error = match remove_others(in_force, bpf_root) {
            Ok(removed) => return say(in_force, &removed),
            Err(error) => error,
        };
        tracing::warn!(
            in_force = in_force.as_str(), %error, attempt, of = TRIES_MAX,
            "what another proxy mode left in the kernel could not all be removed"
        );
        if orders.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
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
