use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use switchyard_cluster::object::IpFamily;
use switchyard_netlink::conntrack::{Conntrack, Flow, REQUESTS_PER_SEND_MAX};
use switchyard_netlink::{Family, NetlinkError};
use tracing::{debug, info, warn};

use super::NodePortDestinations;
use super::stale::{Impact, REMOVED_FRONTENDS_MAX, UdpFrontends};
use crate::plan::{PlanChange, ServicePlan};

/// Least rest between two passes. Changes meanwhile are served by one pass.
const REST_MIN: Duration = Duration::from_millis(100);
/// After a pass, rest this many times as long as it took: however large the table, cleaning
/// takes a fifth of one CPU at most.
const REST_PER_WORK: u32 = 4;
/// Back-off after a failed pass: first this, then doubled.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest back-off.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What one pass over the conntrack table of one family did.
#[derive(Debug)]
pub struct PassReport {
    /// Which table.
    pub family: IpFamily,
    /// How long it took.
    pub duration: Duration,
    /// UDP flows looked at.
    pub flows: u64,
    /// Flows deleted, also where the pass failed later on.
    pub deleted: u64,
    /// What stopped it. It is tried again.
    pub failure: Option<NetlinkError>,
}

/// Deletes stale UDP flows in a thread of its own.
///
/// Tell it of changes *after* they are in the kernel: a flow deleted before its new rules are
/// there would only be tied to the old endpoint again. Many changes are served by one pass,
/// and a change that cannot make a flow stale causes none. Dropping it ends the thread after
/// the pass that is going on.
pub struct ConntrackCleaner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    frontends: Arc<UdpFrontends>,
    node_ports: Arc<NodePortDestinations>,
    /// Families whose table is to be gone through, by [`index`].
    due: [bool; 2],
    stop: bool,
}

impl ConntrackCleaner {
    /// Starts the thread, in the network namespace of the caller. `on_pass` is called in it
    /// after every pass.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        node_ports: NodePortDestinations,
        on_pass: impl Fn(&PassReport) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                frontends: Arc::default(),
                node_ports: Arc::new(node_ports),
                due: [false; 2],
                stop: false,
            }),
            wake: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("conntrack".to_owned())
            .spawn(move || Worker::new(of_thread, Box::new(on_pass)).run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Takes over all Service ports of a family, those of other protocols included; whatever
    /// is not among them is gone. Call it when all rules are in the kernel: at the start, and
    /// after each full sync. The table is gone through if anything may be stale, at the start always.
    pub fn replace(&self, family: IpFamily, plans: &[Arc<ServicePlan>]) {
        let mut state = self.shared.lock();
        let impact = Arc::make_mut(&mut state.frontends).replace(family, plans);
        self.act_on(state, &[(family, impact)]);
    }

    /// Takes changes over that are in the kernel now.
    pub fn apply(&self, changes: &[PlanChange]) {
        let mut state = self.shared.lock();
        let frontends = Arc::make_mut(&mut state.frontends);
        let impacts: Vec<_> = changes
            .iter()
            .map(|change| {
                (
                    change.id.family,
                    frontends.set(&change.id, change.new.as_deref()),
                )
            })
            .collect();
        self.act_on(state, &impacts);
    }

    /// Takes over at which addresses node ports are ours now. No flow gets stale by that.
    pub fn set_node_ports(&self, node_ports: NodePortDestinations) {
        self.shared.lock().node_ports = Arc::new(node_ports);
    }

    fn act_on(&self, mut state: MutexGuard<'_, State>, impacts: &[(IpFamily, Impact)]) {
        for (family, impact) in impacts {
            if impact.forgotten > 0 {
                warn!(
                    %family,
                    "more than {REMOVED_FRONTENDS_MAX} frontends were taken away while their UDP \
                     flows could not be cleaned; flows of {} of them stay until they time out",
                    impact.forgotten
                );
            }
            if impact.needs_pass
                && let Some(due) = state.due.get_mut(index(*family))
            {
                *due = true;
            }
        }
        drop(state);
        self.shared.wake.notify_one();
    }
}

impl Drop for ConntrackCleaner {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed already; there is nothing to be saved from it.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for ConntrackCleaner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConntrackCleaner").finish_non_exhaustive()
    }
}

impl Shared {
    /// The state is whole between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn index(family: IpFamily) -> usize {
    match family {
        IpFamily::V4 => 0,
        IpFamily::V6 => 1,
    }
}

/// One pass as it was asked for.
struct Task {
    family: IpFamily,
    frontends: Arc<UdpFrontends>,
    node_ports: Arc<NodePortDestinations>,
}

struct Worker {
    shared: Arc<Shared>,
    on_pass: Box<dyn Fn(&PassReport) + Send>,
    /// One to list, one to delete while the other is in the middle of a list.
    sockets: Option<(Conntrack, Conntrack)>,
    retry_after: Option<Duration>,
}

