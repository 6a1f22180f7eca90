use std::fmt;
use std::net::IpAddr;

use super::set_type::SetType;
use crate::attribute::{self, Detail};
use crate::writer::Writer;

const ATTR_IP: u16 = 1;
const ATTR_IPADDR_IPV4: u16 = 1;
const ATTR_IPADDR_IPV6: u16 = 2;

/// An element of a set; which variant a set takes is its [`SetType`]'s business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// Of `hash:ip`.
    Ip(IpAddr),
}

impl Entry {
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Ip(address) => write_address(writer, ATTR_IP, *address),
        }
    }

    pub(super) fn read(bytes: &[u8], set_type: SetType) -> Result<Self, Detail> {
        match set_type {
            SetType::HashIp => read_address(bytes, ATTR_IP).map(Self::Ip),
        }
    }
}

fn write_address(writer: &mut Writer, kind: u16, address: IpAddr) {
    use netlink_packet_core::NLA_F_NET_BYTEORDER as NET;
    writer.nest(kind, |writer| {
        writer.address(ATTR_IPADDR_IPV4 | NET, ATTR_IPADDR_IPV6 | NET, address);
    });
}

fn read_address(bytes: &[u8], kind: u16) -> Result<IpAddr, Detail> {
    let nest = attribute::find(bytes, kind)?.ok_or("an element without an address")?;
    for attribute in attribute::attributes(nest) {
        match attribute? {
            (ATTR_IPADDR_IPV4, value) => return attribute::ipv4(value, "IPSET_ATTR_IPADDR_IPV4"),
            (ATTR_IPADDR_IPV6, value) => return attribute::ipv6(value, "IPSET_ATTR_IPADDR_IPV6"),
            _ => {}
        }
    }
    Err("an element with an empty address".to_owned())
}

/// As `ipset` writes it.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
        }
    }
}
