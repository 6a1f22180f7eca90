//! What the kernel is to hold: chains with their rules, and elements of the sets and maps that
//! all Services share. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use switchyard_cluster::object::Protocol;

/// One thing a rule looks at or does, in order; a match that does not hold ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// The first packet of a connection.
    NewConnection,
    /// Its destination was translated.
    DestinationTranslated,
    /// The destination is an address of the node.
    ToNode,
    /// The source is an address of the node.
    FromNode,
    /// The source is (or, false, is not) within the network.
    Source(bool, IpNet),
    /// The destination is (or, false, is not) within the network.
    Destination(bool, IpNet),
    /// It came (or, false, did not come) in by the interface of this name.
    Interface(bool, String),
    /// It came (or, false, did not come) in by an interface whose name begins so.
    InterfacePrefix(bool, String),
    /// The destination is in the set.
    DestinationIn(Shared),
    /// Source, destination, protocol and port are in the set of hairpin connections.
    IsHairpin,
    /// The source is among the clients that a set remembers.
    RememberedIn(Arc<str>),
    /// The mark has this bit.
    Marked(u32),
    /// The protocol.
    Protocol(Protocol),
    /// One chance in so many.
    OneIn(u32),
    /// Sets the bit of the mark.
    Mark(u32),
    /// Flips the bit of the mark.
    Unmark(u32),
    /// Remembers the source in the set for so many seconds from now.
    Remember(Arc<str>, u32),
    /// Looks up what is to be done with this destination, and does it.
    Verdict(Shared),
    /// The source becomes an address of the node.
    Masquerade,
    /// The destination becomes this one.
    Translate(SocketAddr),
    /// The destination becomes one of those that the map has for the Service, by chance.
    TranslateByMap {
        /// The map.
        map: Shared,
        /// What stands for the Service in it.
        service: ServiceKey,
        /// How many there are.
        count: u32,
    },
    /// The destination becomes one of those that the map of so many endpoints has for it, by
    /// chance.
    TranslateByVip(u8),
    /// To the chain, and back.
    Jump(Arc<str>),
    /// To the chain.
    Goto(Arc<str>),
    /// Back.
    Return,
    /// Lost without a word.
    Drop,
    /// Refused: port unreachable.
    Reject,
}

/// What stands for a Service port in maps of endpoints: its ClusterIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ServiceKey {
    pub(super) address: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Rule {
    pub(super) statements: Vec<Statement>,
    pub(super) comment: Option<Arc<str>>,
}

impl Rule {
    pub(super) fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self {
            statements: statements.into(),
            comment: None,
        }
    }

    pub(super) fn with_comment(mut self, comment: impl Into<Arc<str>>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

/// A chain that rules lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: Arc<str>,
    pub(super) rules: Vec<Rule>,
}

/// A set or map that all Services share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Shared {
    /// ClusterIPs.
    ClusterIps,
    /// The node's addresses that accept node ports, where not all do.
    NodePortIps,
    /// An endpoint on this node as source and as destination.
    HairpinConnections,
    /// VIPs that drop or refuse.
    NoEndpointServices,
    /// Node ports that drop or refuse.
    NoEndpointNodePorts,
    /// VIPs with source ranges, to the chain that knows them.
    FirewallIps,
    /// VIPs, to their chains.
    ServiceIps,
    /// Node ports, to their chains.
    ServiceNodePorts,
    /// Endpoints of Services that have many.
    ServiceEndpoints,
    /// Endpoints on this node, of Services that have many there.
    LocalEndpoints,
    /// Endpoints of VIPs that have so many, at most [`FEW`].
    EndpointsOf(u8),
}

/// So many endpoints are few: plain Services that have no more are in maps alone.
pub(super) const FEW: usize = 8;

impl Shared {
    /// All of them.
    pub(super) const ALL: [Self; 18] = [
        Self::ClusterIps,
        Self::NodePortIps,
        Self::HairpinConnections,
        Self::NoEndpointServices,
        Self::NoEndpointNodePorts,
        Self::FirewallIps,
        Self::ServiceIps,
        Self::ServiceNodePorts,
        Self::ServiceEndpoints,
        Self::LocalEndpoints,
        Self::EndpointsOf(1),
        Self::EndpointsOf(2),
        Self::EndpointsOf(3),
        Self::EndpointsOf(4),
        Self::EndpointsOf(5),
        Self::EndpointsOf(6),
        Self::EndpointsOf(7),
        Self::EndpointsOf(8),
    ];

