use std::net::IpAddr;

use switchyard_cluster::object::IpFamily;

use crate::plan::LocalDetector;

/// What the rules of one family depend on besides the plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The IP family.
    pub family: IpFamily,
    /// The mark bit that stands for "masquerade this", as a mask.
    pub masquerade_mark: u32,
    /// Masquerade everything sent to a ClusterIP.
    pub masquerade_all: bool,
    /// How traffic of local pods is recognised.
    pub detector: LocalDetector,
    /// Node ports also answer at 127.0.0.0/8 (IPv4 only: no rule can do it for `::1`).
    pub localhost_node_ports: bool,
    /// The local addresses that accept node ports; `None` is all.
    pub node_port_addresses: Option<Vec<IpAddr>>,
    /// Drop forwarded packets that conntrack calls INVALID (not when
    /// `nf_conntrack_tcp_be_liberal` is set).
    pub drop_invalid: bool,
    /// The accounting objects of [`super::nfacct_names`] exist and can be matched.
    pub nfacct: bool,
    /// Rules of single endpoints say in a comment whose they are. In large clusters they do
    /// not, as with the reference: comments are more than half of what such rules weigh, and
    /// the legacy tools copy all of it at every change.
    pub endpoint_comments: bool,
    /// The ipset that holds every ClusterIP, where the kernel has ipsets.
    pub cluster_ip_set: Option<String>,
}

impl Config {
    /// The mark as `-m mark` and `-j MARK` print it.
    pub(super) fn mark(&self) -> String {
        format!("{mark:#x}/{mark:#x}", mark = self.masquerade_mark)
    }

    /// An address as a rule prints it: with the length of its full prefix.
    pub(super) fn host(&self, address: IpAddr) -> String {
        match self.family {
            IpFamily::V4 => format!("{address}/32"),
            IpFamily::V6 => format!("{address}/128"),
        }
    }

    /// The local addresses that rules let accept node ports, where not all do.
    pub(super) fn node_port_hosts(&self) -> Option<impl Iterator<Item = IpAddr>> {
        let addresses = self.node_port_addresses.as_ref()?;
        let loopback = self.localhost_node_ports;
        Some(
            addresses
                .iter()
                .copied()
                .filter(move |address| !address.is_loopback() || loopback),
        )
    }

    /// The match that keeps loopback addresses out of rules for every local address, where
    /// they are to be left alone.
    pub(super) const fn not_loopback(&self) -> &'static str {
        match self.family {
            IpFamily::V4 if self.localhost_node_ports => "",
            IpFamily::V4 => "! -d 127.0.0.0/8 ",
            IpFamily::V6 => "! -d ::1/128 ",
        }
    }

    /// A comment in a rule of a single endpoint, with a blank behind it.
    pub(super) fn endpoint_comment(&self, text: &str) -> String {
        if self.endpoint_comments {
            format!("-m comment --comment \"{text}\" ")
        } else {
            String::new()
        }
    }

    /// How a packet is refused.
    pub(super) const fn reject(&self) -> &'static str {
        match self.family {
            IpFamily::V4 => "REJECT --reject-with icmp-port-unreachable",
            IpFamily::V6 => "REJECT --reject-with icmp6-port-unreachable",
        }
    }
}
