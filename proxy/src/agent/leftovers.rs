//! What a mode that is not in force left in the kernel: removed once the new one is complete.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use switchyard_cluster::object::IpFamily;

use super::draining::{self, Draining};
use crate::backend::xtables::{Kept, Tool, ToolError};
use crate::backend::{
    BackendError, Mode, ebpf, iptables, ipvs, nftables, remove_rules_of_all_modes,
};
use crate::plan::ServicePlan;

/// How often a removal that failed is tried in all.
const TRIES_MAX: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(30);
/// What the kernel is in the middle of when the new mode is complete is done by then.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// What goes, and what is known of the cluster for what may not go at once.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    pub(super) in_force: Mode,
    pub(super) bpf_root: PathBuf,
    /// Connections that others' rules have begun go on by connection tracking. Another order comes
    /// when they are over.
    pub(super) hands_over: bool,
    /// What draws flows of ebpf mode to an end depends on; devices are listed when it begins.
    pub(super) ebpf: ebpf::Config,
    pub(super) plans: Vec<Arc<ServicePlan>>,
    /// Is told when flows of ebpf mode are over.
    pub(super) draining: Draining,
}

/// What there is to do for who keeps all rights.
#[derive(Debug)]
pub(super) enum Order {
    /// Before programs at devices take new connections, rules that would drop them go. Says when
    /// that is done.
    MakeWay(Sender<()>),
    /// Modes that are not in force go.
    Remove(Box<Removal>),
}

/// Somebody who may do everything that the agent gave up, and waits for what needs it.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// `None` from when it is dropped on.
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Leftovers {
    /// Starts the thread, which has the rights that the caller has now.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start() -> io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("leftovers".to_owned())
            .spawn(move || work(&received))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Has rules go that would drop what programs at devices are about to take. What is returned
    /// hears when that is done.
    pub(super) fn make_way(&self) -> Receiver<()> {
        let (done, hears) = mpsc::channel();
        self.order(Order::MakeWay(done));
        hears
    }

    /// Removes, off the path that writes, everything of modes that are not in force.
    pub(super) fn remove(&self, removal: Removal) {
        self.order(Order::Remove(Box::new(removal)));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // Where nobody listens any more, all was done.
            let _ = orders.send(order);
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

/// Carries out orders, up to the last: a removal that no other will follow. An error says that the
/// agent ends.
fn work(orders: &Receiver<Order>) {
    let mut next = orders.recv().ok();
    while let Some(order) = next {
        next = match order {
            Order::MakeWay(done) => {
                make_way_for_programs();
                let _ = done.send(());
                orders.recv().ok()
            }
            Order::Remove(removal) => match remove(&removal, orders) {
                Wait::Told(order) => Some(order),
                Wait::Over if removal.hands_over => orders.recv().ok(),
                Wait::Over | Wait::Ends => return,
            },
        };
    }
}

fn make_way_for_programs() {
    if let Err(error) = on_each_tool(iptables::accept_invalid) {
        tracing::warn!(%error, "rules of iptables mode may drop some connections until they go");
    }
}

fn remove(removal: &Removal, orders: &Receiver<Order>) -> Wait {
    let in_force = removal.in_force;
    if in_force != Mode::Ebpf {
        if !draining::drain(removal, orders) {
            return Wait::Ends;
        }
        removal.draining.is_over();
    }
    for attempt in 1..=TRIES_MAX {
        let error = match remove_others(removal) {
            Ok(removed) => {
                say(in_force, &removed);
                break;
            }
            Err(error) => error,
        };
        tracing::warn!(
            in_force = in_force.as_str(), %error, attempt, of = TRIES_MAX,
            "what another proxy mode left in the kernel could not all be removed"
        );
        match wait(orders, PAUSE) {
            Wait::Over => {}
            cut_short => return cut_short,
        }
    }
    Wait::Over
}

/// How a pause came to its end.
#[derive(Debug)]
pub(super) enum Wait {
    /// By itself.
    Over,
    /// By a further order.
    Told(Order),
    /// The agent ends.
    Ends,
}

/// Pauses.
pub(super) fn wait(orders: &Receiver<Order>, pause: Duration) -> Wait {
    match orders.recv_timeout(pause) {
        Ok(order) => Wait::Told(order),
        Err(RecvTimeoutError::Timeout) => Wait::Over,
        Err(RecvTimeoutError::Disconnected) => Wait::Ends,
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

/// Removes what all other modes left, and says of which there was anything. Where that is what the
/// kernel translates connections for, it is had to go on with those that are open.
fn remove_others(removal: &Removal) -> Result<Vec<Mode>, BackendError> {
    let in_force = removal.in_force;
    if removal.hands_over
        && let Err(error) = nftables::keep_connections()
    {
        tracing::warn!(%error, "connections that other modes' rules have begun may end");
    }
    let removed = remove_modes(in_force, &removal.bpf_root)?;
    if !removal.hands_over || removed.is_empty() {
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
                    thread::sleep(UNDER_WAY);
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
