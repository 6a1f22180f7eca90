//! Changing a packet's source or destination, with all checksums that cover them.

use crate::Packet;
use crate::layout::{Address, Hook, SCTP, TCP, UDP};
use crate::parse::{Fragment, Parsed};

/// Makes the destination (at ingress) or the source (at egress) of a packet `address` and
/// `port`. False where the packet could not be changed; it must not go on then.
#[inline(always)]
pub fn rewrite(
    packet: &mut impl Packet,
    parsed: &Parsed,
    hook: Hook,
    address: &Address,
    port: u16,
) -> bool {
    let (old_address, old_port, field) = match hook {
        Hook::Ingress => (parsed.destination, parsed.destination_port, 1_u32),
        Hook::Egress => (parsed.source, parsed.source_port, 0_u32),
    };
    let has_header = parsed.fragment != Fragment::Later;
    let checksum = if has_header {
        checksum_offset(parsed)
    } else {
        None
    };
    let is_udp = parsed.protocol == UDP;
    if !rewrite_address(
        packet,
        parsed,
        field,
        &old_address,
        address,
        checksum,
        is_udp,
    ) {
        return false;
    }
    if !has_header || old_port == port {
        return true;
    }
    if parsed.protocol == SCTP {
        // Its checksum is a CRC over all of the payload, which no helper can update.
        return false;
    }
    let in_checksum = match checksum {
        Some(at) => {
            packet.replace_checksum(at, u32::from(old_port), u32::from(port), 2, false, is_udp)
        }
        None => true,
    };
    in_checksum && packet.store(parsed.transport + field * 2, &port.to_ne_bytes())
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
    is_udp: bool,
) -> bool {
    if old == new {
        return true;
    }
    if old.is_v4() {
        let (from, to) = (old.v4_word(), new.v4_word());
        let in_transport = match checksum {
            Some(at) => packet.replace_checksum(at, from, to, 4, true, is_udp),
            None => true,
        };
        return in_transport
            && packet.replace_ip_checksum(parsed.ip + 10, from, to, 4)
            && packet.store(parsed.ip + 12 + field * 4, &to.to_ne_bytes());
    }
    let in_transport = match checksum {
        Some(at) => packet.replace_address_checksum(at, &old.words(), &new.words(), is_udp),
        None => true,
    };
    in_transport && packet.store_words(parsed.ip + 8 + field * 16, &new.words())
}
