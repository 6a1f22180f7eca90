use std::net::{IpAddr, SocketAddr};

use crate::attribute::{self, Detail, attributes};
use crate::family::Family;
use crate::writer::Writer;

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_ZONE: u16 = 18;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// TCP's number in IP headers.
pub(super) const IPPROTO_TCP: u8 = 6;
/// UDP's number in IP headers.
pub(super) const IPPROTO_UDP: u8 = 17;
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
pub(super) const STATUS_DST_NAT: u32 = 1 << 5;

/// A UDP flow of the conntrack table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// From the client to where it believes to send.
    pub original: Tuple,
    /// From who really answers back to the client (or to who masquerades for it).
    pub reply: Tuple,
    /// The conntrack zone, where it is not the default one.
    pub zone: Option<Zone>,
    /// The kernel's id of this very entry.
    pub id: Option<u32>,
    /// `IPS_*` bits of `linux/netfilter/nf_conntrack_common.h`.
    pub status: u32,
}

/// What names an entry to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryKey {
    pub(super) protocol: u8,
    pub(super) original: Tuple,
    pub(super) zone: Option<Zone>,
    pub(super) id: Option<u32>,
}

/// Source and destination of one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

/// A conntrack zone other than the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone {
    /// The zone's number, not 0.
    pub id: u16,
    /// In which direction it counts.
    pub scope: ZoneScope,
}

/// In which direction of a flow its zone counts (Linux 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneScope {
    /// Both.
    Both,
    /// The original direction only.
    Original,
    /// The reply direction only.
    Reply,
}

impl Flow {
    /// IPv4 or IPv6.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.original.destination.ip())
    }

    /// The kernel translates the destination.
    #[must_use]
    pub const fn has_destination_nat(&self) -> bool {
        self.status & STATUS_DST_NAT != 0
    }

    /// Reads the attributes of one entry; `None` if it is not UDP.
    pub(super) fn parse_udp(bytes: &[u8]) -> Result<Option<Self>, Detail> {
        let (mut original, mut reply, mut zone, mut id, mut status) = (None, None, None, None, 0);
        for attribute in attributes(bytes) {
            let (kind, value) = attribute?;
            match kind {
                CTA_TUPLE_ORIG | CTA_TUPLE_REPLY => {
                    let raw = RawTuple::parse(value)?;
                    if raw.protocol != Some(IPPROTO_UDP) {
                        return Ok(None);
                    }
                    let (place, scope) = if kind == CTA_TUPLE_ORIG {
                        (&mut original, ZoneScope::Original)
                    } else {
                        (&mut reply, ZoneScope::Reply)
                    };
                    *place = Some(raw.tuple()?);
                    zone = raw.zone.map(|id| Zone { id, scope }).or(zone);
                }
                CTA_STATUS => status = attribute::u32_be(value, "CTA_STATUS")?,
                CTA_ID => id = Some(attribute::u32_be(value, "CTA_ID")?),
                CTA_ZONE => {
                    let id = attribute::u16_be(value, "CTA_ZONE")?;
                    zone = Some(Zone {
                        id,
                        scope: ZoneScope::Both,
                    });
                }
                _ => {}
            }
        }
        match (original, reply) {
            (Some(original), Some(reply)) => Ok(Some(Self {
                original,
                reply,
                zone,
                id,
                status,
            })),
            _ => Err("a conntrack entry without both of its tuples".to_owned()),
        }
    }

    pub(super) const fn key(&self) -> EntryKey {
        EntryKey {
            protocol: IPPROTO_UDP,
            original: self.original,
            zone: self.zone,
            id: self.id,
        }
    }
}

impl EntryKey {
    /// Writes original tuple, zone, id.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nest(CTA_TUPLE_ORIG, |writer| {
            self.original.write(writer, self.protocol);
            if let Some(Zone {
                id,
                scope: ZoneScope::Original,
            }) = self.zone
            {
                writer.u16_be(CTA_TUPLE_ZONE, id);
            }
        });
        // A zone of the reply direction only does not take part in finding by the original.
        if let Some(Zone {
            id,
            scope: ZoneScope::Both,
        }) = self.zone
        {
            writer.u16_be(CTA_ZONE, id);
        }
        if let Some(id) = self.id {
            writer.u32_be(CTA_ID, id);
        }
    }
}

