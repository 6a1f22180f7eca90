//! Blocks of slots: a Service's endpoints under a header, and the settings.
//!
//! WORDS has a number for each Service: the slot its block starts at. A block is written before
//! its number is, and never changed after: who reads the number sees a whole set of endpoints.
//!
//! ```text
//! header | cluster endpoints … | local endpoints … | serving endpoints … | Maglev table …
//! ```

use super::Address;

/// Endpoints in one list of a Service, at most: positions are 16 bits wide.
pub const ENDPOINTS_MAX: u32 = 65_535;
/// Positions of a Maglev table in one slot.
pub const MAGLEV_PER_SLOT: u32 = 16;

/// The first slot of a Service's block: 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header {
    /// Endpoints anywhere, in the slots behind this one.
    pub cluster: u16,
    /// Endpoints on this node, behind those.
    pub local: u16,
    /// Endpoints that still serve, whatever policy says (UDP only), behind those.
    pub serving: u16,
    /// [`header_flags`].
    pub flags: u16,
    /// ClientIP affinity in seconds; 0 is none.
    pub affinity_s: u32,
    /// The set in RANGES that may use LoadBalancer IPs; 0 is everybody.
    pub ranges: u32,
    /// Positions in the Maglev table, behind the endpoints; 0 where there is none.
    pub maglev: u32,
    /// The Service's index in WORDS.
    pub service: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

/// Bits of [`Header::flags`].
pub mod header_flags {
    /// internalTrafficPolicy is Local.
    pub const INTERNAL_LOCAL: u16 = 1;
    /// externalTrafficPolicy is Local.
    pub const EXTERNAL_LOCAL: u16 = 1 << 1;
    /// There is an endpoint somewhere, even if no list may use it.
    pub const ANY_ENDPOINT: u16 = 1 << 2;
    /// An address of the node is within the source ranges.
    pub const RANGES_INCLUDE_NODE: u16 = 1 << 3;
}

/// One endpoint: 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub address: Address,
    /// Its port, in network byte order.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
    /// Zero.
    pub reserved_too: u64,
}

impl Endpoint {
    /// An endpoint by address and port (in network byte order).
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            reserved: [0; 3],
            reserved_too: 0,
        }
    }
}

/// What holds for all Services, in the block that word 0 names: one slot for each family (IPv4
/// first), then [`SettingsPorts`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The network of local pods, where that is how they are told.
    pub pods: Address,
    /// Its prefix length (an IPv4 prefix counted from 96).
    pub pods_bits: u32,
    /// [`settings_flags`].
    pub flags: u32,
    /// The cookie of the node's own network namespace; 0 if it could not be had.
    pub host_cookie: u64,
}

/// Bits of [`Settings::flags`].
pub mod settings_flags {
    /// `pods` tells local pods.
    pub const PODS_BY_CIDR: u32 = 1;
    /// Local pods are told by the device they are behind.
    pub const PODS_BY_DEVICE: u32 = 1 << 1;
    /// Everything sent to a ClusterIP is masqueraded.
    pub const MASQUERADE_ALL: u32 = 1 << 2;
    /// Node ports answer at loopback addresses of this family.
    pub const LOCALHOST_NODE_PORTS: u32 = 1 << 3;
    /// Sockets outside the node's own network namespace are left alone.
    pub const HOST_NAMESPACE_ONLY: u32 = 1 << 4;
    /// Connections that began before these programs may go on by connection tracking: what belongs to
    /// one that is not in FLOWS is left alone.
    pub const HANDOVER: u32 = 1 << 5;
}

/// An inclusive range of ports, in host byte order; empty where `last < first`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl PortRange {
    /// How many ports it has.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u32 {
        (u32::from(self.last) + 1).saturating_sub(u32::from(self.first))
    }

    /// Whether it has none.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The source ports that masquerading uses: 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SettingsPorts {
    /// Two ranges beside the node's ephemeral ports and its node ports.
    pub ranges: [PortRange; 2],
    /// Zero.
    pub reserved: [u32; 6],
}

const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<Endpoint>() == 32);
    assert!(size_of::<Settings>() == 32);
    assert!(size_of::<SettingsPorts>() == 32);
};
