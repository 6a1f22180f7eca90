/// How the operator wants the kernel programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// By iptables.
    Iptables,
    /// By IPVS where the machine has it, else by nftables or iptables.
    Ipvs,
    /// By nftables, and by nothing else.
    Nftables,
    /// By eBPF, and by nothing else.
    Ebpf,
    /// By eBPF where the machine has all that it takes, else by nftables or iptables.
    Auto,
}

impl ProxyMode {
    /// From its name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "iptables" => Some(Self::Iptables),
            "ipvs" => Some(Self::Ipvs),
            "nftables" => Some(Self::Nftables),
            "ebpf" => Some(Self::Ebpf),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }
}
