/// An IP address of either family in network byte order; IPv4 as `::ffff:a.b.c.d`, so that one
/// map serves both families and mapped addresses of IPv6 sockets mean the same.
///
/// The order is one of memory words, not of numbers: it only has to be the same everywhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u32; 4]);

/// The third word of a mapped IPv4 address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// `::`, which stands for "any of the node's addresses" in keys of node ports.
    pub const ANY: Self = Self([0; 4]);
    /// `::1`.
    pub const LOCALHOST_V6: Self = Self([0, 0, 0, 1_u32.to_be()]);

    /// An IPv4 address from its word in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.0;
        a == 0 && b == 0 && c == MAPPED
    }

    /// The word of an IPv4 address, in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(&self) -> u32 {
        let [.., word] = self.0;
        word
    }

    /// Whether it is 127.0.0.0/8 or `::1`.
    #[inline(always)]
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        if self.is_v4() {
            let [first, ..] = self.v4_word().to_ne_bytes();
            first == 127
        } else {
            *self == Self::LOCALHOST_V6
        }
    }

    /// Whether it is `0.0.0.0` or `::`, to which connecting means localhost.
    #[inline(always)]
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        *self == Self::ANY || *self == Self::v4(0)
    }

    /// Whether the first `bits` bits (0 to 128, an IPv4 prefix counted from 96) are those of
    /// `network`.
    #[inline(always)]
    #[must_use]
    pub fn is_within(&self, network: &Self, bits: u32) -> bool {
        let mut left = bits;
        let mut same = true;
        for (own, other) in self.0.iter().zip(network.0.iter()) {
            let take = if left > 32 { 32 } else { left };
            left = left.saturating_sub(take);
            let mask = if take == 0 {
                0
            } else {
                (u32::MAX << (32 - take)).to_be()
            };
            same &= (own ^ other) & mask == 0;
        }
        same
    }

    /// The bit of KNOWN that stands for this address, where it has 2 to the power of `bits_log2`
    /// bits (6 to 31). Others may have the same.
    #[inline(always)]
    #[must_use]
    pub const fn known_bit(&self, bits_log2: u32) -> u32 {
        let [a, b, c, d] = self.0;
        let mixed = (a ^ b.rotate_left(11)).wrapping_mul(0x85eb_ca6b) ^ c.rotate_left(7) ^ d;
        let spread = (mixed ^ (mixed >> 16)).wrapping_mul(0xc2b2_ae35);
        let spread = (spread ^ (spread >> 13)).wrapping_mul(0x9e37_79b1);
        spread >> (32 - (bits_log2 & 31))
    }

    /// The address's bytes as they stand in a packet (the last four for IPv4).
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(u32::from_ne_bytes(v4.octets())),
            core::net::IpAddr::V6(v6) => {
                let bytes = v6.octets();
                let word = |at: usize| {
                    let mut word = [0; 4];
                    for (to, from) in word.iter_mut().zip(bytes.iter().skip(at * 4)) {
                        *to = *from;
                    }
                    u32::from_ne_bytes(word)
                };
                Self([word(0), word(1), word(2), word(3)])
            }
        }
    }
}

impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            let [a, b, c, d] = address.v4_word().to_ne_bytes();
            return Self::V4(core::net::Ipv4Addr::new(a, b, c, d));
        }
        let mut bytes = [0; 16];
        let words = address.0.iter().flat_map(|word| word.to_ne_bytes());
        for (to, from) in bytes.iter_mut().zip(words) {
            *to = from;
        }
        Self::V6(core::net::Ipv6Addr::from(bytes))
    }
}

/// What is known of an address, as bits of the value in ADDRESSES.
pub mod address_flags {
    /// A ClusterIP: ports that no Service has are refused.
    pub const CLUSTER_IP: u32 = 1;
    /// An external or LoadBalancer IP.
    pub const EXTERNAL: u32 = 1 << 1;
    /// An address of this machine.
    pub const LOCAL: u32 = 1 << 2;
    /// An address of this machine that accepts node ports.
    pub const NODE_PORTS: u32 = 1 << 3;
    /// No Service has it any more, but connections that were made to it go on.
    pub const DRAINING: u32 = 1 << 4;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn addresses_keep_their_value() {
        for text in [
            "10.96.0.1",
            "fd00:96::1:2",
            "::1",
            "0.0.0.0",
            "255.255.255.255",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(ip)), ip);
            assert_eq!(Address::from(ip).is_v4(), ip.is_ipv4());
            assert_eq!(Address::from(ip).is_loopback(), ip.is_loopback());
            assert_eq!(Address::from(ip).is_unspecified(), ip.is_unspecified());
        }
        assert!(address("127.200.0.1").is_loopback());
    }

    /// Neighbours, as Services and pods are, do not share bits more than chance has it.
    #[test]
    fn addresses_spread_over_the_bits() {
        let nets = [
            (address("10.96.0.0"), 3, 1_u32.to_be()),
            (address("fd00:96::"), 3, 1_u32.to_be()),
            (address("fd00:244::1"), 1, 1_u32.to_be()),
            (address("10.0.0.9"), 3, (1_u32 << 8).to_be()),
        ];
        for (net, word, step) in nets {
            let mut bits = std::collections::BTreeSet::new();
            let step = u32::from_be(step);
            for number in 0..4096_u32 {
                let mut next = net;
                let start = u32::from_be(next.0[word]);
                next.0[word] = start.wrapping_add(number.wrapping_mul(step)).to_be();
                let bit = next.known_bit(15);
                assert!(bit < 1 << 15);
                bits.insert(bit);
            }
            // 4096 of 32768 by chance: 3851 different ones.
            assert!(bits.len() > 3700, "{net:?}: {}", bits.len());
        }
        assert!((6..32).all(|bits| address("::").known_bit(bits) == 0));
    }

    #[test]
    fn prefixes_are_compared_by_bits() {
        let pods = address("10.244.0.0");
        assert!(address("10.244.255.1").is_within(&pods, 96 + 16));
        assert!(!address("10.245.0.1").is_within(&pods, 96 + 16));
        assert!(address("10.245.0.1").is_within(&pods, 96 + 15));
        assert!(!address("fd00::1").is_within(&pods, 96));
        assert!(address("fd00::1").is_within(&pods, 0));
        assert!(address("fd00:244:1::9").is_within(&address("fd00:244::"), 32));
        assert!(!address("fd00:245:1::9").is_within(&address("fd00:244::"), 32));
    }
}
