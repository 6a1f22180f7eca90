use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::attributes::{self as attr, read_address};
use super::scheduler::SchedulerName;
use crate::attribute::{self, Detail, attributes};
use crate::family::Family;
use crate::protocol::Protocol;
use crate::writer::Writer;

/// `struct ip_vs_flags`.
const FLAGS_BYTES: usize = 8;
const FLAG_PERSISTENT: u32 = 0x1;
/// Set by the kernel for every service that is there; not for others to set.
const FLAG_HASHED: u32 = 0x2;

/// What identifies a virtual service: where it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its address and port. Port 0 is every port, for persistent services only.
    pub address: SocketAddr,
}

impl ServiceKey {
    /// The family of its address.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.address.ip())
    }

    /// The attributes that name a service.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nest(attr::CMD_SERVICE, |writer| self.write_attributes(writer));
    }

    fn write_attributes(&self, writer: &mut Writer) {
        writer.u16_native(attr::SVC_AF, u16::from(self.family().number()));
        writer.u16_native(attr::SVC_PROTOCOL, u16::from(self.protocol.number()));
        attr::write_address(writer, attr::SVC_ADDR, self.address.ip());
        writer.u16_be(attr::SVC_PORT, self.address.port());
    }
}

/// `tcp 10.0.0.1:80`.
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address)
    }
}

/// A virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Where it listens.
    pub key: ServiceKey,
    /// How a destination is chosen.
    pub scheduler: SchedulerName,
    /// Whether, and for how long, a client stays with its destination.
    pub persistence: Option<Persistence>,
    /// Switches of the service or its scheduler.
    pub flags: ServiceFlags,
}

/// A client's connections go to one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Persistence {
    /// For how long after the last connection, in seconds.
    pub timeout_seconds: u32,
    /// How much of a client's address counts, in bits: 32 (IPv6: 128) for each client on its
    /// own. IPv6 takes no 0.
    pub prefix_bits: u8,
}

impl Persistence {
    /// Each client on its own.
    #[must_use]
    pub const fn per_client(family: Family, timeout_seconds: u32) -> Self {
        Self {
            timeout_seconds,
            prefix_bits: address_bits(family),
        }
    }
}

/// Switches of a service (`IP_VS_SVC_F_*`), without persistence, which is [`Persistence`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceFlags(u32);