impl Worker {
    fn new(shared: Arc<Shared>, on_pass: Box<dyn Fn(&PassReport) + Send>) -> Self {
        Self {
            shared,
            on_pass,
            sockets: None,
            retry_after: None,
        }
    }

    fn run(mut self) {
        while let Some(tasks) = self.next_tasks() {
            let start = Instant::now();
            let mut failed = false;
            for task in tasks {
                failed |= !self.work(&task);
            }
            let rest = if failed {
                let rest = self
                    .retry_after
                    .map_or(RETRY_FIRST, |last| (last * 2).min(RETRY_MAX));
                self.retry_after = Some(rest);
                rest
            } else {
                self.retry_after = None;
                REST_MIN.max(start.elapsed() * REST_PER_WORK)
            };
            if !self.rest(rest) {
                return;
            }
        }
    }

    /// Waits until a family is due; `None` to stop.
    fn next_tasks(&self) -> Option<Vec<Task>> {
        let state = self.shared.lock();
        let idle = |state: &mut State| !state.stop && !state.due.contains(&true);
        let mut state = self
            .shared
            .wake
            .wait_while(state, idle)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stop {
            return None;
        }
        let due = std::mem::take(&mut state.due);
        let tasks = IpFamily::BOTH
            .into_iter()
            .filter(|family| due.get(index(*family)) == Some(&true))
            .map(|family| Task {
                family,
                frontends: Arc::clone(&state.frontends),
                node_ports: Arc::clone(&state.node_ports),
            });
        Some(tasks.collect())
    }

    /// False to stop.
    fn rest(&self, duration: Duration) -> bool {
        let (state, _) = self
            .shared
            .wake
            .wait_timeout_while(self.shared.lock(), duration, |state| !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        !state.stop
    }

    /// One pass, reported; false if it failed and is due again.
    fn work(&mut self, task: &Task) -> bool {
        let start = Instant::now();
        let mut pass = Pass::default();
        let result = self
            .sockets()
            .and_then(|(listing, deleting)| pass.run(task, listing, deleting));
        let report = PassReport {
            family: task.family,
            duration: start.elapsed(),
            flows: pass.flows,
            deleted: pass.deleted,
            failure: result.err(),
        };
        let mut state = self.shared.lock();
        if report.failure.is_some() {
            self.sockets = None;
            if let Some(due) = state.due.get_mut(index(task.family)) {
                *due = true;
            }
        } else {
            let up_to = task.frontends.changes();
            Arc::make_mut(&mut state.frontends).forget_removed(task.family, up_to);
        }
        drop(state);
        log(&report);
        (self.on_pass)(&report);
        report.failure.is_none()
    }

    fn sockets(&mut self) -> Result<&mut (Conntrack, Conntrack), NetlinkError> {
        let sockets = match self.sockets.take() {
            Some(sockets) => sockets,
            None => (Conntrack::open()?, Conntrack::open()?),
        };
        Ok(self.sockets.insert(sockets))
    }
}

#[derive(Debug, Default)]
struct Pass {
    flows: u64,
    deleted: u64,
    stale: Vec<Flow>,
}

impl Pass {
    fn run(
        &mut self,
        task: &Task,
        listing: &mut Conntrack,
        deleting: &mut Conntrack,
    ) -> Result<(), NetlinkError> {
        let family = match task.family {
            IpFamily::V4 => Family::V4,
            IpFamily::V6 => Family::V6,
        };
        let mut failure = None;
        let counts = listing.for_each_udp(family, |flow| {
            if failure.is_some() || !task.frontends.is_stale(flow, &task.node_ports) {
                return;
            }
            self.stale.push(*flow);
            if self.stale.len() >= REQUESTS_PER_SEND_MAX {
                failure = self.delete(deleting).err();
            }
        });
        // What is known to be stale goes even if the list broke off.
        let rest = self.delete(deleting);
        self.flows = counts?.wanted;
        failure.map_or(rest, Err)
    }

    fn delete(&mut self, deleting: &mut Conntrack) -> Result<(), NetlinkError> {
        let deleted = deleting.delete(&self.stale);
        self.stale.clear();
        self.deleted += u64::try_from(deleted?).unwrap_or(u64::MAX);
        Ok(())
    }
}

fn log(report: &PassReport) {
    let PassReport {
        family,
        duration,
        flows,
        deleted,
        failure,
    } = report;
    let milliseconds = duration.as_millis();
    match failure {
        Some(failure) => warn!(
            %family,
            deleted,
            "stale UDP flows could not all be deleted, clients may still send to endpoints that \
             are gone; will try again: {failure}"
        ),
        None if *deleted > 0 => {
            info!(%family, deleted, flows, milliseconds, "deleted stale UDP flows from conntrack");
        }
        None => debug!(%family, flows, milliseconds, "no stale UDP flows in conntrack"),
    }
}
