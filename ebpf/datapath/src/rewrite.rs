//! Changing a packet's addresses and ports, with all checksums that cover them.

use crate::layout::{Address, SCTP, TCP, UDP};
use crate::parse::{Fragment, Parsed};
use crate::{Packet, Summed};

/// An address and a port of a packet, as they are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub address: Address,
    /// The port, in network byte order.
    pub port: u16,
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Who sends it.
    pub source: Target,
    /// Who gets it.
    pub destination: Target,
}

impl Ends {
    /// Takes over the ends of a packet.
    #[inline(always)]
    pub const fn set(&mut self, parsed: &Parsed) {
        self.source.address = parsed.source;
        self.source.port = parsed.source_port;
        self.destination.address = parsed.destination;
        self.destination.port = parsed.destination_port;
    }
}

/// Gives a packet other ends. With `hop` it also counts one router on its way: its TTL (hop
/// limit) must be at least 1. False where the packet could not be changed; it must not go on then.
///
/// `parsed` says where things are in the packet; the ends it has are `old`.
#[inline(always)]
pub fn rewrite(
    packet: &mut impl Packet,
    parsed: &Parsed,
    old: &Ends,
    new: &Ends,
    hop: bool,
) -> bool {
    let has_header = parsed.fragment != Fragment::Later;
    let ports = |ends: &Ends| u32::from(ends.source.port) << 16 | u32::from(ends.destination.port);
    let (old_ports, new_ports) = (ports(old), ports(new));
    let has_other_ports = has_header && old_ports != new_ports;
    if has_other_ports && parsed.protocol == SCTP {
        // Its checksum is a CRC over all of the payload, which no helper can update.
        return false;
    }
    let checksum = if has_header {
        checksum_offset(parsed)
    } else {
        None
    };
    if has_other_ports && let Some(at) = checksum {
        let change = difference(&[old_ports], &[new_ports]);
        let is_udp = parsed.protocol == UDP;
        if !packet.adjust_checksum(at, change, Summed::Payload, is_udp) {
            return false;
        }
    }
    let [s0, s1] = new.source.port.to_ne_bytes();
    let [d0, d1] = new.destination.port.to_ne_bytes();
    let ports = has_other_ports.then_some([s0, s1, d0, d1]);
    let is_v4 = old.source.address.is_v4();
    // Ports that stand next to what changes in the header are written with it.
    let (beside, apart) = if is_v4 && parsed.is_plain() {
        (ports, None)
    } else {
        (None, ports)
    };
    let in_header = if is_v4 {
        rewrite_v4(packet, parsed, old, new, checksum, hop, beside)
    } else {
        rewrite_v6(packet, parsed, old, new, checksum, hop)
    };
    in_header && apart.is_none_or(|ports| packet.store(parsed.transport, &ports))
}

/// Changes both addresses (and the TTL) in an IPv4 header. All that changes there stands in its
/// last three words, and is written at once, with the ports that stand `beside` it.
#[inline(always)]
fn rewrite_v4(
    packet: &mut impl Packet,
    parsed: &Parsed,
    old: &Ends,
    new: &Ends,
    checksum: Option<u32>,
    hop: bool,
    beside: Option<[u8; 4]>,
) -> bool {
    let words = |ends: &Ends| {
        [
            ends.source.address.v4_word(),
            ends.destination.address.v4_word(),
        ]
    };
    let (before, after) = (words(old), words(new));
    if before == after && !hop && beside.is_none() {
        return true;
    }
    let change = difference(&before, &after);
    let in_transport = match checksum {
        Some(at) if before != after => {
            packet.adjust_checksum(at, change, Summed::AddressesV4, parsed.protocol == UDP)
        }
        _ => true,
    };
    let hops = if hop {
        parsed.hops.saturating_sub(1)
    } else {
        parsed.hops
    };
    let word = |hops: u8| u32::from(u16::from_ne_bytes([hops, parsed.protocol]));
    let in_header = add(change, difference(&[word(parsed.hops)], &[word(hops)]));
    let sum = fold(add(in_header, u32::from(!parsed.ip_checksum)));
    let [sum0, sum1] = (!sum).to_ne_bytes();
    let start = u32::from_ne_bytes([hops, parsed.protocol, sum0, sum1]);
    let [source, destination] = after;
    in_transport
        && match beside {
            Some(ports) => {
                let ports = u32::from_ne_bytes(ports);
                packet.store_words(parsed.ip + 8, &[start, source, destination, ports])
            }
            None => packet.store_words(parsed.ip + 8, &[start, source, destination]),
        }
}

