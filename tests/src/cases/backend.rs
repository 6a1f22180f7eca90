//! The backends a case can run on.

use std::path::Path;

use anyhow::Result;

use crate::testbed::{IptablesTool, ProxyOptions, Testbed};

/// A backend: how the proxy is started to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// For reports.
    pub name: &'static str,
    /// `--proxy-mode`.
    pub mode: &'static str,
    /// The iptables tool in its `PATH`; none: there is no program at all in its `PATH`.
    pub tool: Option<IptablesTool>,
    /// Further flags that make it this backend.
    pub flags: &'static [&'static str],
}

impl Backend {
    /// Rules in the kernel's nf_tables, written by iptables.
    pub const IPTABLES_NFT: Self = Self {
        name: "iptables over iptables-nft",
        mode: "iptables",
        tool: Some(IptablesTool::Nft),
        flags: &[],
    };
    /// Rules in the kernel's x_tables.
    pub const IPTABLES_LEGACY: Self = Self {
        name: "iptables over iptables-legacy",
        mode: "iptables",
        tool: Some(IptablesTool::Legacy),
        flags: &[],
    };
    /// Virtual services of the kernel's IPVS, with sets and rules.
    pub const IPVS: Self = Self {
        name: "ipvs",
        mode: "ipvs",
        tool: Some(IptablesTool::Nft),
        flags: &[],
    };
    /// The same, its rules written by iptables-legacy.
    pub const IPVS_LEGACY: Self = Self {
        name: "ipvs over iptables-legacy",
        tool: Some(IptablesTool::Legacy),
        ..Self::IPVS
    };
    /// The table that the kernel's nf_tables holds, written without any program. Node ports are
    /// accepted at all addresses, as the case tables expect.
    pub const NFTABLES: Self = Self {
        name: "nftables",
        mode: "nftables",
        tool: None,
        flags: &["--nodeport-addresses=0.0.0.0/0,::/0"],
    };
    /// Programs at the sockets of node1 and its pods, and at node1's devices.
    pub const EBPF: Self = Self {
        name: "ebpf",
        mode: "ebpf",
        tool: None,
        flags: &[],
    };
    /// The same, past node1's own stack.
    pub const EBPF_DIRECT: Self = Self {
        name: "ebpf, direct",
        flags: &["--ebpf-forwarding=direct"],
        ..Self::EBPF
    };

    /// The backend that uses this tool.
    pub fn of_tool(tool: IptablesTool) -> Self {
        match tool {
            IptablesTool::Nft => Self::IPTABLES_NFT,
            IptablesTool::Legacy => Self::IPTABLES_LEGACY,
        }
    }

    /// Whether every Service has rules of its own.
    pub fn has_rules_for_each(self) -> bool {
        self == Self::IPTABLES_NFT || self == Self::IPTABLES_LEGACY
    }

    /// Whether Services are virtual services of IPVS.
    pub fn is_ipvs(self) -> bool {
        self.mode == "ipvs"
    }

    /// Whether the sockets of node1 and its pods are translated, in place of their packets.
    pub fn is_at_the_socket(self) -> bool {
        self.mode == "ebpf"
    }

    /// The usual proxy of node1 with this backend.
    ///
    /// # Errors
    /// There is no binary, or the machine lacks something the backend needs.
    pub fn options(self, bed: &Testbed, manifests: &Path) -> Result<ProxyOptions> {
        let mut options = ProxyOptions::new(bed, manifests, self.mode)?;
        options.tool = self.tool;
        options.flags = self.flags.iter().map(|flag| (*flag).to_owned()).collect();
        if self.tool.is_none() {
            let nothing = bed.work_dir().join("no-programs");
            std::fs::create_dir_all(&nothing)?;
            options.path = Some(nothing);
        }
        Ok(options)
    }
}
