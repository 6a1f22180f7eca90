use std::net::IpAddr;
use std::sync::Arc;

use crate::addresses::LocalAddresses;
use crate::plan::NodePortAddresses;

/// At which addresses node ports are ours. A node port's number alone says nothing: the same
/// port of any other machine is none of our business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortDestinations {
    /// The addresses this node has.
    pub local: Arc<LocalAddresses>,
    /// Which of them accept node ports.
    pub accepted: NodePortAddresses,
    /// The node's own addresses as its Node object says them.
    pub node_ips: Vec<IpAddr>,
    /// Loopback addresses accept node ports too.
    pub localhost: bool,
}

impl NodePortDestinations {
    /// Whether a node port answers at this address of this node.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.local.contains(address)
            && (self.localhost || !address.is_loopback())
            && self.accepted.accepts(address, &self.node_ips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::{AddressInfo, Scope};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn destinations(accepted: NodePortAddresses, localhost: bool) -> NodePortDestinations {
        let info = AddressInfo {
            interface_index: 2,
            scope: Scope::Global,
        };
        let local = ["192.0.2.1", "10.0.0.1", "2001:db8::1", "127.0.0.1", "::1"];
        NodePortDestinations {
            local: Arc::new(local.iter().map(|text| (ip(text), info)).collect()),
            accepted,
            node_ips: vec![ip("192.0.2.1")],
            localhost,
        }
    }

    #[test]
    fn only_addresses_this_node_has() {
        let all = destinations(NodePortAddresses::All, true);
        assert!(all.contains(ip("192.0.2.1")) && all.contains(ip("2001:db8::1")));
        assert!(!all.contains(ip("192.0.2.2")));
        assert!(!all.contains(ip("8.8.8.8")));
    }

    #[test]
    fn only_those_that_accept_node_ports() {
        let primary = destinations(NodePortAddresses::Primary, true);
        assert!(primary.contains(ip("192.0.2.1")));
        assert!(!primary.contains(ip("10.0.0.1")) && !primary.contains(ip("127.0.0.1")));
        let some = destinations(
            NodePortAddresses::Cidrs(vec!["10.0.0.0/8".parse().unwrap()]),
            true,
        );
        assert!(some.contains(ip("10.0.0.1")) && !some.contains(ip("192.0.2.1")));
        assert!(
            some.contains(ip("2001:db8::1")),
            "a family without a network is not restricted"
        );
    }

    #[test]
    fn loopback_only_where_asked_for() {
        for address in ["127.0.0.1", "127.7.7.7", "::1"] {
            assert!(destinations(NodePortAddresses::All, true).contains(ip(address)));
            assert!(!destinations(NodePortAddresses::All, false).contains(ip(address)));
        }
    }
}
