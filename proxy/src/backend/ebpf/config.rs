use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use switchyard_cluster::object::IpFamily;

use crate::addresses::LocalAddresses;
use crate::devices::Devices;
use crate::plan::NodeContext;
use crate::stations::Stations;

/// What maps and programs depend on besides the plans.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node.
    pub node: NodeContext,
    /// The IP families it has, IPv4 first.
    pub families: Vec<IpFamily>,
    /// The addresses of its interfaces.
    pub local_addresses: Arc<LocalAddresses>,
    /// The devices that programs attach to.
    pub devices: Arc<Devices>,
    /// What is behind which port of its bridges; only looked at where programs forward.
    pub stations: Arc<Stations>,
    /// How long a flow may be idle.
    pub conntrack: ConntrackTimeouts,
    /// Sockets of pods are left alone; their traffic is translated at their devices.
    pub host_namespace_only: bool,
    /// Who forwards packets that were translated at devices.
    pub forwarding: Forwarding,
}

/// Who forwards packets that were translated at devices, where they are not for the node itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// The kernel's stack, with its FORWARD rules and connection tracking.
    #[default]
    Stack,
    /// The programs themselves, by the kernel's routes, past all that.
    Direct,
}

impl Forwarding {
    /// From its name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "stack" => Some(Self::Stack),
            "direct" => Some(Self::Direct),
            _ => None,
        }
    }
}

/// How long a flow may be idle before it is forgotten; zero is the backend's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackTimeouts {
    /// TCP, established.
    pub tcp_established: Duration,
    /// TCP, one end closed.
    pub tcp_close_wait: Duration,
    /// UDP, one direction seen.
    pub udp: Duration,
    /// UDP, both directions seen.
    pub udp_stream: Duration,
}

/// Where things are in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The cgroup2 directory that socket programs attach to.
    pub cgroup_root: PathBuf,
    /// The directory, on a bpf file system, that maps and links are pinned in.
    pub bpf_root: PathBuf,
}
