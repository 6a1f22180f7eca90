//! eBPF: translation at the socket and at the devices, by maps that the agent fills.
//!
//! [`Ebpf`] is what the agent drives: all IP families at once.

mod config;
mod features;
mod housekeeping;
pub mod opt_out;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{Refusal, Report};
use crate::devices::Devices;
use crate::plan::{PlanChange, PlanId, ServicePlan};

pub use config::{Config, ConntrackTimeouts, Paths};
pub use features::{Features, Missing, probe};
pub use housekeeping::{DropReason, Housekeeping, MapLevel, MapName, ServiceTotals};

/// Why eBPF could not be used or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The programs are not there.
    #[error("the ebpf backend is not in this build yet")]
    NotInThisBuild,
    /// What is pinned can't be looked at.
    #[error("cannot look for pinned maps and links at {path}: {source}")]
    Pins {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The programs and maps of this node: what was programmed, and how to program more.
#[derive(Debug)]
pub struct Ebpf {
    never: Infallible,
}

impl Ebpf {
    /// Loads the programs and takes over what an earlier run left pinned; nothing that serves
    /// is changed before the first [`Ebpf::reconcile`].
    ///
    /// # Errors
    /// [`EbpfError`].
    pub fn open(paths: Paths, config: Config) -> Result<Self, EbpfError> {
        drop((paths, config));
        Err(EbpfError::NotInThisBuild)
    }

    /// Writes the changes.
    ///
    /// # Errors
    /// [`EbpfError`]; reconcile then.
    pub fn apply(&mut self, changes: &[PlanChange]) -> Result<Report, EbpfError> {
        let _ = changes;
        match self.never {}
    }

    /// Reads what the kernel has, compares it with `plans`, writes the difference, and puts
    /// programs back where they are missing.
    ///
    /// # Errors
    /// [`EbpfError`]. What was written until then stays; the next try goes on from there.
    pub fn reconcile(
        &mut self,
        config: Config,
        plans: &[Arc<ServicePlan>],
    ) -> Result<Report, EbpfError> {
        let _ = (config, plans);
        match self.never {}
    }

    /// Whether somebody else may have changed something since the last write: cheap, and
    /// where it says yes, [`Ebpf::reconcile`] finds out.
    pub fn disturbed(&mut self) -> bool {
        match self.never {}
    }

    /// The plans the kernel does not hold as they should be, and why.
    #[must_use]
    pub const fn refused(&self) -> &BTreeMap<PlanId, Refusal> {
        match self.never {}
    }

    /// Attaches to devices that are new, at once, and forgets those that are gone.
    ///
    /// # Errors
    /// [`EbpfError`]; those that could be attached to are.
    pub fn set_devices(&mut self, devices: Arc<Devices>) -> Result<(), EbpfError> {
        drop(devices);
        match self.never {}
    }

    /// What is to be done now and then: called after each sync, and about once a second while
    /// there is nothing else to do. Cheap.
    pub fn housekeep(&mut self, now: Instant) -> Housekeeping {
        let _ = now;
        match self.never {}
    }
}

/// Detaches every program and removes every pin of ours below `bpf_root`. True if anything
/// was there.
///
/// # Errors
/// [`EbpfError`]; what can be removed is, all the same.
pub fn cleanup(bpf_root: &Path) -> Result<bool, EbpfError> {
    match bpf_root.try_exists() {
        Ok(false) => Ok(false),
        Ok(true) => Err(EbpfError::NotInThisBuild),
        Err(source) => Err(EbpfError::Pins {
            path: bpf_root.display().to_string(),
            source,
        }),
    }
}
