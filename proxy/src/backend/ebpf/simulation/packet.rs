//! Packets as bytes: just enough of them to be translated and read back. Their checksums are
//! zero; what becomes of checksums is a matter of `ebpf/datapath`'s own tests.

use std::net::{IpAddr, SocketAddr};

use switchyard_datapath::layout::{TCP, UDP};
use switchyard_datapath::table::Bytes;

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// The first packet of a connection (or its answer), or a datagram.
pub(super) fn build(
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    reply: bool,
) -> Bytes {
    let mut transport = Vec::new();
    transport.extend(source.port().to_be_bytes());
    transport.extend(destination.port().to_be_bytes());
    match protocol {
        TCP => {
            transport.extend([0; 8]);
            transport.extend([
                0x50,
                if reply { SYN_ACK } else { SYN },
                0xff,
                0xff,
                0,
                0,
                0,
                0,
            ]);
        }
        UDP => transport.extend([0, 8, 0, 0]),
        other => panic!("protocol {other}"),
    }
    let length = transport.len();
    let mut bytes = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(IPV4_HEADER + length).unwrap().to_be_bytes();
            let mut bytes = vec![0x45, 0, total[0], total[1], 0, 7, 0, 0, 64, protocol, 0, 0];
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let payload = u16::try_from(length).unwrap().to_be_bytes();
            let mut bytes = vec![0x60, 0, 0, 0, payload[0], payload[1], protocol, 64];
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes
        }
        _ => panic!("two families in one packet"),
    };
    bytes.extend(transport);
    Bytes::plain(bytes)
}

/// Source and destination of such a packet.
pub(super) fn read(packet: &Bytes) -> (SocketAddr, SocketAddr) {
    let bytes = &packet.bytes;
    let (addresses, header) = match bytes[0] >> 4 {
        4 => (
            [12, 16].map(|at| {
                let octets: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
                IpAddr::from(octets)
            }),
            IPV4_HEADER,
        ),
        _ => (
            [8, 24].map(|at| {
                let octets: [u8; 16] = bytes[at..at + 16].try_into().unwrap();
                IpAddr::from(octets)
            }),
            IPV6_HEADER,
        ),
    };
    let port = |at: usize| u16::from_be_bytes([bytes[header + at], bytes[header + at + 1]]);
    let [source, destination] = addresses;
    (
        SocketAddr::new(source, port(0)),
        SocketAddr::new(destination, port(2)),
    )
}
