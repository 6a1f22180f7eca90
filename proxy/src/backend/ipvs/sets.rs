//! The ipsets: what each is called, what is in it, and how large it is made. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, Protocol};
use switchyard_netlink::ipset::{Entry, IpPort, NAME_BYTES_MAX, SetSpec, SetType};

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
            | Self::HealthCheckNodePort => SetType::ALL_PORTS,
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

    /// Whether rules let packets to its members pass; others refuse or masquerade them.
    pub(super) const fn lets_in(self) -> bool {
        matches!(
            self,
            Self::ClusterIp
                | Self::ExternalIp
                | Self::ExternalIpLocal
                | Self::LoadBalancer
                | Self::HealthCheckNodePort
        )
    }

    /// The set as it is created. It is made larger when it gets more members.
    pub(super) const fn spec(self, family: IpFamily) -> SetSpec {
        SetSpec {
            set_type: self.set_type(),
            family: netlink_family(family),
            max_elements: MEMBERS_AT_FIRST,
            hash_size: HASH_SIZE,
        }
    }
}

/// An address with a port.
pub(super) const fn ip_port(address: IpAddr, protocol: Protocol, port: u16) -> IpPort {
    IpPort {
        address,
        protocol: netlink_protocol(protocol),
        port,
    }
}

/// For the clients of a network.
pub(super) fn with_net(vip: IpPort, clients: IpNet) -> Entry {
    Entry::IpPortNet(vip, clients.trunc())
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
}
