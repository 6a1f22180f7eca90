//! Packets from nothing, and their checksums from scratch: written without the crate's own code.

use std::net::IpAddr;

use switchyard_datapath::layout::{SCTP, TCP, UDP};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Which part of a datagram: its id, the offset in 8 bytes, and whether more follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: u16,
    pub(crate) offset: u16,
    pub(crate) more: bool,
}

/// A packet to build.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
    pub(crate) protocol: u8,
    pub(crate) tcp_flags: u8,
    pub(crate) payload: Vec<u8>,
    /// IPv4: words of options (0 to 10).
    pub(crate) options: usize,
    /// IPv6: kinds of extension headers and their lengths in 8 bytes, from 1.
    pub(crate) extensions: Vec<(u8, u8)>,
    /// UDP over IPv4 may have none.
    pub(crate) has_checksum: bool,
    /// TTL, or hop limit.
    pub(crate) hops: u8,
}

impl Build {
    pub(crate) fn new(source: (IpAddr, u16), destination: (IpAddr, u16), protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            tcp_flags: 0,
            payload: b"payload".to_vec(),
            options: 0,
            extensions: Vec::new(),
            has_checksum: true,
            hops: 64,
        }
    }

    /// The whole packet.
    pub(crate) fn whole(&self) -> Vec<u8> {
        self.ip(&self.transport(), None)
    }

    /// The packet in two parts, cut at a multiple of 8 bytes behind the transport header.
    pub(crate) fn parts(&self, id: u16) -> [Vec<u8>; 2] {
        let transport = self.transport();
        let cut = 24.min(transport.len() / 8 * 8);
        let offset = u16::try_from(cut / 8).unwrap();
        let part = |offset, more| Some(Part { id, offset, more });
        [
            self.ip(&transport[..cut], part(0, true)),
            self.ip(&transport[cut..], part(offset, false)),
        ]
    }

    /// The transport header with its checksum, and the payload.
    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.1.to_be_bytes());
        bytes.extend(self.destination.1.to_be_bytes());
        let checksum = match self.protocol {
            TCP => {
                bytes.extend([
                    1,
                    2,
                    3,
                    4,
                    5,
                    6,
                    7,
                    8,
                    0x50,
                    self.tcp_flags,
                    0xff,
                    0xff,
                    0,
                    0,
                    0,
                    0,
                ]);
                Some(16)
            }
            UDP => {
                let length = u16::try_from(8 + self.payload.len()).unwrap();
                bytes.extend(length.to_be_bytes());
                bytes.extend([0, 0]);
                self.has_checksum.then_some(6)
            }
            SCTP => {
                bytes.extend([0xaa, 0xbb, 0xcc, 0xdd, 0x11, 0x22, 0x33, 0x44]);
                None
            }
            _ => None,
        };
        bytes.extend(&self.payload);
        if let Some(at) = checksum {
            let sum = pseudo(
                self.source.0,
                self.destination.0,
                self.protocol,
                bytes.len(),
            );
            let mut sum = !fold(sum + words(&bytes));
            if self.protocol == UDP && sum == 0 {
                sum = 0xffff;
            }
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// The IP header around a part of the transport's bytes.
    fn ip(&self, inner: &[u8], part: Option<Part>) -> Vec<u8> {
        match (self.source.0, self.destination.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let length = 20 + self.options * 4;
                let mut bytes = vec![0x40 | u8::try_from(length / 4).unwrap(), 0];
                bytes.extend(u16::try_from(length + inner.len()).unwrap().to_be_bytes());
                let (id, offset) = part.map_or((7, 0), |part| {
                    (part.id, part.offset | if part.more { 0x2000 } else { 0 })
                });
                bytes.extend(id.to_be_bytes());
                bytes.extend(offset.to_be_bytes());
                bytes.extend([self.hops, self.protocol, 0, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                bytes.extend(std::iter::repeat_n(1, self.options * 4));
                let sum = !fold(words(&bytes));
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                bytes.extend(inner);
                bytes
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut chain = self.extensions.clone();
                if part.is_some() {
                    chain.push((44, 1));
                }
                let mut behind = Vec::new();
                for (at, (kind, length)) in chain.iter().enumerate() {
                    let next = chain.get(at + 1).map_or(self.protocol, |(kind, _)| *kind);
                    match (kind, part) {
                        (44, Some(part)) => {
                            behind.extend([next, 0]);
                            let bits = part.offset << 3 | u16::from(part.more);
                            behind.extend(bits.to_be_bytes());
                            behind.extend(u32::from(part.id).to_be_bytes());
                        }
                        _ => {
                            let mut header = vec![0; usize::from(*length) * 8];
                            header[0] = next;
                            header[1] = length - 1;
                            behind.extend(header);
                        }
                    }
                }
                behind.extend(inner);
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend(u16::try_from(behind.len()).unwrap().to_be_bytes());
                bytes.push(chain.first().map_or(self.protocol, |(kind, _)| *kind));
                bytes.push(self.hops);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                bytes.extend(behind);
                bytes
            }
            _ => panic!("two families in one packet"),
        }
    }
}

/// An ICMP error from `source` to `destination` that quotes the first bytes of a packet.
pub(crate) fn icmp_error(source: IpAddr, destination: IpAddr, kind: u8, quote: &[u8]) -> Vec<u8> {
    let mut icmp = vec![kind, 1, 0, 0, 0, 0, 0, 0];
    icmp.extend(quote);
    let mut sum = words(&icmp);
    let protocol = if source.is_ipv4() { 1 } else { 58 };
    if source.is_ipv6() {
        sum += pseudo(source, destination, protocol, icmp.len());
    }
    icmp[2..4].copy_from_slice(&(!fold(sum)).to_be_bytes());
    Build::new((source, 0), (destination, 0), protocol).ip(&icmp, None)
}

/// A packet read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
    pub(crate) protocol: u8,
    /// Where the transport header starts.
    pub(crate) transport: usize,
    pub(crate) part: Option<(u16, bool)>,
}

