//! What a mode that is not in force left in the kernel: removed once the new one is complete.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use switchyard_cluster::object::IpFamily;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::backend::ebpf::Drain;
use crate::backend::xtables::{Kept, Tool, ToolError};
use crate::backend::{
    BackendError, Mode, ebpf, iptables, ipvs, nftables, remove_rules_of_all_modes,
};
use crate::devices::Devices;
use crate::plan::ServicePlan;

/// How often a removal that failed is tried in all.
const TRIES_MAX: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(30);
/// What the kernel is in the middle of when the new mode is complete is done by then.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// From one look whether flows of ebpf mode are over to the next: at first, most are short.
const LOOK_AT_FLOWS: Duration = Duration::from_millis(250);
/// The same for those that last.
const LOOK_AT_LASTING_FLOWS: Duration = Duration::from_secs(2);
/// So many looks are the first.
const FIRST_LOOKS: u32 = 40;

/// Whether flows of ebpf mode, which is not in force, are still under way.
#[derive(Clone, Debug)]
pub(super) struct Draining(Arc<AtomicBool>);

impl Draining {
    pub(super) fn new(is_so: bool) -> Self {
        Self(Arc::new(AtomicBool::new(is_so)))
    }

    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn is_over(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What goes, and what is known of the cluster for what may not go at once.
#[derive(Clone, Debug)]
pub(super) struct Leftovers {
    pub(super) in_force: Mode,
    pub(super) bpf_root: PathBuf,
    /// Connections that others' rules have begun go on by connection tracking.
    pub(super) hands_over: bool,
    /// What draws flows of ebpf mode to an end depends on; devices are listed when it begins.
    pub(super) ebpf: ebpf::Config,
    pub(super) plans: Vec<Arc<ServicePlan>>,
    /// Is told when flows of ebpf mode are over.
    pub(super) draining: Draining,
}

/// Before programs at devices take new connections: rules that would drop them go.
pub(super) fn make_way_for_programs() {
    if let Err(error) = on_each_tool(iptables::accept_invalid) {
        tracing::warn!(%error, "rules of iptables mode may drop some connections until they go");
    }
}

/// Removes, in the background and off the path that writes, everything of modes that are
/// not in force. Must be called within the runtime.
pub(super) fn remove(leftovers: Leftovers) {
    tokio::spawn(async move {
        let in_force = leftovers.in_force;
        if in_force != Mode::Ebpf {
            drain(&leftovers).await;
            leftovers.draining.is_over();
        }
        let leftovers = Arc::new(leftovers);
        for attempt in 1..=TRIES_MAX {
            let what = Arc::clone(&leftovers);
            let error = match spawn_blocking(move || remove_others(&what)).await {
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

/// Has programs of ebpf mode begin nothing new, and waits until what they have begun is over.
async fn drain(leftovers: &Leftovers) {
    let what = leftovers.clone();
    let begun = spawn_blocking(move || begin_drain(&what)).await;
    let mut drain = match begun {
        Ok(Ok(Some(drain))) => drain,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return cut_off(&error),
        Err(error) => return cut_off(&error),
    };
    tracing::info!("ebpf mode takes no new connections; those it has go on until they are over");
    let mut looks = 0;
    loop {
        let stepped = spawn_blocking(move || (drain.step(), drain)).await;
        drain = match stepped {
            Ok((Ok(0), _)) => return,
            Ok((Ok(entries), drain)) => {
                tracing::debug!(entries, "flows of ebpf mode are still under way");
                drain
            }
            Ok((Err(error), drain)) => {
                tracing::warn!(%error, "flows of ebpf mode that are over stay for now");
                drain
            }
            Err(error) => return cut_off(&error),
        };
        looks += 1;
        let is_first = looks < FIRST_LOOKS;
        sleep(if is_first {
            LOOK_AT_FLOWS
        } else {
            LOOK_AT_LASTING_FLOWS
        })
        .await;
    }
}

fn begin_drain(leftovers: &Leftovers) -> Result<Option<Drain>, BackendError> {
    let mut config = leftovers.ebpf.clone();
    match Devices::list() {
        Ok(devices) => config.devices = Arc::new(devices),
        Err(error) => tracing::warn!(%error, "devices can't be listed"),
    }
    Ok(Drain::begin(
        &leftovers.bpf_root,
        &config,
        &leftovers.plans,
    )?)
}

fn cut_off(error: &dyn std::fmt::Display) {
    tracing::warn!(
        %error,
        "connections through programs of ebpf mode can't be kept: they end, and the programs go"
    );
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

/// Removes what all other modes left, and says of which there was anything. Where that is what the
/// kernel translates connections for, it is had to go on with those that are open.
fn remove_others(leftovers: &Leftovers) -> Result<Vec<Mode>, BackendError> {
    let in_force = leftovers.in_force;
    if leftovers.hands_over
        && let Err(error) = nftables::keep_connections()
    {
        tracing::warn!(%error, "connections that other modes' rules have begun may end");
    }
    let removed = remove_modes(in_force, &leftovers.bpf_root)?;
    if !leftovers.hands_over || removed.is_empty() {
        nftables::release_connections()?;
    }
    Ok(removed)
}

fn remove_modes(in_force: Mode, bpf_root: &Path) -> Result<Vec<Mode>, BackendError> {
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
            Mode::Ipvs => {
                if ipvs::device_index().is_some() {
                    std::thread::sleep(UNDER_WAY);
                }
                ipvs::cleanup(&kept).map_err(BackendError::from)
            }
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
