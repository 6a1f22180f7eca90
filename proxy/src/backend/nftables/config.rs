use std::net::IpAddr;

use ipnet::IpNet;
use switchyard_cluster::object::IpFamily;
use switchyard_netlink::Family;

use crate::plan::LocalDetector;

/// What the table of one family depends on besides the plans.
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
    /// The node's addresses that accept node ports; `None`: every local one. Loopback
    /// addresses among them do nothing: the kernel translates nothing that goes to one.
    pub node_port_addresses: Option<Vec<IpAddr>>,
    /// Where ClusterIPs are allocated from (ServiceCIDRs of this family, sorted): what goes to
    /// an address in them that no Service has is dropped.
    pub service_cidrs: Vec<IpNet>,
}

impl Config {
    /// The family as netlink has it.
    pub(super) const fn netlink_family(&self) -> Family {
        match self.family {
            IpFamily::V4 => Family::V4,
            IpFamily::V6 => Family::V6,
        }
    }
}
