/// What changed of what a checksum covers: where the device still has to compute it, its field
/// already holds the sum of the addresses, and of nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summed {
    /// IPv4 addresses of the pseudo-header.
    AddressesV4,
    /// IPv6 addresses of the pseudo-header.
    AddressesV6,
    /// What stands behind the IP header.
    Payload,
}

/// Bytes of a packet that can be read and changed, counted from where the program found its
/// start (the Ethernet header, or the IP header on devices without one).
pub trait Packet {
    /// Copies bytes out; `None` if the packet is too short.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
    /// Copies 32-bit words out, each as it stands in memory; `None` if the packet is too short.
    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]>;
    /// As [`Packet::load`], from a place that is a constant once the program is built: the
    /// verifier lets such bytes be read without a helper.
    #[inline(always)]
    fn load_fixed<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.load(at)
    }
    /// As [`Packet::load_fixed`], for words.
    #[inline(always)]
    fn load_fixed_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        self.load_words(at)
    }
    /// Writes bytes without touching any checksum; false if that is not possible.
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool;
    /// As [`Packet::store`], for words.
    fn store_words<const N: usize>(&mut self, at: u32, words: &[u32; N]) -> bool;
    /// Adds a [`difference`](crate::rewrite::difference) to the IPv4 header's checksum at `at`.
    fn adjust_ip_checksum(&mut self, at: u32, difference: u32) -> bool;
    /// Adds a [`difference`](crate::rewrite::difference) to a TCP, UDP or ICMP checksum at `at`.
    /// UDP, where a checksum of zero means none: `udp`.
    fn adjust_checksum(&mut self, at: u32, difference: u32, of: Summed, udp: bool) -> bool;
    /// The length of the whole packet, from where it starts.
    fn len(&self) -> u32;
    /// Whether it has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
