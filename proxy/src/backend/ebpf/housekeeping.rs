pub use switchyard_datapath::layout::Reason as DropReason;

use crate::plan::PlanId;

/// What a round of housekeeping did and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Housekeeping {
    /// Flows forgotten since the last round, because they were idle for too long or their
    /// endpoint is gone.
    pub flows_expired: u64,
    /// Sockets closed since the last round, because their endpoint is gone.
    pub sockets_destroyed: u64,
    /// Connections that another mode's rules have begun may still be under way.
    pub hands_over: bool,
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
