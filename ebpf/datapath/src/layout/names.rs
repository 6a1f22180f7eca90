/// The maps by the names the object file gives them.
pub mod map_names {
    /// Hash: [`super::super::Address`] to [`super::super::address_flags`].
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Array of `u64`, mapped into the agent: a bit for each key in ADDRESSES and FRONTENDS
    /// ([`super::super::Address::known_bit`], [`super::super::FrontendKey::known_bit`]), so that
    /// what is not there need not be looked up.
    pub const KNOWN: &str = "KNOWN";
    /// Hash: [`super::super::FrontendKey`] to [`super::super::Frontend`].
    pub const FRONTENDS: &str = "FRONTENDS";
    /// Array of `u64`, mapped into the agent: index of a Service to its block in SLOTS.
    pub const WORDS: &str = "WORDS";
    /// Array of 32-byte slots, mapped into the agent.
    pub const SLOTS: &str = "SLOTS";
    /// Trie: [`super::super::RangeKey`] to one byte.
    pub const RANGES: &str = "RANGES";
    /// Hash: device index to [`super::super::Device`].
    pub const DEVICES: &str = "DEVICES";
    /// Hash: [`super::super::StationKey`] to the index of a bridge's port.
    pub const STATIONS: &str = "STATIONS";
    /// Hash: [`super::super::FlowKey`] to [`super::super::FlowValue`].
    pub const FLOWS: &str = "FLOWS";
    /// Hash: [`super::super::AffinityKey`] to [`super::super::AffinityValue`].
    pub const AFFINITY: &str = "AFFINITY";
    /// Socket storage: [`super::super::SocketRecord`].
    pub const SOCKETS: &str = "SOCKETS";
    /// Hash: 16 bytes of a Service port's digest to its index. Outlives the agent.
    pub const IDENTITIES: &str = "IDENTITIES";
    /// Hash: cookie of a connected socket to [`super::super::Connected`].
    pub const CONNECTED: &str = "CONNECTED";
    /// LRU hash: [`super::super::FragmentKey`] to [`super::super::FragmentPorts`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Per-CPU hash: [`super::super::CounterKey`] to [`super::super::Counters`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU array: [`super::super::Reason::number`] to `u64`.
    pub const DROPS: &str = "DROPS";
    /// Ring of [`super::super::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// Hash: cookie of a network namespace to one byte; its sockets are left alone.
    pub const OPT_OUT: &str = "OPT_OUT";
}

/// The sizes of the maps that do not grow, and the most that those that do may reach.
pub mod limits {
    /// Entries of FLOWS: two for each flow, four where it is masqueraded.
    pub const FLOW_ENTRIES_MAX: u32 = 1 << 19;
    /// Entries of AFFINITY.
    pub const AFFINITY_ENTRIES_MAX: u32 = 1 << 16;
    /// Entries of CONNECTED: sockets that are connected through a Service. One that does not fit
    /// has the endpoint for its peer's name, and is not found when its endpoint goes.
    pub const CONNECTED_ENTRIES_MAX: u32 = 1 << 18;
    /// Entries of FRAGMENTS; the oldest go.
    pub const FRAGMENT_ENTRIES_MAX: u32 = 1 << 13;
    /// Entries of COUNTERS: endpoints that were ever used.
    pub const COUNTER_ENTRIES_MAX: u32 = 1 << 17;
    /// Bytes of EVENTS; what does not fit is counted in DROPS all the same.
    pub const EVENTS_BYTES: u32 = 1 << 16;
    /// Entries of OPT_OUT.
    pub const OPT_OUT_ENTRIES_MAX: u32 = 1 << 14;
    /// Entries of DEVICES.
    pub const DEVICE_ENTRIES_MAX: u32 = 1 << 13;
    /// Entries of STATIONS. What is behind a bridge and has no entry is sent through the bridge.
    pub const STATION_ENTRIES_MAX: u32 = 1 << 13;
    /// Slots, over all Services (32 bytes each).
    pub const SLOTS_MAX: u32 = 1 << 24;
    /// Service ports.
    pub const SERVICES_MAX: u32 = 1 << 18;
    /// Entries of FRONTENDS, and of ADDRESSES.
    pub const FRONTENDS_MAX: u32 = 1 << 22;
    /// Entries of RANGES.
    pub const RANGES_MAX: u32 = 1 << 20;
}
