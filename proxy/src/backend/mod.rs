//! One folder for each way to program the kernel, all with the same parts: *compile* (plan to
//! kernel form, pure), *read* (kernel to kernel form) and *apply* (the difference, as one
//! batch).

pub mod ebpf;
mod holders;
pub mod iptables;
pub mod ipvs;
pub mod nftables;
mod rules;
pub mod xtables;

pub use rules::remove_rules_of_all_modes;

use std::fmt;

/// Which way is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Rules of iptables.
    Iptables,
    /// Virtual services of IPVS.
    Ipvs,
    /// A table of nftables.
    Nftables,
    /// Programs and maps of eBPF.
    Ebpf,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Iptables, Self::Ipvs, Self::Nftables, Self::Ebpf];

    /// As `--proxy-mode` and `/proxyMode` call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
            Self::Ebpf => "ebpf",
        }
    }

    /// What stays in the kernel when the agent ends.
    #[must_use]
    pub const fn what_stays(self) -> &'static str {
        match self {
            Self::Iptables => "rules",
            Self::Ipvs => "virtual services and rules",
            Self::Nftables => "tables",
            Self::Ebpf => "programs and maps",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What programs the kernel.
#[derive(Debug)]
pub enum Backend {
    /// The rules of each IP family, one after the other.
    Iptables(Vec<iptables::Rules>),
    /// The virtual services of each IP family, one after the other.
    Ipvs(Vec<ipvs::Ipvs>),
    /// The tables of all IP families.
    Nftables(Box<nftables::Tables>),
    /// Maps and programs, of all families at once.
    Ebpf(Box<ebpf::Ebpf>),
}

impl Backend {
    /// Which way this is.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        match self {
            Self::Iptables(_) => Mode::Iptables,
            Self::Ipvs(_) => Mode::Ipvs,
            Self::Nftables(_) => Mode::Nftables,
            Self::Ebpf(_) => Mode::Ebpf,
        }
    }
}

/// What a sync did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was written.
    pub written: Written,
    /// Chains, elements, programs, or parts of IPVS, that were not as they should be (only found by
    /// reconciling).
    pub repaired: usize,
}

/// How much was written, in what each way writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Rules of iptables, by table.
    Rules(xtables::RuleCounts),
    /// Elements of maps: written and deleted.
    Elements(usize),
    /// Virtual services, destinations, set members and addresses: written and deleted.
    Changes(usize),
    /// Sets, chains, rules and elements of nftables: written and deleted.
    Objects(usize),
}

/// A plan the kernel did not take; what it had before stays as far as it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was said about it.
    pub message: String,
}

/// Why a sync failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// iptables.
    #[error(transparent)]
    Iptables(#[from] xtables::ToolError),
    /// IPVS.
    #[error(transparent)]
    Ipvs(#[from] ipvs::IpvsModeError),
    /// nftables.
    #[error(transparent)]
    Nftables(#[from] nftables::NftablesModeError),
    /// eBPF.
    #[error(transparent)]
    Ebpf(#[from] ebpf::EbpfError),
}
