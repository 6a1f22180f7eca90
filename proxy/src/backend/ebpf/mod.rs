//! eBPF: translation at the socket and at the devices, by maps that the agent fills.
//!
//! Nothing of iptables or nftables is used. What the kernel's programs decide is in
//! `ebpf/datapath`, which tests run as well.
//!
//! - A Service's endpoints are one immutable block of slots, and one word says which block is
//!   in force: a change is a new block and one store of eight bytes. Readers see the old set or
//!   the new one, never a mixture, and cost no lock.
//! - The maps of Services ([`tables`]) are made anew at each start, filled, and only then put
//!   under the programs, which take the place of those that run. So a restart, an upgrade, a
//!   change of layout and growing maps are the same thing, and none has a moment without.
//! - What must outlive the agent is pinned ([`pins`]): flows, affinity, what sockets remember,
//!   counters, and which index each Service port has.
//!
//! Parts: [`compile`] (plan to block, pure), [`live`] (writing it), [`tables`] (the maps, and
//! reading them back), [`attach`] (the programs' places), [`shared`] and [`flows`] (what lasts,
//! and when it is over).

mod arena;
mod attach;
mod cleanup;
mod compile;
mod config;
mod drain;
mod error;
mod events;
mod features;
mod filter;
mod flows;
mod former;
mod handover;
mod housekeeping;
mod identities;
#[cfg(test)]
mod incremental;
mod kept;
#[cfg(kernel_log)]
pub mod kernel_log;
mod live;
mod making;
mod node;
pub mod opt_out;
mod pins;
mod places;
mod programs;
mod rebuild;
mod shared;
#[cfg(test)]
mod simulation;
mod slot;
mod tables;
mod upkeep;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::attach::Attached;
use self::former::Former;
use self::handover::Handover;
use self::live::{Live, StepError};
use self::pins::Pins;
use self::shared::{Every, Shared};
use self::tables::Sizes;
use super::{Refusal, Report, Written};
use crate::devices::Devices;
use crate::plan::{PlanChange, PlanId, ServicePlan};
use crate::stations::Stations;

pub use attach::is_attached;
pub use cleanup::cleanup;
pub use config::{Config, ConntrackTimeouts, Forwarding, Paths};
pub use drain::Drain;
pub use error::EbpfError;
pub use features::{Features, Missing, probe};
pub use housekeeping::{DropReason, Housekeeping, MapLevel, MapName, ServiceTotals};
pub use programs::object;

/// What most clusters need; larger ones load their programs once more.
const USUAL: Sizes = Sizes {
    services: 1 << 11,
    slots: 1 << 14,
    frontends: 1 << 12,
    ranges: 1 << 8,
};
/// How often flows that are over are looked for.
const SWEEP_FLOWS: Duration = Duration::from_secs(5);
/// How often a device that could not be attached to is tried again.
const RETRY_DEVICES: Duration = Duration::from_secs(5);
/// How often affinity that is over is looked for.
const SWEEP_AFFINITY: Duration = Duration::from_secs(10);
/// How often counters are read.
const READ_COUNTERS: Duration = Duration::from_secs(5);
/// How often a reconcile reads the maps of Services even if nothing hints at a difference: the
/// node's addresses change with every pod, and each such change asks for a reconcile.
const AUDIT: Duration = Duration::from_secs(300);

/// The programs and maps of this node: what was programmed, and how to program more.
#[derive(Debug)]
pub struct Ebpf {
    config: Config,
    features: Features,
    pins: Pins,
    host_cookie: u64,
    attached: Attached,
    /// `None` before the first reconcile.
    live: Option<Live>,
    /// A set of the usual size, whose programs were verified while the cluster was listed.
    spare: Option<Live>,
    shared: Option<Shared>,
    /// What an agent of an earlier schema left, until it is carried over.
    former: Option<Former>,
    /// Nothing of ours is attached yet: programs rest until all are.
    is_first: bool,
    handover: Handover,
    refused: BTreeMap<PlanId, Refusal>,
    has_stale_flows: bool,
    /// A change was given up half way: what the maps hold is not what is noted of them, or the
    /// programs in force are not all of the set that is noted.
    is_torn: bool,
    due: Due,
    levels: Levels,
    /// Packets that were lost because there was no room for their flow, when last looked at.
    lost_for_room: u64,
    /// Maps of which it was said that they are nearly full.
    said_high: HashSet<MapName>,
}

