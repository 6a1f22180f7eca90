use super::Address;

/// A value of DEVICES, whose key is the device's index: 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// What masquerading makes the source of IPv4 packets that go out here; zero if unknown.
    pub masquerade_v4: Address,
    /// The same for IPv6.
    pub masquerade_v6: Address,
    /// [`device_flags`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bits of [`Device::flags`].
pub mod device_flags {
    /// Local pods are behind it (where pods are told by their device).
    pub const PODS: u32 = 1;
    /// The other end is in another network namespace (veth): packets can be handed to it.
    pub const PEER: u32 = 1 << 1;
    /// A bridge that sends by addresses alone: STATIONS may say what is behind which of its ports.
    pub const BRIDGE: u32 = 1 << 2;
    /// Rules of another mode translate as well, for the time being.
    pub const RULES: u32 = 1 << 3;
}

/// A key of STATIONS: who is behind a bridge. The value is the index of the port, a device whose
/// other end is in another network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StationKey {
    /// The bridge's index.
    pub bridge: u32,
    /// The link layer's address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: u16,
}

const _: () = {
    assert!(size_of::<Device>() == 40);
    assert!(size_of::<StationKey>() == 12);
};
