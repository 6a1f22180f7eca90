//! Whether the kernel has IPVS, and which schedulers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use switchyard_cluster::object::IpvsScheduler;
use switchyard_netlink::Protocol;
use switchyard_netlink::ipvs::{Ipvs, IpvsError, ServiceKey};

use super::compile::scheduler_name;
use super::error::IpvsModeError;
use crate::backend::xtables::Tool;

/// Where schedulers are tried, in a network namespace that nobody else is in: an address for
/// documentation (RFC 5737), and the port that the reference tries.
const PROBE: ServiceKey = ServiceKey {
    protocol: Protocol::Tcp,
    address: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 20_000),
};

/// Has the kernel load IPVS, if it is not there: for a rule that matches it, which the kernel
/// does where it would not for being asked by netlink.
///
/// # Errors
/// [`IpvsError::Absent`], if it is not to be had.
pub(super) fn load(tool: &Tool) -> Result<(), IpvsModeError> {
    if matches!(Ipvs::open(), Err(IpvsError::Absent)) {
        if let Err(error) = tool.probe("-m ipvs --ipvs -j RETURN") {
            tracing::debug!(%error, "the kernel was not moved to load IPVS");
        }
        Ipvs::open()?;
    }
    Ok(())
}

/// The schedulers that a virtual service can have. They are tried in a network namespace made
/// for it, so nothing of anybody's is touched; the kernel loads their modules.
///
/// # Errors
/// No IPVS; no such namespace can be made (CAP_SYS_ADMIN).
pub(super) fn schedulers() -> Result<Vec<IpvsScheduler>, IpvsModeError> {
    let probe = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| IpvsModeError::Probe(error.into()))?;
        let found = Ipvs::open()?.schedulers(&PROBE)?;
        let all = IpvsScheduler::ALL.into_iter();
        Ok(all
            .filter(|scheduler| found.contains(&scheduler_name(*scheduler)))
            .collect())
    };
    thread::Builder::new()
        .name("ipvs-probe".to_owned())
        .spawn(probe)
        .map_err(IpvsModeError::Probe)?
        .join()
        .map_err(|_| IpvsModeError::Probe(io::Error::other("the thread ended early")))?
}
