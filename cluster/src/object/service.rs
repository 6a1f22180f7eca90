use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{IpvsScheduler, ObjectName};

/// A Service, as far as anything programs or answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.creationTimestamp` in seconds since 1970, 0 where there is none. The older
    /// of two Services that claim the same address and port keeps it.
    pub created_unix_s: i64,
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.clusterIPs` (or `spec.clusterIP`), one an IP family; empty when headless or
    /// not yet allocated.
    pub cluster_ips: Box<[IpAddr]>,
    /// `spec.clusterIP` is `None`: it has no address of its own, its endpoints' count.
    pub headless: bool,
    /// `spec.externalName`, as written (with or without the dot at the end), of a Service of
    /// type ExternalName.
    pub external_name: Option<Arc<str>>,
    /// `spec.externalIPs`.
    pub external_ips: Box<[IpAddr]>,
    /// `status.loadBalancer.ingress` entries that carry an IP.
    pub load_balancer_ips: Box<[LoadBalancerIp]>,
    /// `spec.ports`.
    pub ports: Box<[ServicePort]>,
    /// ClientIP affinity and its time-out in seconds (10,800 where the object names none);
    /// `None` without affinity.
    pub affinity_timeout_s: Option<u32>,
    /// `spec.internalTrafficPolicy`: applies to ClusterIPs.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: applies to node ports, external and LoadBalancer IPs.
    pub external_policy: TrafficPolicy,
    /// `spec.loadBalancerSourceRanges`: `None` where the object gives none. Ranges that
    /// could not be read are left out, so `Some` and empty lets nobody in.
    pub source_ranges: Option<Box<[IpNet]>>,
    /// `spec.healthCheckNodePort`, where not 0.
    pub health_check_node_port: Option<u16>,
    /// The label `service.kubernetes.io/service-proxy-name` is present, with any value:
    /// somebody else proxies this Service.
    pub proxied_elsewhere: bool,
    /// The annotation `switchyard.dev/ipvs-scheduler`.
    pub ipvs_scheduler: Option<IpvsScheduler>,
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Reached at its ClusterIPs.
    ClusterIp,
    /// Also reached at a port of every node.
    NodePort,
    /// Also reached at addresses of a load balancer.
    LoadBalancer,
    /// A DNS alias; never proxied.
    ExternalName,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The name, `""` where there is none.
    pub name: Arc<str>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port at the ClusterIP, external and LoadBalancer IPs.
    pub port: u16,
    /// The port at the nodes, where one is allocated.
    pub node_port: Option<u16>,
}

/// One address of `status.loadBalancer.ingress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadBalancerIp {
    /// The address.
    pub address: IpAddr,
    /// `ipMode: Proxy`: the load balancer delivers to node ports or pods, so the address
    /// must not be short-circuited on the node (KEP-1860).
    pub proxied: bool,
}

/// Which endpoints traffic of one direction may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Any endpoint of the cluster.
    #[default]
    Cluster,
    /// Only endpoints on the node that has the packet.
    Local,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Lower case, as iptables, nft and the chain-name hash spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of a network.
    #[must_use]
    pub const fn of_net(net: IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// `IPv4` or `IPv6`, as objects and metric labels spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
