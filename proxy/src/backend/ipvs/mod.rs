//! IPVS, by netlink: virtual services for VIPs and node ports, sets of what is to be masqueraded
//! or refused, and a fixed number of iptables rules that match the sets.
//!
//! Device, sets, chains and the mark are those of the reference, so operators find what they
//! know. What is done differently:
//!
//! - One change of endpoints is one message a destination to IPVS, and one for a set. Nothing is
//!   listed for it; every sync period all is read and compared.
//! - What is ours is told from what is others': `docs/ipvs.md` says how. An IPVS service of
//!   somebody else's is never touched.
//! - A destination that goes keeps its connections (weight 0) until they end, also over a
//!   restart of the agent: the kernel is asked for those that wait.
//! - What policies drop is dropped, where the reference falls back to all endpoints.
//!
//! Parts: [`compile`] (plan to services, members and addresses), [`rules`], [`read`],
//! [`difference`], [`apply`] (what changed), [`reconcile`] (everything) and [`ensure`] (the sets'
//! kinds).

mod apply;
mod change;
mod cleanup;
mod compile;
mod config;
mod device;
mod difference;
mod ensure;
mod error;
mod form;
#[cfg(test)]
mod listing;
mod probe;
mod read;
mod reconcile;
mod rules;
mod sets;
#[cfg(test)]
mod simulation;

use std::time::Duration;

use switchyard_cluster::object::IpvsScheduler;

use crate::backend::xtables::Tool;

pub use apply::Ipvs;
pub(in crate::backend) use cleanup::{cleaned_jumps, is_chain_cleaned};
pub use cleanup::{cleanup, kept};
pub use config::{Config, NodeAddresses};
pub use device::device_index;
pub use error::IpvsModeError;

/// Time-outs of connections; zero leaves the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Idle TCP connections.
    pub tcp: Duration,
    /// TCP connections after a FIN.
    pub tcp_fin: Duration,
    /// UDP flows.
    pub udp: Duration,
}

/// Sets the time-outs of connections, which are those of all virtual services of the node.
///
/// # Errors
/// Of the kernel.
pub fn set_timeouts(timeouts: &Timeouts) -> Result<(), IpvsModeError> {
    // The kernel counts in whole seconds; less than one still means "set it".
    let seconds = |timeout: Duration| {
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        (!timeout.is_zero()).then(|| seconds.max(1))
    };
    let wanted = switchyard_netlink::ipvs::Timeouts {
        tcp: seconds(timeouts.tcp),
        tcp_fin: seconds(timeouts.tcp_fin),
        udp: seconds(timeouts.udp),
    };
    if wanted != switchyard_netlink::ipvs::Timeouts::default() {
        switchyard_netlink::ipvs::Ipvs::open()?.set_timeouts(&wanted)?;
    }
    Ok(())
}

/// That the kernel has IPVS and the scheduler that Services get; returns all it has. Modules
/// that are there and not loaded are.
///
/// # Errors
/// What is missing.
pub fn probe(scheduler: IpvsScheduler, tool: &Tool) -> Result<Vec<IpvsScheduler>, IpvsModeError> {
    probe::load(tool)?;
    let has = probe::schedulers()?;
    if has.contains(&scheduler) {
        return Ok(has);
    }
    let names: Vec<&str> = has.iter().map(|scheduler| scheduler.as_str()).collect();
    Err(IpvsModeError::NoScheduler {
        wanted: scheduler,
        has: names.join(", "),
    })
}