/// What is done now and then.
#[derive(Debug)]
struct Due {
    flows: Every,
    affinity: Every,
    counters: Every,
    devices: Every,
    audit: Every,
}

/// How full maps were when they were last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Levels {
    flows: usize,
    affinity: usize,
    connected: usize,
    counters: usize,
}

impl Ebpf {
    /// Gets ready, and has the kernel verify the programs. Nothing of what an earlier run left is
    /// changed before the first [`Ebpf::reconcile`].
    ///
    /// # Errors
    /// [`EbpfError`].
    pub fn open(paths: Paths, config: Config) -> Result<Self, EbpfError> {
        let features = features::features();
        let pins = Pins::open(&paths.bpf_root)?;
        let host_cookie = match switchyard_kernel::namespace_cookie() {
            Ok(cookie) => cookie,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the kernel does not tell the node's own network namespace (Linux 5.14 \
                     does): node ports on localhost don't work, and node and pods are not told \
                     apart at sockets"
                );
                0
            }
        };
        if host_cookie == 0 && config.host_namespace_only {
            return Err(EbpfError::HostNamespaceUnknown);
        }
        if !features.set_retval {
            tracing::info!(
                "refused connections fail with EPERM at sockets here; from Linux 5.18 on with \
                 ECONNREFUSED"
            );
        }
        let former = Former::find(&paths.bpf_root, &pins)?;
        let spare = Live::load(&pins, USUAL, &features, config.forwarding)?;
        let attached = Attached::none(paths.cgroup_root, pins.clone(), features.tcx);
        Ok(Self {
            is_first: !attached.is_inherited(),
            attached,
            handover: Handover::none(),
            config,
            features,
            pins,
            host_cookie,
            live: None,
            spare: Some(spare),
            shared: None,
            former,
            refused: BTreeMap::new(),
            has_stale_flows: false,
            is_torn: false,
            due: Due {
                flows: Every::new(SWEEP_FLOWS),
                affinity: Every::new(SWEEP_AFFINITY),
                counters: Every::new(READ_COUNTERS),
                devices: Every::new(RETRY_DEVICES),
                audit: Every::new(AUDIT),
            },
            levels: Levels::default(),
            lost_for_room: 0,
            said_high: HashSet::new(),
        })
    }

    /// Writes the changes.
    ///
    /// # Errors
    /// [`EbpfError`]; reconcile then.
    pub fn apply(&mut self, changes: &[PlanChange]) -> Result<Report, EbpfError> {
        let changes = changes.iter().filter(|change| self.has_family(&change.id));
        let wanted = changes.map(|change| (change.id.clone(), change.new.clone()));
        let steps = self.steps(wanted.collect());
        self.make(steps)?;
        Ok(self.report(0))
    }

    /// Makes the kernel hold `plans`, and nothing else. The first time this puts new maps and
    /// programs in the place of what an earlier run left; later it looks whether all is as it
    /// was written, and repairs what is not.
    ///
    /// # Errors
    /// [`EbpfError`]. What was written until then stays; the next try goes on from there.
    pub fn reconcile(
        &mut self,
        config: Config,
        plans: &[Arc<ServicePlan>],
    ) -> Result<Report, EbpfError> {
        self.config = config;
        let plans = plans.iter().filter(|plan| self.has_family(&plan.id));
        let mut wanted: BTreeMap<PlanId, Option<Arc<ServicePlan>>> = plans
            .map(|plan| (plan.id.clone(), Some(Arc::clone(plan))))
            .collect();
        self.refused.clear();
        let mut repaired = 0;
        if self.is_torn && self.live.is_some() {
            // A new set is whole, whatever of its plans is still to change.
            self.grow(Vec::new())?;
            repaired += 1;
        }
        let Some(live) = &mut self.live else {
            let steps = self.steps(wanted.into_iter().collect());
            self.rebuild(steps)?;
            self.take_over();
            return Ok(self.report(0));
        };
        let is_attached = self.attached.is_whole();
        let is_disturbed = !is_attached || !live.words_are_right();
        if is_disturbed || self.due.audit.is_due(Instant::now()) {
            repaired += live.audit()?;
            self.attached.renew_filters();
        }
        for programmed in &live.programmed {
            let id = &programmed.plan.id;
            match wanted.get(id) {
                Some(Some(plan)) if *plan == programmed.plan => drop(wanted.remove(id)),
                Some(_) => {}
                None => drop(wanted.insert(id.clone(), None)),
            }
        }
        if !is_attached {
            self.attached
                .attach(&mut live.loaded, &self.config.devices)?;
            repaired += 1;
        }
        match live.write_settings(&self.config, self.host_cookie, self.handover.is_on()) {
            Ok(()) => {}
            Err(StepError::Failed(error)) => return Err(error),
            Err(StepError::NoRoom) => self.grow(Vec::new())?,
        }
        let steps = self.steps(wanted.into_iter().collect());
        self.make(steps)?;
        self.attach_devices()?;
        Ok(self.report(repaired))
    }

    fn has_family(&self, id: &PlanId) -> bool {
        self.config.families.contains(&id.family)
    }

    fn report(&mut self, repaired: usize) -> Report {
        let live = self.live.as_mut();
        Report {
            written: Written::Elements(live.map_or(0, |live| live.tables.take_written())),
            repaired,
        }
    }

    /// What an earlier run remembered, and nothing speaks for any more.
    fn take_over(&mut self) {
        if let Some(shared) = &mut self.shared {
            let gone = shared.identities.forget_unnamed();
            if !gone.is_empty() {
                tracing::info!(count = gone.len(), "Service ports went while no agent ran");
            }
            shared.look_at_all_sockets();
        }
        self.attached.sweep();
        if let Some(former) = self.former.take() {
            former.remove();
        }
        self.has_stale_flows = true;
    }

    /// Whether somebody else may have changed something since the last write: cheap, and
    /// where it says yes, [`Ebpf::reconcile`] finds out.
    pub fn disturbed(&mut self) -> bool {
        self.live
            .as_ref()
            .is_some_and(|live| !live.words_are_right() || !self.attached.is_whole())
    }

    /// The plans the kernel does not hold as they should be, and why.
    #[must_use]
    pub const fn refused(&self) -> &BTreeMap<PlanId, Refusal> {
        &self.refused
    }

    /// Attaches to devices that are new, at once, and forgets those that are gone; knows from now on
    /// what is behind which port of bridges.
    ///
    /// # Errors
    /// [`EbpfError`]; those that could be attached to are.
    pub fn set_devices(
        &mut self,
        devices: Arc<Devices>,
        stations: Arc<Stations>,
    ) -> Result<(), EbpfError> {
        self.config.devices = devices;
        self.config.stations = stations;
        self.attach_devices()
    }

    fn attach_devices(&mut self) -> Result<(), EbpfError> {
        let Some(live) = &mut self.live else {
            return Ok(()); // the first reconcile does it
        };
        let devices = node::devices(&self.config, self.handover.is_on());
        live.tables.set_devices(&devices)?;
        live.tables.set_stations(&node::stations(&self.config))?;
        self.attached
            .attach_devices(&mut live.loaded, &self.config.devices)
    }
}
