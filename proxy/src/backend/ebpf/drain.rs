//! Leaving ebpf mode: what flows through devices goes on while another mode takes what is new.
//!
//! Programs that know no Service take the place of those at the devices. They translate what FLOWS
//! remembers, and nothing else, until that is over. Nothing is left at sockets: connections made
//! there have no need of programs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchyard_datapath::layout::Address;

use super::attach::{Attached, detach_sockets, is_attached};
use super::compile::compile;
use super::flows::{Flows, Pressure};
use super::former::Former;
use super::kept::Kept;
use super::live::{Live, StepError};
use super::pins::Pins;
use super::places::Places;
use super::shared::monotonic_ns;
use super::tables::Sizes;
use super::{Config, ConntrackTimeouts, EbpfError, features};
use crate::plan::ServicePlan;

/// A UDP flow that never pauses would never end; so long it may go on. Then it gets an endpoint anew.
const UDP_MAX: Duration = Duration::from_secs(30);

/// Programs that end what the mode has begun.
#[derive(Debug)]
pub struct Drain {
    flows: Flows,
    places: Places,
    timeouts: ConntrackTimeouts,
    since: Instant,
}

impl Drain {
    /// Has what an earlier run pinned below `bpf_root` begin nothing new, and leaves all that it has
    /// begun. `None` where nothing of ours is attached to devices.
    ///
    /// # Errors
    /// [`EbpfError`].
    pub fn begin(
        bpf_root: &Path,
        config: &Config,
        plans: &[Arc<ServicePlan>],
    ) -> Result<Option<Self>, EbpfError> {
        if !is_attached(bpf_root) {
            return Ok(None);
        }
        let pins = Pins::open(bpf_root)?;
        let features = features::features();
        let mut attached = Attached::none(PathBuf::new(), pins.clone(), features.tcx);
        let addresses = addresses(plans);
        let needed = Sizes {
            services: 1,
            slots: 16,
            frontends: count(addresses.len() + config.local_addresses.len()),
            ranges: 1,
        };
        let former = Former::find(bpf_root, &pins)?;
        let mut live = Live::load(&pins, needed, &features, config.forwarding)?;
        let mut flows = Flows::of(&mut live.loaded)?;
        let carry_over = |flows: &mut Flows| match &former {
            Some(former) => former.copy_flows(flows),
            None => Ok(()),
        };
        carry_over(&mut flows)?;
        // Connections that rules have begun before ebpf mode go on by themselves.
        Kept::default().become_those(&mut flows, &HashSet::new())?;
        let mut known = flows.sweep(
            monotonic_ns(),
            &config.conntrack,
            Pressure::Draining,
            |_, _, _| false,
        )?;
        known.vips.extend(addresses);
        let host_cookie = 0; // of use at sockets only
        live.write_settings(config, host_cookie, true)
            .map_err(|error| match error {
                StepError::Failed(error) => error,
                StepError::NoRoom => EbpfError::Full {
                    what: "slots",
                    needed: needed.slots.into(),
                    limit: live.tables.sizes().slots.into(),
                },
            })?;
        live.tables.drain(&known.vips)?;
        let mut places = Places::none();
        places.follow(&flows)?;
        attached.attach_devices(&mut live.loaded, &config.devices)?;
        detach_sockets(&pins);
        // What began while the old programs were still there.
        carry_over(&mut flows)?;
        // Programs stay where they are, with their maps, when what loaded them is gone.
        Ok(Some(Self {
            flows,
            places,
            timeouts: config.conntrack,
            since: Instant::now(),
        }))
    }

    /// Forgets flows that are over; says how many entries of others are left.
    ///
    /// # Errors
    /// [`EbpfError`]; it goes on all the same.
    pub fn step(&mut self) -> Result<usize, EbpfError> {
        let is_late = self.since.elapsed() > UDP_MAX;
        let swept = self.flows.sweep(
            monotonic_ns(),
            &self.timeouts,
            Pressure::Draining,
            |_, _, _| is_late,
        )?;
        self.places.follow(&self.flows)?;
        Ok(swept.entries)
    }
}

/// The addresses that flows may have been made to.
fn addresses(plans: &[Arc<ServicePlan>]) -> Vec<Address> {
    let compiled = plans.iter().filter_map(|plan| compile(plan).ok());
    let mut addresses: Vec<Address> = compiled
        .flat_map(|compiled| compiled.addresses)
        .map(|(address, _)| address)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX / 4)
}