/// Changes both addresses (and the hop limit) in an IPv6 header.
#[inline(always)]
fn rewrite_v6(
    packet: &mut impl Packet,
    parsed: &Parsed,
    old: &Ends,
    new: &Ends,
    checksum: Option<u32>,
    hop: bool,
) -> bool {
    let is_udp = parsed.protocol == UDP;
    if hop && !packet.store(parsed.ip + 7, &[parsed.hops.saturating_sub(1)]) {
        return false;
    }
    let (from, to) = (&old.source.address, &new.source.address);
    let source = address_v6(packet, parsed, 0, from, to, checksum, is_udp);
    let (from, to) = (&old.destination.address, &new.destination.address);
    source && address_v6(packet, parsed, 1, from, to, checksum, is_udp)
}

/// Changes one address of an IPv6 header, `field` 0 being the source and 1 the destination.
#[inline(always)]
fn address_v6(
    packet: &mut impl Packet,
    parsed: &Parsed,
    field: u32,
    old: &Address,
    new: &Address,
    checksum: Option<u32>,
    is_udp: bool,
) -> bool {
    if old == new {
        return true;
    }
    let in_transport = match checksum {
        Some(at) => {
            let change = difference(&old.words(), &new.words());
            packet.adjust_checksum(at, change, Summed::AddressesV6, is_udp)
        }
        None => true,
    };
    in_transport && packet.store_words(parsed.ip + 8 + field * 16, &new.words())
}

/// Where the checksum that covers addresses and ports stands; `None` for SCTP, whose does not,
/// and for UDP over IPv4 without one.
#[inline(always)]
const fn checksum_offset(parsed: &Parsed) -> Option<u32> {
    match parsed.protocol {
        TCP => Some(parsed.transport + 16),
        UDP => Some(parsed.transport + 6),
        _ => None,
    }
}

/// Changes one address of the IP header, `field` 0 being the source and 1 the destination, and
/// the checksums it is part of.
#[inline(always)]
pub(crate) fn rewrite_address(
    packet: &mut impl Packet,
    parsed: &Parsed,
    field: u32,
    old: &Address,
    new: &Address,
    checksum: Option<u32>,
) -> bool {
    if old == new {
        return true;
    }
    if old.is_v4() {
        let change = difference(&[old.v4_word()], &[new.v4_word()]);
        let in_transport = match checksum {
            Some(at) => packet.adjust_checksum(at, change, Summed::AddressesV4, false),
            None => true,
        };
        return in_transport
            && packet.adjust_ip_checksum(parsed.ip + 10, change)
            && packet.store(parsed.ip + 12 + field * 4, &new.v4_word().to_ne_bytes());
    }
    address_v6(packet, parsed, field, old, new, checksum, false)
}

/// By how much a checksum changes, in one's complement, where what it covers had the words `old`
/// and has `new` in their place. Words are as they stand in memory.
#[inline(always)]
#[must_use]
pub fn difference<const N: usize>(old: &[u32; N], new: &[u32; N]) -> u32 {
    let mut sum = 0;
    for word in old {
        sum = add(sum, !*word);
    }
    for word in new {
        sum = add(sum, *word);
    }
    sum
}

/// Adds in one's complement.
#[inline(always)]
const fn add(left: u32, right: u32) -> u32 {
    let (sum, carry) = left.overflowing_add(right);
    if carry { sum + 1 } else { sum }
}

/// A sum of 16 bits, in one's complement.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let [a, b, c, d] = sum.to_ne_bytes();
    let (low, carry) = u16::from_ne_bytes([a, b]).overflowing_add(u16::from_ne_bytes([c, d]));
    if carry { low + 1 } else { low }
}
