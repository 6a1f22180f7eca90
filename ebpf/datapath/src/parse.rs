//! What a packet is: addresses, ports, fragments, ICMP errors. Anything odd is not ours.

use crate::Packet;
use crate::layout::{Address, ICMP, ICMPV6, SCTP, TCP, UDP};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// IPv6 extension headers that are stepped over, at most. RFC 8200 asks that each comes once at
/// the most; senders of more have something else in mind.
const EXTENSIONS_MAX: usize = 6;

/// Where in a TCP header its length and, behind it, its flags stand.
const TCP_LENGTH_AT: u32 = 12;
const TCP_FIN: u8 = 1;
const TCP_SYN: u8 = 1 << 1;
const TCP_RST: u8 = 1 << 2;
const TCP_ACK: u8 = 1 << 4;

/// All but the version in the first word of an IPv6 header.
const TRAFFIC_V6: u32 = 0x0fff_ffff_u32.to_be();

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole = 0,
    /// The first part, which has the ports.
    First = 1,
    /// A later part, which has none.
    Later = 2,
}

/// An IP packet, as far as it concerns us.
///
/// All bytes zero is a value too: programs keep it in memory that starts so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Where the IP header starts.
    pub ip: u32,
    /// Where the transport header starts (in a later fragment: the payload).
    pub transport: u32,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, in network byte order; 0 in a later fragment and in ICMP.
    pub source_port: u16,
    /// Destination port, in network byte order; 0 as above.
    pub destination_port: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// TCP's flags.
    pub tcp_flags: u8,
    /// TTL, or hop limit: how many more routers may forward it.
    pub hops: u8,
    /// The checksum of an IPv4 header, as it stands there.
    pub ip_checksum: u16,
    /// Bytes of a TCP header with its options; 0 for anything else.
    pub tcp_bytes: u8,
    /// Which part of a datagram this is.
    pub fragment: Fragment,
    /// The datagram's id, where it is in parts.
    pub id: u32,
    /// TOS of IPv4; traffic class and flow label of IPv6, as they stand in its first word.
    pub traffic: u32,
}

impl Parsed {
    /// A TCP segment that opens a connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    /// A TCP segment with FIN.
    #[inline(always)]
    #[must_use]
    pub const fn is_fin(&self) -> bool {
        self.tcp_flags & TCP_FIN != 0
    }

    /// A TCP segment with RST.
    #[inline(always)]
    #[must_use]
    pub const fn is_rst(&self) -> bool {
        self.tcp_flags & TCP_RST != 0
    }

    /// IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.source.is_v4()
    }

    /// ICMP of the packet's own family.
    #[inline(always)]
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        if self.is_v4() {
            self.protocol == ICMP
        } else {
            self.protocol == ICMPV6
        }
    }

    /// Neither IPv4 options nor IPv6 extension headers stand before the transport header.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        let usual = if self.is_v4() { 20 } else { 40 };
        self.transport == self.ip + usual
    }

    /// A protocol with ports.
    #[inline(always)]
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP | SCTP)
    }
}

/// Reads the IP packet that starts at `ip`, whose kind `ethertype` says, into `parsed`. `None`
/// for anything that is malformed, cut short, or neither IPv4 nor IPv6.
#[inline(always)]
pub fn parse(packet: &impl Packet, ip: u32, ethertype: u16, parsed: &mut Parsed) -> Option<()> {
    headers::<true>(packet, ip, ethertype, parsed)?;
    if parsed.fragment == Fragment::Later || !parsed.has_ports() {
        return Some(());
    }
    // Most packets have neither options nor extension headers: theirs are known places.
    let usual = if ethertype == IPV4 { ip + 20 } else { ip + 40 };
    if parsed.transport == usual {
        set_ports(parsed, packet.load_fixed(usual)?);
        if parsed.protocol == TCP {
            set_tcp(parsed, packet.load_fixed(usual + TCP_LENGTH_AT)?);
        }
        return Some(());
    }
    set_ports(parsed, packet.load(parsed.transport)?);
    if parsed.protocol == TCP {
        set_tcp(parsed, packet.load(parsed.transport + TCP_LENGTH_AT)?);
    }
    Some(())
}

/// Reads the packet that an ICMP error quotes, of which the first eight bytes behind the IP
/// header are there. `None` also for what has no ports.
#[inline(always)]
pub fn parse_quoted(
    packet: &impl Packet,
    ip: u32,
    ethertype: u16,
    parsed: &mut Parsed,
) -> Option<()> {
    headers::<false>(packet, ip, ethertype, parsed)?;
    if parsed.fragment == Fragment::Later || !parsed.has_ports() {
        return None;
    }
    set_ports(parsed, packet.load(parsed.transport)?);
    Some(())
}

