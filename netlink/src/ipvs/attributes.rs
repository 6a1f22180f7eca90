//! The numbers of `linux/ip_vs.h`, and what services and destinations have in common.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attribute::{self, Detail};
use crate::family::Family;
use crate::writer::Writer;

// Of a message.
pub(super) const CMD_SERVICE: u16 = 1;
pub(super) const CMD_DEST: u16 = 2;
pub(super) const CMD_TIMEOUT_TCP: u16 = 4;
pub(super) const CMD_TIMEOUT_TCP_FIN: u16 = 5;
pub(super) const CMD_TIMEOUT_UDP: u16 = 6;

// Of a service.
pub(super) const SVC_AF: u16 = 1;
pub(super) const SVC_PROTOCOL: u16 = 2;
pub(super) const SVC_ADDR: u16 = 3;
pub(super) const SVC_PORT: u16 = 4;
pub(super) const SVC_FWMARK: u16 = 5;
pub(super) const SVC_SCHED_NAME: u16 = 6;
pub(super) const SVC_FLAGS: u16 = 7;
pub(super) const SVC_TIMEOUT: u16 = 8;
pub(super) const SVC_NETMASK: u16 = 9;

// Of a destination.
pub(super) const DEST_ADDR: u16 = 1;
pub(super) const DEST_PORT: u16 = 2;
pub(super) const DEST_FWD_METHOD: u16 = 3;
pub(super) const DEST_WEIGHT: u16 = 4;
pub(super) const DEST_U_THRESH: u16 = 5;
pub(super) const DEST_L_THRESH: u16 = 6;
pub(super) const DEST_ACTIVE_CONNS: u16 = 7;
pub(super) const DEST_INACT_CONNS: u16 = 8;
pub(super) const DEST_PERSIST_CONNS: u16 = 9;
pub(super) const DEST_ADDR_FAMILY: u16 = 11;

// Of the answer to a question for IPVS itself.
pub(super) const INFO_VERSION: u16 = 1;
pub(super) const INFO_CONN_TAB_SIZE: u16 = 2;

/// `union nf_inet_addr`, of which an IPv4 address fills the first 4 bytes.
const ADDRESS_BYTES: usize = 16;

pub(super) fn write_address(writer: &mut Writer, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; ADDRESS_BYTES];
            if let Some(place) = bytes.first_chunk_mut::<4>() {
                *place = address.octets();
            }
            writer.attribute(kind, &bytes);
        }
        IpAddr::V6(address) => writer.attribute(kind, &address.octets()),
    }
}

pub(super) fn read_address(family: Family, value: &[u8], what: &str) -> Result<IpAddr, Detail> {
    let address = match family {
        Family::V4 => value
            .first_chunk::<4>()
            .map(|octets| Ipv4Addr::from(*octets).into()),
        Family::V6 => value
            .first_chunk::<ADDRESS_BYTES>()
            .map(|octets| Ipv6Addr::from(*octets).into()),
    };
    address.ok_or_else(|| format!("{what} has {} bytes, too few for {family}", value.len()))
}

/// `AF_INET` or `AF_INET6`.
pub(super) fn read_family(value: &[u8], what: &str) -> Result<Family, Detail> {
    let number = attribute::u16_native(value, what)?;
    let family = u8::try_from(number).ok().and_then(Family::from_number);
    family.ok_or_else(|| format!("{what} is {number}"))
}
