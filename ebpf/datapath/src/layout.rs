//! What stands in the maps, to the byte.
//!
//! Addresses and ports are kept as they stand in packets (network byte order). Nothing here has
//! padding that is not a field: the kernel compares keys byte by byte.
//!
//! Whoever changes a layout of a map that outlives the agent ([`FlowKey`], [`FlowValue`],
//! [`AffinityKey`], [`AffinityValue`], [`SocketRecord`], [`CounterKey`], [`Counters`]) raises
//! [`SCHEMA`], and has the agent carry over what is in the maps of the one before
//! (`proxy/src/backend/ebpf/former.rs`).

mod address;
mod block;
mod device;
mod flow;
mod frontend;
mod names;
mod socket;

pub use address::{Address, address_flags};
pub use block::{
    ENDPOINTS_MAX, Endpoint, Header, MAGLEV_PER_SLOT, PortRange, Settings, SettingsPorts,
    header_flags, settings_flags,
};
pub use device::{Device, StationKey, device_flags};
pub use flow::{
    CounterKey, Counters, Event, FLOW_VALUE_BYTES_V1, FlowKey, FlowValue, FragmentKey,
    FragmentPorts, Hook, Reason, flow_flags,
};
pub use frontend::{AffinityKey, AffinityValue, Frontend, FrontendKey, Kind, RangeKey};
pub use names::{limits, map_names};
pub use socket::{Connected, SOCKET_ENTRIES, SocketEntry, SocketRecord};

/// The version of the layouts that outlive the agent; part of the path they are pinned under.
pub const SCHEMA: u32 = 2;

/// TCP's number in IP headers.
pub const TCP: u8 = 6;
/// UDP's number in IP headers.
pub const UDP: u8 = 17;
/// SCTP's number in IP headers.
pub const SCTP: u8 = 132;
/// ICMP's number in IPv4 headers.
pub const ICMP: u8 = 1;
/// ICMPv6's number in IPv6 headers.
pub const ICMPV6: u8 = 58;

/// Everything here is plain numbers without padding, as aya wants keys and values to be.
#[cfg(feature = "host")]
#[expect(
    unsafe_code,
    reason = "a promise about layouts, which the assertions beside them keep"
)]
mod host {
    use super::{
        Address, AffinityKey, AffinityValue, Connected, CounterKey, Counters, Device, FlowKey,
        FlowValue, Frontend, FrontendKey, RangeKey, StationKey,
    };

    macro_rules! plain {
        ($($layout:ty),+ $(,)?) => {
            $(
                // SAFETY: `repr(C)` of integers, with every byte of padding a field.
                unsafe impl aya::Pod for $layout {}
            )+
        };
    }

    plain!(
        Address,
        AffinityKey,
        AffinityValue,
        Connected,
        CounterKey,
        Counters,
        Device,
        FlowKey,
        FlowValue,
        Frontend,
        FrontendKey,
        RangeKey,
        StationKey,
    );
}