/// Reads the IP headers; `FIXED` where they start at a place that is known when the program is
/// built.
#[inline(always)]
fn headers<const FIXED: bool>(
    packet: &impl Packet,
    ip: u32,
    ethertype: u16,
    parsed: &mut Parsed,
) -> Option<()> {
    parsed.ip = ip;
    parsed.source_port = 0;
    parsed.destination_port = 0;
    parsed.tcp_flags = 0;
    parsed.tcp_bytes = 0;
    parsed.id = 0;
    match ethertype {
        IPV4 => ipv4::<FIXED>(packet, ip, parsed),
        IPV6 => ipv6::<FIXED>(packet, ip, parsed),
        _ => None,
    }
}

#[inline(always)]
fn ipv4<const FIXED: bool>(packet: &impl Packet, ip: u32, parsed: &mut Parsed) -> Option<()> {
    let [start, middle, end, source, destination] = words::<FIXED, 5>(packet, ip)?;
    let [first, tos, ..] = start.to_ne_bytes();
    let header = u32::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 {
        return None;
    }
    let [id0, id1, part0, part1] = middle.to_ne_bytes();
    let [hops, protocol, sum0, sum1] = end.to_ne_bytes();
    let part = u16::from_be_bytes([part0, part1]);
    parsed.transport = ip + header;
    parsed.source = Address::v4(source);
    parsed.destination = Address::v4(destination);
    parsed.protocol = protocol;
    parsed.hops = hops;
    parsed.ip_checksum = u16::from_ne_bytes([sum0, sum1]);
    parsed.traffic = u32::from(tos);
    parsed.fragment = fragment(part & 0x2000 != 0, part & 0x1fff);
    parsed.id = u32::from(u16::from_ne_bytes([id0, id1]));
    Some(())
}

#[inline(always)]
const fn fragment(more: bool, offset: u16) -> Fragment {
    match (more, offset) {
        (_, 1..) => Fragment::Later,
        (true, 0) => Fragment::First,
        (false, 0) => Fragment::Whole,
    }
}

#[inline(always)]
fn ipv6<const FIXED: bool>(packet: &impl Packet, ip: u32, parsed: &mut Parsed) -> Option<()> {
    let [start, middle] = words::<FIXED, 2>(packet, ip)?;
    let ([first, ..], [_, _, next, hops]) = (start.to_ne_bytes(), middle.to_ne_bytes());
    if first >> 4 != 6 {
        return None;
    }
    parsed.transport = ip + 40;
    parsed.source = Address(words::<FIXED, 4>(packet, ip + 8)?);
    parsed.destination = Address(words::<FIXED, 4>(packet, ip + 24)?);
    parsed.protocol = next;
    parsed.hops = hops;
    parsed.traffic = start & TRAFFIC_V6;
    parsed.fragment = Fragment::Whole;
    // `::ffff:0:0/96` must not stand in packets; taken for IPv4 it would mean another address.
    if parsed.source.is_v4() || parsed.destination.is_v4() {
        return None;
    }
    for _ in 0..EXTENSIONS_MAX {
        match parsed.protocol {
            // Hop-by-hop options, routing, destination options: length in 8 bytes, less one.
            0 | 43 | 60 => {
                let [next, length] = packet.load::<2>(parsed.transport)?;
                parsed.protocol = next;
                parsed.transport += (u32::from(length) + 1) * 8;
            }
            44 => {
                let [start, id] = packet.load_words::<2>(parsed.transport)?;
                let [next, _, part0, part1] = start.to_ne_bytes();
                let part = u16::from_be_bytes([part0, part1]);
                parsed.protocol = next;
                parsed.transport += 8;
                parsed.id = id;
                parsed.fragment = fragment(part & 1 != 0, part >> 3);
                if parsed.fragment == Fragment::Later {
                    return Some(());
                }
            }
            _ => return Some(()),
        }
    }
    match parsed.protocol {
        0 | 43 | 44 | 60 => None, // one more
        _ => Some(()),
    }
}

#[inline(always)]
fn words<const FIXED: bool, const N: usize>(packet: &impl Packet, at: u32) -> Option<[u32; N]> {
    if FIXED {
        packet.load_fixed_words(at)
    } else {
        packet.load_words(at)
    }
}

#[inline(always)]
const fn set_ports(parsed: &mut Parsed, [s0, s1, d0, d1]: [u8; 4]) {
    parsed.source_port = u16::from_ne_bytes([s0, s1]);
    parsed.destination_port = u16::from_ne_bytes([d0, d1]);
}

#[inline(always)]
const fn set_tcp(parsed: &mut Parsed, [length, flags]: [u8; 2]) {
    parsed.tcp_bytes = (length >> 4) * 4;
    parsed.tcp_flags = flags;
}