    /// Names of the maps of few endpoints.
    const FEW_NAMES: [&str; FEW] = [
        "endpoints-of-1",
        "endpoints-of-2",
        "endpoints-of-3",
        "endpoints-of-4",
        "endpoints-of-5",
        "endpoints-of-6",
        "endpoints-of-7",
        "endpoints-of-8",
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ClusterIps => "cluster-ips",
            Self::NodePortIps => "nodeport-ips",
            Self::HairpinConnections => "hairpin-connections",
            Self::NoEndpointServices => "no-endpoint-services",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::FirewallIps => "firewall-ips",
            Self::ServiceIps => "service-ips",
            Self::ServiceNodePorts => "service-nodeports",
            Self::ServiceEndpoints => "service-endpoints",
            Self::LocalEndpoints => "local-endpoints",
            Self::EndpointsOf(count) => Self::FEW_NAMES
                .get(usize::from(count).saturating_sub(1))
                .copied()
                .unwrap_or_default(),
        }
    }

    pub(super) const fn comment(self) -> &'static str {
        match self {
            Self::ClusterIps => "Active ClusterIPs",
            Self::NodePortIps => "IPs that accept NodePort traffic",
            Self::HairpinConnections => "service hairpin connections",
            Self::NoEndpointServices => {
                "vmap to drop or reject packets to services with no endpoints"
            }
            Self::NoEndpointNodePorts => {
                "vmap to drop or reject packets to service nodeports with no endpoints"
            }
            Self::FirewallIps => "destinations that are subject to LoadBalancerSourceRanges",
            Self::ServiceIps => "ClusterIP, ExternalIP and LoadBalancer IP traffic",
            Self::ServiceNodePorts => "NodePort traffic",
            Self::ServiceEndpoints => "endpoints by ClusterIP and number",
            Self::LocalEndpoints => "endpoints on this node by ClusterIP and number",
            Self::EndpointsOf(_) => "endpoints by VIP and number, where there are so many",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shared| shared.name() == name)
    }

    /// Whether several Service ports may want the same element.
    pub(super) const fn is_held_by_many(self) -> bool {
        matches!(self, Self::ClusterIps | Self::HairpinConnections)
    }

    /// Whether its keys are protocols and ports alone.
    pub(super) const fn is_by_port(self) -> bool {
        matches!(self, Self::NoEndpointNodePorts | Self::ServiceNodePorts)
    }
}

/// What an element is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// An address.
    Address(IpAddr),
    /// An endpoint that meets itself.
    Hairpin(IpAddr, Protocol, u16),
    /// A VIP.
    Vip(ServiceKey),
    /// A node port.
    NodePort(Protocol, u16),
    /// The endpoint of this number of a Service.
    Endpoint(ServiceKey, u32),
}

impl Key {
    /// The endpoint of this number of a VIP that has `count`, in their map.
    pub(super) const fn of_few(vip: ServiceKey, count: u8, number: u32) -> Self {
        if count == 1 {
            Self::Vip(vip)
        } else {
            Self::Endpoint(vip, number)
        }
    }
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing: it is one of a set.
    None,
    /// It is dropped.
    Drop,
    /// The chain.
    Goto(Arc<str>),
    /// The endpoint.
    To(SocketAddr),
}

/// An element of a shared set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) set: Shared,
    pub(super) key: Key,
    pub(super) value: Value,
    /// What `nft list` shows with it.
    pub(super) comment: Option<Arc<str>>,
}

/// Everything in the kernel that is one plan's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    /// In an order in which none leads to a later one.
    pub(super) chains: Vec<Chain>,
    pub(super) elements: Vec<Element>,
    pub(super) affinity_sets: Vec<AffinitySet>,
}

/// The set that remembers the clients of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AffinitySet {
    pub(super) name: Arc<str>,
    /// After so many seconds it forgets one, unless the rule that adds them says otherwise, as
    /// ours do: the time can then change without forgetting all.
    pub(super) timeout_s: u32,
}

impl Fragment {
    /// Whether there is a set of clients of this name.
    pub(super) fn remembers_in(&self, set: &AffinitySet) -> bool {
        self.affinity_sets.iter().any(|own| own.name == set.name)
    }
}