impl Tuple {
    /// The same the other way round.
    #[must_use]
    pub const fn turned(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }

    /// Writes the inside of a tuple.
    pub(super) fn write(&self, writer: &mut Writer, protocol: u8) {
        let (source, destination) = (self.source, self.destination);
        writer.nest(CTA_TUPLE_IP, |writer| {
            writer.address(CTA_IP_V4_SRC, CTA_IP_V6_SRC, source.ip());
            writer.address(CTA_IP_V4_DST, CTA_IP_V6_DST, destination.ip());
        });
        writer.nest(CTA_TUPLE_PROTO, |writer| {
            writer.u8(CTA_PROTO_NUM, protocol);
            writer.u16_be(CTA_PROTO_SRC_PORT, source.port());
            writer.u16_be(CTA_PROTO_DST_PORT, destination.port());
        });
    }
}

/// The inside of a tuple that says no more than its protocol.
pub(super) fn write_protocol_only(writer: &mut Writer, protocol: u8) {
    writer.nest(CTA_TUPLE_PROTO, |writer| {
        writer.u8(CTA_PROTO_NUM, protocol);
    });
}

#[derive(Default)]
pub(super) struct RawTuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    pub(super) protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    pub(super) zone: Option<u16>,
}

impl RawTuple {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Detail> {
        let mut raw = Self::default();
        for attribute in attributes(bytes) {
            let (kind, value) = attribute?;
            match kind {
                CTA_TUPLE_IP => raw.read_addresses(value)?,
                CTA_TUPLE_PROTO => raw.read_ports(value)?,
                CTA_TUPLE_ZONE => raw.zone = Some(attribute::u16_be(value, "CTA_TUPLE_ZONE")?),
                _ => {}
            }
        }
        Ok(raw)
    }

