//! The ipsets: what each is called, what is in it, and how large it is made. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, Protocol};
use switchyard_netlink::ipset::{Entry, NAME_BYTES_MAX, SetSpec, SetType};

use super::config::netlink_family;

/// Members a set takes at first, as with the reference. A set that gets more is replaced by a
/// larger one.
pub(super) const MEMBERS_AT_FIRST: u32 = 65_536;
/// Hash buckets at the start, as with the reference.
const HASH_SIZE: u32 = 1024;

/// A set. All but the two NO-LOCAL ones are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Set {
    /// Endpoints of this node, each with itself as client: hairpin.
    LoopBack,
    /// ClusterIPs with their ports.
    ClusterIp,
    /// External IPs with their ports, policy Cluster.
    ExternalIp,
    /// External IPs with their ports, policy Local.
    ExternalIpLocal,
    /// LoadBalancer IPs with their ports, whatever the policy.
    LoadBalancer,
    /// Of those, the ones with policy Local.
    LoadBalancerLocal,
    /// Of those, the ones with source ranges.
    LoadBalancerFirewall,
    /// The ranges.
    LoadBalancerSourceCidr,
    /// LoadBalancer IPs that may be used from themselves: by the node.
    LoadBalancerSourceIp,
    /// Node ports.
    NodePortTcp,
    /// Of those, the ones with policy Local.
    NodePortLocalTcp,
    /// Node ports.
    NodePortUdp,
    /// Of those, the ones with policy Local.
    NodePortLocalUdp,
    /// Node ports at the node's addresses.
    NodePortSctp,
    /// Of those, the ones with policy Local.
    NodePortLocalSctp,
    /// Ports at which load balancers ask for health.
    HealthCheckNodePort,
    /// Addresses on our device.
    IpvsIps,
    /// ClusterIPs with policy Local, which have endpoints but none here. Ours.
    ClusterIpNoLocal,
    /// The same of external and LoadBalancer IPs and node ports. Ours.
    ExternalNoLocal,
}

impl Set {
    /// All of them.
    pub(super) const ALL: [Self; 19] = [
        Self::LoopBack,
        Self::ClusterIp,
        Self::ExternalIp,
        Self::ExternalIpLocal,
        Self::LoadBalancer,
        Self::LoadBalancerLocal,
        Self::LoadBalancerFirewall,
        Self::LoadBalancerSourceCidr,
        Self::LoadBalancerSourceIp,
        Self::NodePortTcp,
        Self::NodePortLocalTcp,
        Self::NodePortUdp,
        Self::NodePortLocalUdp,
        Self::NodePortSctp,
        Self::NodePortLocalSctp,
        Self::HealthCheckNodePort,
        Self::IpvsIps,
        Self::ClusterIpNoLocal,
        Self::ExternalNoLocal,
    ];

