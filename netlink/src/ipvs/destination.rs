use std::fmt;
use std::net::SocketAddr;

use super::attributes::{self as attr, read_address};
use crate::attribute::{self, Detail, attributes};
use crate::family::Family;
use crate::writer::Writer;

/// The bits of `IPVS_DEST_ATTR_FWD_METHOD` that are the method.
const FORWARDING_MASK: u32 = 0x7;

/// A destination of a virtual service, the kernel's "real server". Its address identifies it
/// among those of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Where connections go.
    pub address: SocketAddr,
    /// How they get there.
    pub forwarding: Forwarding,
    /// Its share, for schedulers that know weights; at most `i32::MAX`. 0: no new connections.
    pub weight: u32,
    /// From how many connections on it gets no more of them; 0: no limit.
    pub upper_threshold: u32,
    /// Below how many connections it gets some again, once it was above the upper threshold,
    /// which must not be less; 0: below three quarters of that.
    pub lower_threshold: u32,
}

impl Destination {
    /// A destination that packets are sent to by rewriting their addresses, without limits.
    #[must_use]
    pub const fn masqueraded(address: SocketAddr, weight: u32) -> Self {
        Self {
            address,
            forwarding: Forwarding::Masquerade,
            weight,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nest(attr::CMD_DEST, |writer| {
            write_key_attributes(writer, self.address);
            writer.u32_native(attr::DEST_FWD_METHOD, self.forwarding.number());
            writer.u32_native(attr::DEST_WEIGHT, self.weight);
            writer.u32_native(attr::DEST_U_THRESH, self.upper_threshold);
            writer.u32_native(attr::DEST_L_THRESH, self.lower_threshold);
        });
    }
}

/// The attributes that name a destination of a service.
pub(super) fn write_key(writer: &mut Writer, address: SocketAddr) {
    writer.nest(attr::CMD_DEST, |writer| {
        write_key_attributes(writer, address);
    });
}

fn write_key_attributes(writer: &mut Writer, address: SocketAddr) {
    attr::write_address(writer, attr::DEST_ADDR, address.ip());
    writer.u16_be(attr::DEST_PORT, address.port());
    let family = Family::of(address.ip()).number();
    writer.u16_native(attr::DEST_ADDR_FAMILY, u16::from(family));
}

/// How packets get to a destination (`IP_VS_CONN_F_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// By rewriting their addresses (NAT).
    Masquerade,
    /// They stay on this node.
    Local,
    /// In a tunnel.
    Tunnel,
    /// As they are, to its link-layer address.
    DirectRoute,
    /// As they are, to where they were going.
    Bypass,
}

impl Forwarding {
    const fn number(self) -> u32 {
        match self {
            Self::Masquerade => 0,
            Self::Local => 1,
            Self::Tunnel => 2,
            Self::DirectRoute => 3,
            Self::Bypass => 4,
        }
    }

    fn from_number(number: u32) -> Result<Self, Detail> {
        match number & FORWARDING_MASK {
            0 => Ok(Self::Masquerade),
            1 => Ok(Self::Local),
            2 => Ok(Self::Tunnel),
            3 => Ok(Self::DirectRoute),
            4 => Ok(Self::Bypass),
            other => Err(format!("forwarding method {other}")),
        }
    }
}

/// What a destination has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Connections {
    /// Established ones.
    pub active: u32,
    /// Others: beginning, ending, and those of protocols without states.
    pub inactive: u32,
    /// Clients that persistence keeps here.
    pub persistent: u32,
}

impl Connections {
    /// Whether connections or clients would lose the destination if it was deleted.
    #[must_use]
    pub const fn are_none(&self) -> bool {
        self.active == 0 && self.inactive == 0 && self.persistent == 0
    }
}

/// A destination as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedDestination {
    /// What it is.
    pub destination: Destination,
    /// Its connections at the moment of listing.
    pub connections: Connections,
}

impl ListedDestination {
    /// One of a listing, from a message's attributes. `family` is the service's, which kernels
    /// before 3.18 don't repeat.
    pub(super) fn read(message: &[u8], family: Family) -> Result<Self, Detail> {
        let bytes = attribute::find(message, attr::CMD_DEST)?.ok_or("no destination in it")?;
        let (mut family, mut address, mut port) = (family, None, None);
        let (mut forwarding, mut weight, mut thresholds) = (Forwarding::Masquerade, None, (0, 0));
        let mut connections = Connections::default();
        for attribute in attributes(bytes) {
            let (kind, value) = attribute?;
            let number = |what| attribute::u32_native(value, what);
            match kind {
                attr::DEST_ADDR => address = Some(value),
                attr::DEST_PORT => port = Some(attribute::u16_be(value, "IPVS_DEST_ATTR_PORT")?),
                attr::DEST_ADDR_FAMILY => {
                    family = attr::read_family(value, "IPVS_DEST_ATTR_ADDR_FAMILY")?;
                }
                attr::DEST_FWD_METHOD => {
                    forwarding = Forwarding::from_number(number("IPVS_DEST_ATTR_FWD_METHOD")?)?;
                }
                attr::DEST_WEIGHT => weight = Some(number("IPVS_DEST_ATTR_WEIGHT")?),
                attr::DEST_U_THRESH => thresholds.0 = number("IPVS_DEST_ATTR_U_THRESH")?,
                attr::DEST_L_THRESH => thresholds.1 = number("IPVS_DEST_ATTR_L_THRESH")?,
                attr::DEST_ACTIVE_CONNS => {
                    connections.active = number("IPVS_DEST_ATTR_ACTIVE_CONNS")?;
                }
                attr::DEST_INACT_CONNS => {
                    connections.inactive = number("IPVS_DEST_ATTR_INACT_CONNS")?;
                }
                attr::DEST_PERSIST_CONNS => {
                    connections.persistent = number("IPVS_DEST_ATTR_PERSIST_CONNS")?;
                }
                _ => {}
            }
        }
        let address = address.ok_or("a destination without an address")?;
        let address = read_address(family, address, "IPVS_DEST_ATTR_ADDR")?;
        let port = port.ok_or("a destination without a port")?;
        Ok(Self {
            destination: Destination {
                address: SocketAddr::new(address, port),
                forwarding,
                weight: weight.ok_or("a destination without a weight")?,
                upper_threshold: thresholds.0,
                lower_threshold: thresholds.1,
            },
            connections,
        })
    }
}

/// `10.1.0.1:8080`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
