use std::io;
use std::net::IpAddr;

use switchyard_cluster::object::IpvsScheduler;
use switchyard_netlink::ipset::IpsetError;
use switchyard_netlink::ipvs::{ChangeError, IpvsError};

use crate::backend::xtables::ToolError;
use crate::rtnetlink::RtnetlinkError;

/// Why ipvs mode could not do something.
#[derive(Debug, thiserror::Error)]
pub enum IpvsModeError {
    /// IPVS itself.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    /// A set.
    #[error(transparent)]
    Ipset(#[from] IpsetError),
    /// A set of our name is of another kind, and not only our rules use it.
    #[error(
        "{source}: it is not made anew, as {others} rules or sets of others use it \
         (`ipset list -t {name}` counts all, `iptables-save | grep {name}` has those of iptables)"
    )]
    SetHeld {
        /// The set.
        name: String,
        /// How many rules or sets that are not ours use it.
        others: usize,
        /// Which kinds.
        source: IpsetError,
    },
    /// The tools of iptables.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Rules cannot match sets.
    #[error("rules can't match ipsets here (module xt_set): {0}")]
    NoSetMatch(ToolError),
    /// The list of addresses or devices.
    #[error(transparent)]
    Rtnetlink(#[from] RtnetlinkError),
    /// No dummy device.
    #[error("the device kube-ipvs0 can't be made or removed (module dummy): {0}")]
    NoDevice(io::Error),
    /// A device of that name is something else.
    #[error("the device kube-ipvs0 is no dummy device; rename or remove it")]
    OtherDevice,
    /// An address was refused.
    #[error(
        "the address {} of kube-ipvs0: {source}",
        address.map_or_else(|| "(unknown)".to_owned(), |address| address.to_string())
    )]
    Address {
        /// The address.
        address: Option<IpAddr>,
        /// What the kernel said.
        source: io::Error,
    },
    /// Some changes to virtual services were refused, of which this is the first.
    #[error("{failed} of {of} changes to virtual services were refused; the first: {first}")]
    Refused {
        /// How many.
        failed: usize,
        /// Of how many.
        of: usize,
        /// The first.
        first: ChangeError,
    },
    /// The kernel lacks the scheduler.
    #[error("this kernel has no IPVS scheduler {wanted} (module ip_vs_{wanted}); it has {has}")]
    NoScheduler {
        /// The one that was wanted.
        wanted: IpvsScheduler,
        /// Those it has.
        has: String,
    },
    /// The thread that looks for schedulers.
    #[error("the schedulers of this kernel can't be found out: {0}")]
    Probe(io::Error),
}
