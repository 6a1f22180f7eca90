use crate::plan::PlanId;

/// What a round of housekeeping did and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Housekeeping {
    /// Flows forgotten since the last round, because they were idle for too long or their
    /// endpoint is gone.
    pub flows_expired: u64,
    /// Sockets closed since the last round, because their endpoint is gone.
    pub sockets_destroyed: u64,
    /// How full maps are.
    pub map_entries: Vec<MapLevel>,
    /// Packets dropped by reason, since the maps were made.
    pub drops: Vec<(DropReason, u64)>,
    /// What every ServicePort carried, those that carried nothing may be left out; `None`
    /// where this round did not read it.
    pub service_ports: Option<Vec<(PlanId, ServiceTotals)>>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLevel {
    /// Which map.
    pub map: MapName,
    /// Elements it holds.
    pub used: usize,
    /// Elements it has room for.
    pub limit: usize,
}

/// A map whose elements are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapName {
    /// Addresses of Services and of the node.
    Addresses,
    /// Where Services are reached.
    Frontends,
    /// Which slots each Service port has.
    Words,
    /// Endpoints, and who gets which.
    Slots,
    /// Source ranges.
    Ranges,
    /// The node's devices.
    Devices,
    /// Flows that are translated at devices.
    Flows,
    /// Clients with session affinity.
    Affinity,
    /// What each endpoint carried.
    Counters,
    /// Connected sockets that were given an endpoint.
    Connected,
    /// Which number each Service port has.
    Identities,
}

impl MapName {
    /// As metrics call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Frontends => "frontends",
            Self::Words => "words",
            Self::Slots => "slots",
            Self::Ranges => "ranges",
            Self::Devices => "devices",
            Self::Flows => "flows",
            Self::Affinity => "affinity",
            Self::Counters => "counters",
            Self::Connected => "connected",
            Self::Identities => "identities",
        }
    }
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A traffic policy is Local, and no endpoint is on this node.
    NoLocalEndpoint,
    /// The source is not within the Service's source ranges.
    SourceRange,
    /// The Service has no endpoint.
    NoEndpoints,
    /// The ClusterIP has no such port.
    UnknownPort,
    /// The table of flows is full.
    FlowTableFull,
    /// No port is left to masquerade with.
    NoMasqueradePort,
    /// A fragment whose first one was never seen.
    UnknownFragment,
    /// Another flow has the same addresses and ports after translation.
    Collision,
    /// The packet can't be rewritten: cut off, or with headers nobody here knows.
    NotRewritable,
}

impl DropReason {
    /// Every reason, in order.
    pub const ALL: [Self; 9] = [
        Self::NoLocalEndpoint,
        Self::SourceRange,
        Self::NoEndpoints,
        Self::UnknownPort,
        Self::FlowTableFull,
        Self::NoMasqueradePort,
        Self::UnknownFragment,
        Self::Collision,
        Self::NotRewritable,
    ];

    /// As metrics call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoLocalEndpoint => "no_local_endpoint",
            Self::SourceRange => "source_range",
            Self::NoEndpoints => "no_endpoints",
            Self::UnknownPort => "unknown_port",
            Self::FlowTableFull => "flow_table_full",
            Self::NoMasqueradePort => "no_masquerade_port",
            Self::UnknownFragment => "unknown_fragment",
            Self::Collision => "collision",
            Self::NotRewritable => "not_rewritable",
        }
    }
}

/// What a ServicePort carried since the counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTotals {
    /// Connections (TCP) and flows (UDP).
    pub connections: u64,
    /// Packets in both directions, as far as they pass programs of ours one by one.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
}
