use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use switchyard_cluster::object::IpFamily;

/// What policy needs to know of the node it runs on and of how the agent was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeContext {
    /// The node's name as endpoints carry it.
    pub name: Arc<str>,
    /// The node's zone, once the Node object says one.
    pub zone: Option<Arc<str>>,
    /// The node's own addresses, primary first, as its Node object (or `--bind-address`)
    /// says them.
    pub ips: Vec<IpAddr>,
    /// How traffic of local pods is told from other traffic.
    pub detector: LocalDetector,
    /// Masquerade everything sent to a ClusterIP.
    pub masquerade_all: bool,
    /// Which of the node's addresses accept node ports.
    pub node_port_addresses: NodePortAddresses,
    /// Node ports also answer at the loopback addresses.
    pub localhost_node_ports: bool,
}

/// How traffic of pods on this node is recognised (`detectLocalMode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalDetector {
    /// By source address. The first network of each family counts; a family without one
    /// has no detector.
    Cidrs {
        /// Network of local pods, IPv4.
        v4: Option<IpNet>,
        /// Network of local pods, IPv6.
        v6: Option<IpNet>,
    },
    /// By the bridge that all local pods are behind.
    Bridge(String),
    /// By the first letters of the names of the pods' interfaces.
    InterfacePrefix(String),
}

impl LocalDetector {
    /// No detector: nothing is known to be local.
    pub const NONE: Self = Self::Cidrs { v4: None, v6: None };

    /// Whether there is a way to tell in this family.
    #[must_use]
    pub const fn is_implemented(&self, family: IpFamily) -> bool {
        match self {
            Self::Cidrs { .. } => self.cidr(family).is_some(),
            Self::Bridge(_) | Self::InterfacePrefix(_) => true,
        }
    }

    /// The network of local pods in this family, where that is how they are told.
    #[must_use]
    pub const fn cidr(&self, family: IpFamily) -> Option<IpNet> {
        match (self, family) {
            (Self::Cidrs { v4, .. }, IpFamily::V4) => *v4,
            (Self::Cidrs { v6, .. }, IpFamily::V6) => *v6,
            _ => None,
        }
    }
}

/// Which addresses of the node accept node ports (`nodePortAddresses`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every local address.
    All,
    /// The addresses of the Node object only.
    Primary,
    /// Local addresses within these networks. A family without any network in the list
    /// has no restriction.
    Cidrs(Vec<IpNet>),
}

impl NodePortAddresses {
    /// Whether a local address accepts node ports, `node_ips` being those of the Node object.
    #[must_use]
    pub fn accepts(&self, address: IpAddr, node_ips: &[IpAddr]) -> bool {
        match self {
            Self::All => true,
            Self::Primary => node_ips.contains(&address),
            Self::Cidrs(nets) => {
                let family = IpFamily::of(address);
                self.is_all(family) || nets.iter().any(|net| net.contains(&address))
            }
        }
    }

    /// Whether every local address of this family accepts node ports.
    #[must_use]
    pub fn is_all(&self, family: IpFamily) -> bool {
        match self {
            Self::All => true,
            Self::Primary => false,
            Self::Cidrs(nets) => {
                let mut of_family = nets
                    .iter()
                    .filter(|net| IpFamily::of_net(**net) == family)
                    .peekable();
                of_family.peek().is_none() || of_family.any(|net| net.prefix_len() == 0)
            }
        }
    }
}