    fn read_addresses(&mut self, bytes: &[u8]) -> Result<(), Detail> {
        for attribute in attributes(bytes) {
            let (kind, value) = attribute?;
            match kind {
                CTA_IP_V4_SRC => self.source = Some(attribute::ipv4(value, "CTA_IP_V4_SRC")?),
                CTA_IP_V4_DST => self.destination = Some(attribute::ipv4(value, "CTA_IP_V4_DST")?),
                CTA_IP_V6_SRC => self.source = Some(attribute::ipv6(value, "CTA_IP_V6_SRC")?),
                CTA_IP_V6_DST => self.destination = Some(attribute::ipv6(value, "CTA_IP_V6_DST")?),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_ports(&mut self, bytes: &[u8]) -> Result<(), Detail> {
        for attribute in attributes(bytes) {
            let (kind, value) = attribute?;
            match kind {
                CTA_PROTO_NUM => self.protocol = Some(attribute::u8(value, "CTA_PROTO_NUM")?),
                CTA_PROTO_SRC_PORT => {
                    self.source_port = Some(attribute::u16_be(value, "CTA_PROTO_SRC_PORT")?);
                }
                CTA_PROTO_DST_PORT => {
                    self.destination_port = Some(attribute::u16_be(value, "CTA_PROTO_DST_PORT")?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn tuple(&self) -> Result<Tuple, Detail> {
        let socket =
            |address: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(address?, port?));
        socket(self.source, self.source_port)
            .zip(socket(self.destination, self.destination_port))
            .map(|(source, destination)| Tuple {
                source,
                destination,
            })
            .ok_or_else(|| "a tuple without addresses or ports".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Connection;
    use super::*;

    fn tuple_bytes(kind: u8, source: u8, destination: u8, ports: [u8; 2]) -> Vec<u8> {
        let mut bytes = vec![52, 0, kind, 0x80];
        bytes.extend([20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, source]);
        bytes.extend([8, 0, 2, 0, 10, 0, 0, destination]);
        bytes.extend([28, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0]);
        bytes.extend([6, 0, 2, 0, 0, ports[0], 0, 0, 6, 0, 3, 0, 0, ports[1], 0, 0]);
        bytes
    }

    fn entry() -> Vec<u8> {
        let mut bytes = tuple_bytes(1, 1, 2, [40, 53]);
        bytes.extend(tuple_bytes(2, 3, 1, [54, 40]));
        bytes.extend([8, 0, 3, 0, 0, 0, 1, 0xae]); // CTA_STATUS, with IPS_DST_NAT
        bytes.extend([8, 0, 12, 0, 1, 2, 3, 4]); // CTA_ID
        bytes.extend([6, 0, 18, 0, 0, 9, 0, 0]); // CTA_ZONE
        bytes
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_an_entry() {
        let flow = Flow::parse_udp(&entry()).unwrap().unwrap();
        assert_eq!(
            flow.to_string(),
            "udp 10.0.0.1:40 -> 10.0.0.2:53 (replies from 10.0.0.3:54)"
        );
        assert_eq!(flow.id, Some(0x0102_0304));
        assert_eq!(
            flow.zone,
            Some(Zone {
                id: 9,
                scope: ZoneScope::Both
            })
        );
        assert_eq!(flow.family(), Family::V4);
        assert!(flow.has_destination_nat());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn names_an_entry_by_tuple_zone_and_id() {
        let flow = Flow::parse_udp(&entry()).unwrap().unwrap();
        let mut writer = Writer::new();
        flow.key().write(&mut writer);
        let mut expected = tuple_bytes(1, 1, 2, [40, 53]);
        expected.extend([6, 0, 18, 0, 0, 9, 0, 0, 8, 0, 12, 0, 1, 2, 3, 4]);
        assert_eq!(writer.bytes(), Some(&expected[..]));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn other_protocols_are_passed_over_and_broken_entries_named() {
        let mut tcp = entry();
        tcp[32] = 6;
        assert_eq!(Flow::parse_udp(&tcp), Ok(None));
        assert!(Flow::parse_udp(&entry()[..52]).is_err());
        assert!(Flow::parse_udp(&entry()[..50]).is_err());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_a_connection() {
        let mut tcp = entry();
        tcp[32] = 6;
        assert_eq!(Connection::parse(&entry()), Ok(None));
        let of = |state: Option<u8>| {
            let mut bytes = tcp.clone();
            if let Some(state) = state {
                bytes.extend([16, 0, 4, 0x80, 12, 0, 1, 0x80]); // CTA_PROTOINFO, …_TCP
                bytes.extend([5, 0, 1, 0, state, 0, 0, 0]); // …_TCP_STATE
            }
            Connection::parse(&bytes).unwrap().unwrap()
        };
        let there = of(Some(3));
        assert_eq!(there.original.to_string(), "10.0.0.1:40 -> 10.0.0.2:53");
        assert!(there.has_destination_nat && there.is_answered_elsewhere() && !there.is_over);
        assert!(!there.is_masqueraded());
        assert!(of(Some(7)).is_over && of(Some(8)).is_over);
        assert!(!of(None).is_over);
        assert!(Connection::parse(&[]).is_err());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_zone_of_one_direction_stays_in_its_direction() {
        let mut original = tuple_bytes(1, 1, 2, [40, 53]);
        original[0] += 8;
        original.extend([6, 0, 3, 0, 0, 7, 0, 0]);
        let mut bytes = original.clone();
        bytes.extend(tuple_bytes(2, 3, 1, [54, 40]));
        let flow = Flow::parse_udp(&bytes).unwrap().unwrap();
        assert_eq!(
            flow.zone,
            Some(Zone {
                id: 7,
                scope: ZoneScope::Original
            })
        );
        let mut writer = Writer::new();
        flow.key().write(&mut writer);
        assert_eq!(writer.bytes(), Some(&original[..]));
    }
}