impl ServiceFlags {
    /// None set.
    pub const NONE: Self = Self(0);
    /// Every UDP datagram is scheduled on its own.
    pub const ONE_PACKET: Self = Self(0x4);
    /// `sh` and `mh`: take another destination while the chosen one has weight 0.
    pub const HASH_FALLBACK: Self = Self(0x8);
    /// `sh` and `mh`: the client's port counts as well.
    pub const HASH_PORT: Self = Self(0x10);

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Service {
    /// All attributes.
    pub(super) fn write(&self, writer: &mut Writer) {
        let mut flags = self.flags.0 & !(FLAG_PERSISTENT | FLAG_HASHED);
        if self.persistence.is_some() {
            flags |= FLAG_PERSISTENT;
        }
        let family = self.key.family();
        // What ipvsadm writes as well where there is no persistence.
        let persistence = self.persistence.unwrap_or(Persistence {
            timeout_seconds: 0,
            prefix_bits: address_bits(family),
        });
        let mut flags_and_mask = [0; FLAGS_BYTES];
        let (value, mask) = flags_and_mask.split_at_mut(FLAGS_BYTES / 2);
        value.copy_from_slice(&flags.to_ne_bytes());
        mask.copy_from_slice(&u32::MAX.to_ne_bytes());
        writer.nest(attr::CMD_SERVICE, |writer| {
            self.key.write_attributes(writer);
            writer.text(attr::SVC_SCHED_NAME, self.scheduler.as_str());
            writer.attribute(attr::SVC_FLAGS, &flags_and_mask);
            writer.u32_native(attr::SVC_TIMEOUT, persistence.timeout_seconds);
            let netmask = netmask(family, persistence.prefix_bits);
            writer.attribute(attr::SVC_NETMASK, &netmask);
        });
    }

    /// A service of a listing, from a message's attributes; `None` if it is found by a firewall
    /// mark or is of a protocol that no Kubernetes Service has: nobody here makes such ones.
    pub(super) fn read(message: &[u8]) -> Result<Option<Self>, Detail> {
        let bytes = attribute::find(message, attr::CMD_SERVICE)?.ok_or("no service in it")?;
        let (mut family, mut protocol, mut address, mut port) = (None, None, None, None);
        let (mut scheduler, mut flags, mut timeout, mut netmask) = (None, 0, 0, None);
        for attribute in attributes(bytes) {
            let (kind, value) = attribute?;
            match kind {
                attr::SVC_AF => family = Some(attr::read_family(value, "IPVS_SVC_ATTR_AF")?),
                attr::SVC_PROTOCOL => {
                    protocol = Some(attribute::u16_native(value, "IPVS_SVC_ATTR_PROTOCOL")?);
                }
                attr::SVC_ADDR => address = Some(value),
                attr::SVC_PORT => port = Some(attribute::u16_be(value, "IPVS_SVC_ATTR_PORT")?),
                attr::SVC_FWMARK => return Ok(None),
                attr::SVC_SCHED_NAME => {
                    let name = attribute::text(value, "IPVS_SVC_ATTR_SCHED_NAME")?;
                    scheduler = Some(SchedulerName::read(name)?);
                }
                attr::SVC_FLAGS => flags = read_flags(value)?,
                attr::SVC_TIMEOUT => {
                    timeout = attribute::u32_native(value, "IPVS_SVC_ATTR_TIMEOUT")?;
                }
                attr::SVC_NETMASK => netmask = Some(value),
                _ => {}
            }
        }
        let family = family.ok_or("a service without a family")?;
        let protocol = protocol.ok_or("a service without a protocol")?;
        let protocol = u8::try_from(protocol).ok().and_then(Protocol::from_number);
        let Some(protocol) = protocol else {
            return Ok(None);
        };
        let address = address.ok_or("a service without an address")?;
        let address = read_address(family, address, "IPVS_SVC_ATTR_ADDR")?;
        let prefix_bits = netmask
            .map(|value| read_prefix(family, value))
            .transpose()?;
        let persistence = (flags & FLAG_PERSISTENT != 0).then(|| Persistence {
            timeout_seconds: timeout,
            prefix_bits: prefix_bits.unwrap_or_else(|| address_bits(family)),
        });
        Ok(Some(Self {
            key: ServiceKey {
                protocol,
                address: SocketAddr::new(address, port.ok_or("a service without a port")?),
            },
            scheduler: scheduler.ok_or("a service without a scheduler")?,
            persistence,
            flags: ServiceFlags(flags & !(FLAG_PERSISTENT | FLAG_HASHED)),
        }))
    }
}

/// `tcp 10.0.0.1:80 (rr)`.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key, self.scheduler)
    }
}

const fn address_bits(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// A mask in network order for IPv4, a length in bits in host order for IPv6.
fn netmask(family: Family, prefix_bits: u8) -> [u8; 4] {
    match family {
        Family::V4 => {
            let host_bits = u32::from(address_bits(family).saturating_sub(prefix_bits));
            u32::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes()
        }
        Family::V6 => u32::from(prefix_bits).to_ne_bytes(),
    }
}

fn read_prefix(family: Family, value: &[u8]) -> Result<u8, Detail> {
    let what = "IPVS_SVC_ATTR_NETMASK";
    let bits = match family {
        Family::V4 => match attribute::ipv4(value, what)? {
            IpAddr::V4(mask) => Ipv4Addr::to_bits(mask).leading_ones(),
            IpAddr::V6(_) => 0,
        },
        Family::V6 => attribute::u32_native(value, what)?,
    };
    u8::try_from(bits).map_err(|_| format!("{what} is {bits} bits"))
}

fn read_flags(value: &[u8]) -> Result<u32, Detail> {
    let flags = value
        .get(..FLAGS_BYTES / 2)
        .ok_or("IPVS_SVC_ATTR_FLAGS is too short")?;
    attribute::u32_native(flags, "IPVS_SVC_ATTR_FLAGS")
}
