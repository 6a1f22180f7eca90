//! ICMP errors about translated packets.
//!
//! An error quotes the packet it is about. The quoted packet went the other way, so its reverse
//! is what the flow's entry at this hook is about: the same entry that would translate an
//! answer translates the error, outside and in the quote.

use crate::flow::{Work, split};
use crate::layout::{Address, FlowKey, Hook, address_flags, flow_flags};
use crate::parse::{Fragment, IPV4, IPV6, Parsed, parse_quoted};
use crate::rewrite::{difference, rewrite_address};
use crate::{Maps, Packet, Summed};

/// Bytes of an ICMP header before what it quotes.
const HEADER: u32 = 8;
/// Echo request: ICMP and ICMPv6.
const ECHO: [u8; 2] = [8, 128];

/// What becomes of an ICMP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on, changed or not.
    Pass,
    /// It can't be changed, or would go round in circles.
    Drop,
}

/// Translates an error about one of our packets; anything else goes on as it is.
#[inline(always)]
pub fn translate(
    maps: &impl Maps,
    packet: &mut impl Packet,
    work: &mut Work,
    hook: Hook,
) -> Outcome {
    let Work {
        parsed,
        quoted,
        key,
        other,
        value,
        ..
    } = work;
    let flags = match hook {
        Hook::Ingress => match maps.address(&parsed.destination) {
            Some(flags) => flags,
            None => return Outcome::Pass,
        },
        Hook::Egress => 0,
    };
    if parsed.fragment != Fragment::Whole {
        return Outcome::Pass;
    }
    let Some([kind]) = packet.load::<1>(parsed.transport) else {
        return Outcome::Pass;
    };
    if !is_error(parsed, kind) {
        return if would_loop(flags, kind) {
            Outcome::Drop
        } else {
            Outcome::Pass
        };
    }
    let ethertype = if parsed.is_v4() { IPV4 } else { IPV6 };
    if parse_quoted(packet, parsed.transport + HEADER, ethertype, quoted).is_none() {
        return Outcome::Pass;
    }
    *key = FlowKey {
        source: quoted.destination,
        destination: quoted.source,
        source_port: quoted.destination_port,
        destination_port: quoted.source_port,
        protocol: quoted.protocol,
        hook: hook.number(),
        reserved: 0,
    };
    let flow = match maps.flow(key) {
        // What no packet was translated by yet, no error can be about.
        Some(flow) if flow.flags() & flow_flags::PENDING == 0 => flow,
        _ => return Outcome::Pass,
    };
    // It goes through the stack, and is met again where it goes out. (Where nothing is sent on any
    // more, the flow's own packets have seen to that.)
    if maps.forwards()
        && flow.flags() & flow_flags::BOTH != 0
        && !split(maps, key, other, value, flow)
    {
        return Outcome::Drop;
    }
    let (address, port) = flow.target();
    if change(packet, parsed, quoted, hook, &address, port) {
        Outcome::Pass
    } else {
        Outcome::Drop
    }
}

#[inline(always)]
const fn is_error(parsed: &Parsed, kind: u8) -> bool {
    if parsed.is_v4() {
        // Destination unreachable, time exceeded, parameter problem.
        matches!(kind, 3 | 11 | 12)
    } else {
        kind < 128
    }
}

/// An address that exists only as a frontend answers no echo, and passed on it would come back.
#[inline(always)]
fn would_loop(flags: u32, kind: u8) -> bool {
    let is_vip = flags & (address_flags::CLUSTER_IP | address_flags::EXTERNAL) != 0;
    is_vip && flags & address_flags::LOCAL == 0 && ECHO.contains(&kind)
}

/// Replaces the outer and the quoted address (and the quoted port).
#[inline(always)]
fn change(
    packet: &mut impl Packet,
    parsed: &Parsed,
    quoted: &Parsed,
    hook: Hook,
    address: &Address,
    port: u16,
) -> bool {
    // The outer destination (source at egress) is the quoted source (destination).
    let (outer_old, outer_field) = match hook {
        Hook::Ingress => (parsed.destination, 1),
        Hook::Egress => (parsed.source, 0),
    };
    let (quoted_old, quoted_port, quoted_field) = match hook {
        Hook::Ingress => (quoted.source, quoted.source_port, 0),
        Hook::Egress => (quoted.destination, quoted.destination_port, 1),
    };
    let checksum = parsed.transport + 2;
    // ICMPv6 covers the outer addresses too; ICMP does not.
    let covers_outer = (!parsed.is_v4()).then_some(checksum);
    rewrite_address(
        packet,
        parsed,
        outer_field,
        &outer_old,
        address,
        covers_outer,
    ) && quoted_address(packet, quoted, quoted_field, &quoted_old, address, checksum)
        && packet.adjust_checksum(
            checksum,
            difference(&[u32::from(quoted_port)], &[u32::from(port)]),
            Summed::Payload,
            false,
        )
        && packet.store(quoted.transport + quoted_field * 2, &port.to_ne_bytes())
}

/// The quote's own header: in IPv4 its checksum changes by as much as its address, so the two
/// leave the ICMP checksum as it is.
#[inline(always)]
fn quoted_address(
    packet: &mut impl Packet,
    quoted: &Parsed,
    field: u32,
    old: &Address,
    new: &Address,
    checksum: u32,
) -> bool {
    if quoted.is_v4() {
        return rewrite_address(packet, quoted, field, old, new, None);
    }
    // These stand in the payload of the error, not in its pseudo-header.
    let change = difference(&old.words(), &new.words());
    packet.adjust_checksum(checksum, change, Summed::Payload, false)
        && packet.store_words(quoted.ip + 8 + field * 16, &new.words())
}
