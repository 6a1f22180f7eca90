use std::io;

use switchyard_cluster::source::SourceError;

use crate::backend::ebpf::EbpfError;
use crate::backend::ipvs::IpvsModeError;
use crate::backend::nftables::NftablesModeError;
use crate::backend::xtables::ToolError;
use crate::health::BindError;
use crate::metrics::MetricsError;

/// Why the agent could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not root, or without the capability.
    #[error("changing packet filter rules needs CAP_NET_ADMIN: run as root")]
    NotPrivileged,
    /// No tools for either family.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The machine lacks what ebpf mode needs, which is all named.
    #[error(
        "--proxy-mode=ebpf needs what this machine lacks: {0}: use --proxy-mode=iptables, or \
         auto, which takes what works"
    )]
    NoEbpf(String),
    /// The machine has all that ebpf mode needs, and still it can't be started.
    #[error("--proxy-mode=ebpf can't be started: {0}")]
    Ebpf(EbpfError),
    /// The machine lacks what nftables mode needs.
    #[error(
        "--proxy-mode=nftables can't be started: {0}: use --proxy-mode=iptables, or auto, which \
         takes what works"
    )]
    Nftables(NftablesModeError),
    /// IPVS is there, and can't do what is wanted.
    #[error("--proxy-mode=ipvs can't be started: {0}")]
    Ipvs(IpvsModeError),
    /// Virtual services, sets, rules or the device can't be removed.
    #[error("what ipvs mode left can't all be removed: {0}")]
    IpvsCleanup(IpvsModeError),
    /// Tables can't be removed.
    #[error("what nftables mode left can't all be removed: {0}")]
    NftablesCleanup(NftablesModeError),
    /// Programs and maps can't be removed.
    #[error("what ebpf mode left can't all be removed: {0}")]
    EbpfCleanup(EbpfError),
    /// The machine has what no mode needs.
    #[error(
        "no proxy mode works on this machine; ebpf: {ebpf}; nftables: {nftables}; iptables: \
         {iptables}"
    )]
    NoMode {
        /// Why not ebpf.
        ebpf: String,
        /// Why not nftables.
        nftables: String,
        /// Why not iptables.
        iptables: Box<StartError>,
    },
    /// The source of the cluster's objects can't be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A metric is registered twice: a mistake in the program.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A server's address can't be had, and `bindAddressHardFail` says that this is the end.
    #[error("{0}: ending, since bindAddressHardFail is set")]
    Bind(#[from] BindError),
    /// The system refused something basic.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that writes rules died.
    #[error("the thread that writes rules ended: {0}")]
    Worker(String),
}

pub(super) const fn system(what: &'static str, source: io::Error) -> StartError {
    StartError::System { what, source }
}
