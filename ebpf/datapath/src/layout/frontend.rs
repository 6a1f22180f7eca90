use super::Address;

/// A key of FRONTENDS: an address and port at which a Service is reached. Node ports have
/// [`Address::ANY`] for IPv6 and `0.0.0.0` for IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// The address.
    pub address: Address,
    /// The port, in network byte order.
    pub port: u16,
    /// The number of the protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

impl FrontendKey {
    /// The bit of KNOWN that stands for this key; see [`Address::known_bit`].
    #[inline(always)]
    #[must_use]
    pub const fn known_bit(&self, bits_log2: u32) -> u32 {
        let [a, b, c, d] = self.address.0;
        let [high, low] = self.port.to_be_bytes();
        let port = u32::from_be_bytes([0, high, low, self.protocol]);
        Address([a ^ port, b, c, d]).known_bit(bits_log2)
    }
}

/// A value of FRONTENDS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frontend {
    /// The Service's index in WORDS, from 1.
    pub service: u32,
    /// A [`Kind`].
    pub kind: u32,
}

/// What kind of address a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `spec.externalIPs`, and node ports.
    External,
    /// `status.loadBalancer.ingress`: source ranges apply.
    LoadBalancer,
}

impl Kind {
    /// As it stands in [`Frontend::kind`].
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::ClusterIp => 0,
            Self::External => 1,
            Self::LoadBalancer => 2,
        }
    }

    /// From [`Frontend::kind`].
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::ClusterIp,
            1 => Self::External,
            _ => Self::LoadBalancer,
        }
    }
}

/// What is looked up in RANGES: which addresses a set holds. The trie's prefix counts the bits
/// of `set` too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeKey {
    /// The set, as [`super::Header::ranges`] names it; in network byte order.
    pub set: u32,
    /// The address.
    pub address: Address,
}

/// A key of AFFINITY: which client of which Service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    /// The client's address; at the socket the cookie of its network namespace, in the first
    /// two words (no address begins like that: the third word is all ones).
    pub client: Address,
    /// The Service's index.
    pub service: u32,
    /// Zero.
    pub reserved: u32,
}

impl AffinityKey {
    /// A client by its address.
    #[inline(always)]
    #[must_use]
    pub const fn by_address(client: Address, service: u32) -> Self {
        Self {
            client,
            service,
            reserved: 0,
        }
    }

    /// A client by its network namespace.
    #[inline(always)]
    #[must_use]
    pub const fn by_namespace(cookie: u64, service: u32) -> Self {
        let [a, b, c, d, e, f, g, h] = cookie.to_ne_bytes();
        Self {
            client: Address([
                u32::from_ne_bytes([a, b, c, d]),
                u32::from_ne_bytes([e, f, g, h]),
                u32::MAX,
                u32::MAX,
            ]),
            service,
            reserved: 0,
        }
    }
}

/// A value of AFFINITY: the endpoint the client had last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityValue {
    /// The endpoint's address.
    pub address: Address,
    /// The endpoint's port, in network byte order.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
    /// When it was last used, by the kernel's monotonic clock.
    pub used_ns: u64,
}

const _: () = {
    assert!(size_of::<FrontendKey>() == 20);
    assert!(size_of::<RangeKey>() == 20);
    assert!(size_of::<AffinityKey>() == 24);
    assert!(size_of::<AffinityValue>() == 32);
};
