use std::vec::Vec;

use crate::parse::{IPV4, IPV6};
use crate::{Packet, Summed};

/// Offsets that the kernel's helpers for checksums take, at most.
const CHECKSUM_OFFSET_MAX: u32 = 0xffff;
/// The length of an Ethernet header.
const ETHERNET: u32 = 14;

/// A packet in memory, whose checksums change as the kernel's helpers change them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// The packet.
    pub bytes: Vec<u8>,
    /// Where its IP header starts.
    pub ip: u32,
    /// What the IP header is said to be: [`IPV4`] or [`IPV6`].
    pub ethertype: u16,
    /// The transport checksum is still to be computed, as in packets of the node itself
    /// (`CHECKSUM_PARTIAL`): its field holds the sum of the pseudo-header.
    pub is_partial: bool,
}

impl Bytes {
    /// A packet without an Ethernet header, whose first four bits say what it is.
    #[must_use]
    pub fn plain(bytes: Vec<u8>) -> Self {
        let is_v4 = bytes.first().is_some_and(|first| first >> 4 == 4);
        Self {
            bytes,
            ip: 0,
            ethertype: if is_v4 { IPV4 } else { IPV6 },
            is_partial: false,
        }
    }

    /// A packet under an Ethernet header, which says what it is.
    #[must_use]
    pub fn ethernet(bytes: Vec<u8>) -> Self {
        let ethertype = match (bytes.get(12), bytes.get(13)) {
            (Some(high), Some(low)) => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        Self {
            bytes,
            ip: ETHERNET,
            ethertype,
            is_partial: false,
        }
    }

    fn field<const N: usize>(&self, at: u32) -> Option<&[u8; N]> {
        let at = usize::try_from(at).ok()?;
        self.bytes.get(at..)?.first_chunk()
    }

    /// Changes a checksum; false where the kernel would not.
    fn replace(&mut self, at: u32, change: impl FnOnce(u16) -> u16) -> bool {
        if at > CHECKSUM_OFFSET_MAX || !at.is_multiple_of(2) {
            return false;
        }
        let Some(old) = self.field::<2>(at) else {
            return false;
        };
        let new = change(u16::from_ne_bytes(*old));
        self.store(at, &new.to_ne_bytes())
    }

    /// Adds a difference to a transport checksum, as `bpf_l4_csum_replace` does.
    fn replace_by_difference(&mut self, at: u32, difference: u32, pseudo: bool, udp: bool) -> bool {
        let is_partial = self.is_partial;
        self.replace(at, |sum| {
            if udp && sum == 0 {
                return 0; // none was sent
            }
            let new = match (is_partial, pseudo) {
                (false, _) => fold(add(difference, !u32::from(sum))),
                (true, true) => !fold(add(difference, u32::from(sum))),
                (true, false) => sum, // the device will see to it
            };
            if udp && new == 0 { u16::MAX } else { new }
        })
    }
}

impl Packet for Bytes {
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.field(at).copied()
    }

    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        let mut at = at;
        for word in &mut words {
            *word = u32::from_ne_bytes(*self.field(at)?);
            at = at.checked_add(4)?;
        }
        Some(words)
    }

    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool {
        let to = usize::try_from(at)
            .ok()
            .and_then(|at| self.bytes.get_mut(at..)?.first_chunk_mut());
        match to {
            Some(to) => {
                *to = *bytes;
                true
            }
            None => false,
        }
    }

    fn store_words<const N: usize>(&mut self, at: u32, words: &[u32; N]) -> bool {
        if self.load_words::<N>(at).is_none() {
            return false;
        }
        let mut at = at;
        for word in words {
            self.store(at, &word.to_ne_bytes());
            at += 4;
        }
        true
    }

    fn adjust_ip_checksum(&mut self, at: u32, difference: u32) -> bool {
        self.replace(at, |sum| fold(add(difference, !u32::from(sum))))
    }

    fn adjust_checksum(&mut self, at: u32, difference: u32, of: Summed, udp: bool) -> bool {
        self.replace_by_difference(at, difference, of != Summed::Payload, udp)
    }

    fn len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

/// Adds in one's complement.
const fn add(left: u32, right: u32) -> u32 {
    let (sum, carry) = left.overflowing_add(right);
    if carry { sum + 1 } else { sum }
}

/// The complement of a sum, folded to 16 bits.
fn fold(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}
