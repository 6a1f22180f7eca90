use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, IpvsScheduler};
use switchyard_netlink::Family;

use crate::addresses::{LocalAddresses, Scope};
use crate::plan::LocalDetector;

/// What the kernel form of one family depends on besides the plans.
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
    /// The node's addresses that have a virtual service for each node port.
    pub node_addresses: Vec<IpAddr>,
    /// Node ports are accepted at these addresses only, not at every local one.
    pub node_ports_are_restricted: bool,
    /// All addresses on other interfaces than ours. A VIP among them is not bound once more.
    pub held_elsewhere: Arc<HashSet<IpAddr>>,
    /// The scheduler of Services that ask for none.
    pub scheduler: IpvsScheduler,
    /// Those that the kernel has. A Service that asks for another gets the one above.
    pub available: Arc<[IpvsScheduler]>,
    /// Virtual services at these addresses are never deleted (`excludeCIDRs`).
    pub excluded: Vec<IpNet>,
}

/// The node's own addresses: those that are not on our device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Those that node ports can be had at. Loopback addresses are not among them, since the
    /// kernel translates nothing that goes to one, nor are those of single links.
    pub routable: Vec<IpAddr>,
    /// All of them.
    pub all: HashSet<IpAddr>,
}

impl NodeAddresses {
    /// Of all local addresses, those that are not on the interface `ours`.
    #[must_use]
    pub fn of(local: &LocalAddresses, ours: Option<u32>) -> Self {
        let mut addresses = Self::default();
        for (address, info) in local.iter() {
            if Some(info.interface_index) == ours {
                continue;
            }
            addresses.all.insert(address);
            if info.scope == Scope::Global && !address.is_loopback() {
                addresses.routable.push(address);
            }
        }
        addresses
    }
}

impl Config {
    /// The same with what other interfaces are known to have now.
    pub(super) fn with_held(mut self, elsewhere: HashSet<IpAddr>) -> Self {
        self.node_addresses
            .retain(|address| elsewhere.contains(address));
        if *self.held_elsewhere != elsewhere {
            self.held_elsewhere = Arc::new(elsewhere);
        }
        self
    }

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

    /// Whether a VIP is bound to our device.
    pub(super) fn binds(&self, vip: IpAddr) -> bool {
        !self.held_elsewhere.contains(&vip)
    }

    /// The scheduler of a Service that asks for this one, or for none.
    pub(super) fn scheduler_for(&self, asked: Option<IpvsScheduler>) -> IpvsScheduler {
        asked
            .filter(|asked| self.available.contains(asked))
            .unwrap_or(self.scheduler)
    }

    /// Whether virtual services at this address are left alone.
    pub(super) fn is_excluded(&self, address: IpAddr) -> bool {
        self.excluded.iter().any(|net| net.contains(&address))
    }
}

/// The family as netlink has it.
pub(super) const fn netlink_family(family: IpFamily) -> Family {
    match family {
        IpFamily::V4 => Family::V4,
        IpFamily::V6 => Family::V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::AddressInfo;

    #[test]
    fn what_is_on_our_device_is_no_address_of_the_node() {
        let info = |interface_index, scope| AddressInfo {
            interface_index,
            scope,
        };
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let local: LocalAddresses = [
            (ip("127.0.0.1"), info(1, Scope::Host)),
            (ip("192.0.2.1"), info(2, Scope::Global)),
            (ip("fe80::1"), info(2, Scope::Link)),
            (ip("10.96.0.1"), info(7, Scope::Global)),
        ]
        .into_iter()
        .collect();
        let node = NodeAddresses::of(&local, Some(7));
        assert_eq!(node.routable, [ip("192.0.2.1")]);
        assert_eq!(node.all.len(), 3);
        assert_eq!(NodeAddresses::of(&local, None).all.len(), 4);
    }
}