    /// The name behind `KUBE-`.
    const fn stem(self) -> &'static str {
        match self {
            Self::LoopBack => "LOOP-BACK",
            Self::ClusterIp => "CLUSTER-IP",
            Self::ExternalIp => "EXTERNAL-IP",
            Self::ExternalIpLocal => "EXTERNAL-IP-LOCAL",
            Self::LoadBalancer => "LOAD-BALANCER",
            Self::LoadBalancerLocal => "LOAD-BALANCER-LOCAL",
            Self::LoadBalancerFirewall => "LOAD-BALANCER-FW",
            Self::LoadBalancerSourceCidr => "LOAD-BALANCER-SOURCE-CIDR",
            Self::LoadBalancerSourceIp => "LOAD-BALANCER-SOURCE-IP",
            Self::NodePortTcp => "NODE-PORT-TCP",
            Self::NodePortLocalTcp => "NODE-PORT-LOCAL-TCP",
            Self::NodePortUdp => "NODE-PORT-UDP",
            Self::NodePortLocalUdp => "NODE-PORT-LOCAL-UDP",
            Self::NodePortSctp => "NODE-PORT-SCTP-HASH",
            Self::NodePortLocalSctp => "NODE-PORT-LOCAL-SCTP-HASH",
            Self::HealthCheckNodePort => "HEALTH-CHECK-NODE-PORT",
            Self::IpvsIps => "IPVS-IPS",
            Self::ClusterIpNoLocal => "CLUSTER-IP-NO-LOCAL",
            Self::ExternalNoLocal => "EXTERNAL-NO-LOCAL",
        }
    }

    /// The name in a family; two of IPv6 are cut where the kernel's room ends, as with the
    /// reference.
    pub(super) fn name(self, family: IpFamily) -> String {
        let mut name = match family {
            IpFamily::V4 => format!("KUBE-{}", self.stem()),
            IpFamily::V6 => format!("KUBE-6-{}", self.stem()),
        };
        name.truncate(NAME_BYTES_MAX);
        name
    }

    /// What its members are.
    pub(super) const fn set_type(self) -> SetType {
        match self {
            Self::LoopBack | Self::LoadBalancerSourceIp => SetType::HashIpPortIp,
            Self::LoadBalancerSourceCidr => SetType::HashIpPortNet,
            Self::IpvsIps => SetType::HashIp,
            Self::NodePortTcp
            | Self::NodePortLocalTcp
            | Self::NodePortUdp
            | Self::NodePortLocalUdp
            | Self::HealthCheckNodePort => SetType::BitmapPort,
            Self::ClusterIp
            | Self::ExternalIp
            | Self::ExternalIpLocal
            | Self::LoadBalancer
            | Self::LoadBalancerLocal
            | Self::LoadBalancerFirewall
            | Self::NodePortSctp
            | Self::NodePortLocalSctp
            | Self::ClusterIpNoLocal
            | Self::ExternalNoLocal => SetType::HashIpPort,
        }
    }

    /// The set as it is created, for at least `members`.
    pub(super) fn spec(self, family: IpFamily, members: usize) -> SetSpec {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        let max_elements = if members > MEMBERS_AT_FIRST {
            members.saturating_mul(2)
        } else {
            MEMBERS_AT_FIRST
        };
        SetSpec {
            set_type: self.set_type(),
            family: netlink_family(family),
            max_elements,
            hash_size: HASH_SIZE,
        }
    }
}

/// An address with a port.
pub(super) fn ip_port(address: IpAddr, protocol: Protocol, port: u16) -> Entry {
    Entry::IpPort(address, netlink_protocol(protocol), port)
}

/// An address with a port, for one client.
pub(super) fn ip_port_ip(
    address: IpAddr,
    protocol: Protocol,
    port: u16,
    client: IpAddr,
) -> Entry {
    Entry::IpPortIp(address, netlink_protocol(protocol), port, client)
}

/// An address with a port, for the clients of a network.
pub(super) fn ip_port_net(
    address: IpAddr,
    protocol: Protocol,
    port: u16,
    clients: IpNet,
) -> Entry {
    let clients = clients.trunc();
    Entry::IpPortNet(
        address,
        netlink_protocol(protocol),
        port,
        clients.addr(),
        clients.prefix_len(),
    )
}

/// The protocol as netlink has it.
pub(super) const fn netlink_protocol(protocol: Protocol) -> switchyard_netlink::Protocol {
    match protocol {
        Protocol::Tcp => switchyard_netlink::Protocol::Tcp,
        Protocol::Udp => switchyard_netlink::Protocol::Udp,
        Protocol::Sctp => switchyard_netlink::Protocol::Sctp,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_fit_and_differ() {
        for family in IpFamily::BOTH {
            let names: BTreeSet<String> = Set::ALL.map(|set| set.name(family)).into();
            assert_eq!(names.len(), Set::ALL.len());
            assert!(names.iter().all(|name| name.len() <= NAME_BYTES_MAX));
        }
        let cut = Set::LoadBalancerSourceCidr.name(IpFamily::V6);
        assert_eq!(cut, "KUBE-6-LOAD-BALANCER-SOURCE-CID");
    }

    #[test]
    fn a_set_is_made_larger_before_it_is_full() {
        let room = |members| Set::ClusterIp.spec(IpFamily::V4, members).max_elements;
        assert_eq!(room(0), 65_536);
        assert_eq!(room(65_536), 65_536);
        assert_eq!(room(70_000), 140_000);
    }
}