impl Read {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let octets = |at: usize, length: usize| -> IpAddr {
            match bytes[at..at + length] {
                [a, b, c, d] => IpAddr::from([a, b, c, d]),
                _ => IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + length]).unwrap()),
            }
        };
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut part = None;
        let (from, to, protocol, transport) = if bytes[0] >> 4 == 4 {
            let bits = number(6);
            if bits & 0x3fff != 0 {
                part = Some((bits & 0x1fff, bits & 0x2000 != 0));
            }
            let header = usize::from(bytes[0] & 15) * 4;
            (octets(12, 4), octets(16, 4), bytes[9], header)
        } else {
            let (mut kind, mut at) = (bytes[6], 40);
            while matches!(kind, 0 | 43 | 44 | 60) {
                let mut length = 8;
                if kind == 44 {
                    let bits = number(at + 2);
                    part = Some((bits >> 3, bits & 1 != 0));
                } else {
                    length += usize::from(bytes[at + 1]) * 8;
                }
                kind = bytes[at];
                at += length;
            }
            (octets(8, 16), octets(24, 16), kind, at)
        };
        let later = part.is_some_and(|(offset, _)| offset > 0);
        let has_ports = matches!(protocol, TCP | UDP | SCTP) && !later;
        let port = |at| if has_ports { number(transport + at) } else { 0 };
        Self {
            source: (from, port(0)),
            destination: (to, port(2)),
            protocol,
            transport,
            part,
        }
    }
}

/// Verifies all checksums of a packet that is not in parts.
pub(crate) fn verify(bytes: &[u8]) {
    let read = Read::of(bytes);
    verify_ip(bytes);
    let transport = &bytes[read.transport..];
    let sum = words(transport);
    let pseudo = pseudo(
        read.source.0,
        read.destination.0,
        read.protocol,
        transport.len(),
    );
    match read.protocol {
        UDP if transport[6..8] == [0, 0] => {}
        TCP | UDP | 58 => assert_eq!(fold(sum + pseudo), 0xffff, "checksum of {read:?}"),
        1 => assert_eq!(fold(sum), 0xffff, "checksum of {read:?}"),
        _ => {}
    }
}

/// Verifies the checksum of an IPv4 header.
pub(crate) fn verify_ip(bytes: &[u8]) {
    if bytes[0] >> 4 == 4 {
        let header = usize::from(bytes[0] & 15) * 4;
        assert_eq!(
            fold(words(&bytes[..header])),
            0xffff,
            "checksum of the IP header"
        );
    }
}

/// Puts two parts of a datagram together.
pub(crate) fn join(parts: &[Vec<u8>; 2]) -> Vec<u8> {
    let [first, later] = parts;
    let (start, rest) = (Read::of(first), Read::of(later));
    assert_eq!(start.part.unwrap().0, 0);
    let payload = &first[start.transport..];
    assert_eq!(usize::from(rest.part.unwrap().0) * 8, payload.len());
    let inner = [payload, &later[rest.transport..]].concat();
    Build::new(
        (start.source.0, 0),
        (start.destination.0, 0),
        start.protocol,
    )
    .ip(&inner, None)
}

/// The sum that a packet's field holds while its checksum is left to the device.
pub(crate) fn pseudo_sum(bytes: &[u8]) -> u16 {
    let read = Read::of(bytes);
    let length = bytes.len() - read.transport;
    fold(pseudo(
        read.source.0,
        read.destination.0,
        read.protocol,
        length,
    ))
}

/// What a device does with a packet whose checksum was left to it.
pub(crate) fn finish(bytes: &mut [u8]) {
    let read = Read::of(bytes);
    let at = read.transport + if read.protocol == TCP { 16 } else { 6 };
    let sum = !fold(words(&bytes[read.transport..]));
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> u64 {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => words(&v4.octets()),
        IpAddr::V6(v6) => words(&v6.octets()),
    };
    address(from) + address(to) + u64::from(protocol) + u64::try_from(length).unwrap()
}

fn words(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| {
        let low = pair.get(1).copied().unwrap_or(0);
        u64::from(pair[0]) << 8 | u64::from(low)
    };
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
