use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NLA_F_NET_BYTEORDER;

use super::set_type::SetType;
use crate::attribute::{self, Detail};
use crate::protocol::Protocol;
use crate::writer::Writer;

const ATTR_IP: u16 = 1;
const ATTR_PORT: u16 = 4;
const ATTR_PROTO: u16 = 7;
const ATTR_CADT_FLAGS: u16 = 8;
const ATTR_IP2: u16 = 20;
const ATTR_CIDR2: u16 = 21;
const ATTR_IPADDR_IPV4: u16 = 1;
const ATTR_IPADDR_IPV6: u16 = 2;

/// A network that does not match (`IPSET_FLAG_NOMATCH`).
const FLAG_NOMATCH: u32 = 1 << 2;

/// An element of a set; which variant a set takes is its [`SetType`]'s business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// Of `hash:ip`.
    Ip(IpAddr),
    /// Of `hash:ip,port`.
    IpPort(IpPort),
    /// Of `hash:ip,port,ip`.
    IpPortIp(IpPort, IpAddr),
    /// Of `hash:ip,port,net`. The kernel keeps the network without host bits, and takes none
    /// with a prefix of 0 bits.
    IpPortNet(IpPort, IpNet),
    /// Of `bitmap:port`.
    Port(u16),
}

/// An address with a protocol and a port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpPort {
    /// The address. The kernel takes no unspecified one (0.0.0.0, ::).
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl Entry {
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Ip(address) => write_address(writer, ATTR_IP, *address),
            Self::IpPort(ip_port) => ip_port.write(writer),
            Self::IpPortIp(ip_port, second) => {
                ip_port.write(writer);
                write_address(writer, ATTR_IP2, *second);
            }
            Self::IpPortNet(ip_port, net) => {
                ip_port.write(writer);
                write_address(writer, ATTR_IP2, net.addr());
                writer.u8(ATTR_CIDR2, net.prefix_len());
            }
            Self::Port(port) => write_port(writer, *port),
        }
    }

    /// An element of a listing; `None` for one that no [`Entry`] says: of another protocol than
    /// [`Protocol`], or a network that is not to match.
    pub(super) fn read(bytes: &[u8], set_type: SetType) -> Result<Option<Self>, Detail> {
        if let SetType::BitmapPort { .. } = set_type {
            return read_port(bytes).map(|port| Some(Self::Port(port)));
        }
        let address = read_address(bytes, ATTR_IP)?;
        if set_type == SetType::HashIp {
            return Ok(Some(Self::Ip(address)));
        }
        let Some(protocol) = read_protocol(bytes)? else {
            return Ok(None);
        };
        let ip_port = IpPort {
            address,
            protocol,
            port: read_port(bytes)?,
        };
        match set_type {
            SetType::HashIpPortIp => {
                let second = read_address(bytes, ATTR_IP2)?;
                Ok(Some(Self::IpPortIp(ip_port, second)))
            }
            SetType::HashIpPortNet if has_flag(bytes, FLAG_NOMATCH)? => Ok(None),
            SetType::HashIpPortNet => {
                let net = read_net(bytes)?;
                Ok(Some(Self::IpPortNet(ip_port, net)))
            }
            _ => Ok(Some(Self::IpPort(ip_port))),
        }
    }
}

impl IpPort {
    fn write(&self, writer: &mut Writer) {
        write_address(writer, ATTR_IP, self.address);
        write_port(writer, self.port);
        writer.u8(ATTR_PROTO, self.protocol.number());
    }
}

fn write_address(writer: &mut Writer, kind: u16, address: IpAddr) {
    use NLA_F_NET_BYTEORDER as NET;
    writer.nest(kind, |writer| {
        writer.address(ATTR_IPADDR_IPV4 | NET, ATTR_IPADDR_IPV6 | NET, address);
    });
}

fn write_port(writer: &mut Writer, port: u16) {
    writer.u16_be(ATTR_PORT | NLA_F_NET_BYTEORDER, port);
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

fn read_port(bytes: &[u8]) -> Result<u16, Detail> {
    let value = attribute::find(bytes, ATTR_PORT)?.ok_or("an element without a port")?;
    attribute::u16_be(value, "IPSET_ATTR_PORT")
}

fn read_protocol(bytes: &[u8]) -> Result<Option<Protocol>, Detail> {
    let value = attribute::find(bytes, ATTR_PROTO)?.ok_or("an element without a protocol")?;
    attribute::u8(value, "IPSET_ATTR_PROTO").map(Protocol::from_number)
}

fn read_net(bytes: &[u8]) -> Result<IpNet, Detail> {
    let address = read_address(bytes, ATTR_IP2)?;
    let prefix = match attribute::find(bytes, ATTR_CIDR2)? {
        Some(value) => attribute::u8(value, "IPSET_ATTR_CIDR2")?,
        None => IpNet::from(address).prefix_len(),
    };
    IpNet::new(address, prefix).map_err(|_| format!("IPSET_ATTR_CIDR2 is {prefix}"))
}

fn has_flag(bytes: &[u8], flag: u32) -> Result<bool, Detail> {
    let Some(value) = attribute::find(bytes, ATTR_CADT_FLAGS)? else {
        return Ok(false);
    };
    let flags = attribute::u32_be(value, "IPSET_ATTR_CADT_FLAGS")?;
    Ok(flags & flag != 0)
}

/// As `ipset` writes it.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::IpPort(ip_port) => ip_port.fmt(f),
            Self::IpPortIp(ip_port, second) => write!(f, "{ip_port},{second}"),
            // The tool leaves out the prefix of a single address.
            Self::IpPortNet(ip_port, net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{ip_port},{}", net.addr())
            }
            Self::IpPortNet(ip_port, net) => write!(f, "{ip_port},{net}"),
            Self::Port(port) => port.fmt(f),
        }
    }
}

/// `10.0.0.1,tcp:80`, as `ipset` writes it.
impl fmt::Display for IpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}:{}", self.address, self.protocol, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> [(Entry, SetType, &'static str); 8] {
        let v4 = IpPort {
            address: [10, 0, 0, 1].into(),
            protocol: Protocol::Tcp,
            port: 80,
        };
        let v6 = IpPort {
            address: "fd00::1".parse().unwrap(),
            protocol: Protocol::Sctp,
            port: 65_535,
        };
        let net = |text: &str| text.parse().unwrap();
        [
            (
                Entry::Ip("fd00::1".parse().unwrap()),
                SetType::HashIp,
                "fd00::1",
            ),
            (Entry::IpPort(v4), SetType::HashIpPort, "10.0.0.1,tcp:80"),
            (Entry::IpPort(v6), SetType::HashIpPort, "fd00::1,sctp:65535"),
            (
                Entry::IpPortIp(v4, [10, 0, 0, 1].into()),
                SetType::HashIpPortIp,
                "10.0.0.1,tcp:80,10.0.0.1",
            ),
            (
                Entry::IpPortNet(v4, net("192.168.0.0/16")),
                SetType::HashIpPortNet,
                "10.0.0.1,tcp:80,192.168.0.0/16",
            ),
            (
                Entry::IpPortNet(v4, net("192.168.0.1/32")),
                SetType::HashIpPortNet,
                "10.0.0.1,tcp:80,192.168.0.1",
            ),
            (
                Entry::IpPortNet(v6, net("fd00:1::/32")),
                SetType::HashIpPortNet,
                "fd00::1,sctp:65535,fd00:1::/32",
            ),
            (Entry::Port(30_000), SetType::ALL_PORTS, "30000"),
        ]
    }

    fn written(entry: &Entry) -> Vec<u8> {
        let mut writer = Writer::new();
        entry.write(&mut writer);
        writer.bytes().unwrap().to_vec()
    }

    #[test]
    fn what_was_written_is_read_and_shown_as_the_tool_does() {
        for (entry, set_type, shown) in entries() {
            let bytes = written(&entry);
            assert_eq!(Entry::read(&bytes, set_type), Ok(Some(entry)));
            assert_eq!(entry.to_string(), shown);
            for end in (0..bytes.len()).step_by(4) {
                let _ = Entry::read(&bytes[..end], set_type); // must not panic
            }
        }
    }

    #[test]
    fn an_element_as_bytes() {
        let (entry, ..) = entries()[4];
        let expected = [
            12, 0, 1, 0x80, 8, 0, 1, 0x40, 10, 0, 0, 1, // IPSET_ATTR_IP
            6, 0, 4, 0x40, 0, 80, 0, 0, // IPSET_ATTR_PORT, in network order
            5, 0, 7, 0, 6, 0, 0, 0, // IPSET_ATTR_PROTO
            12, 0, 20, 0x80, 8, 0, 1, 0x40, 192, 168, 0, 0, // IPSET_ATTR_IP2
            5, 0, 21, 0, 16, 0, 0, 0, // IPSET_ATTR_CIDR2
        ];
        #[cfg(target_endian = "little")]
        assert_eq!(written(&entry), expected);
    }

    #[test]
    fn what_no_entry_says_is_left_out() {
        let (net, set_type, _) = entries()[4];
        let mut writer = Writer::new();
        net.write(&mut writer);
        writer.u32_marked_be(ATTR_CADT_FLAGS, FLAG_NOMATCH);
        assert_eq!(Entry::read(writer.bytes().unwrap(), set_type), Ok(None));
        writer.clear();
        write_address(&mut writer, ATTR_IP, [10, 0, 0, 1].into());
        write_port(&mut writer, 0x0800);
        writer.u8(ATTR_PROTO, 1); // ICMP
        let bytes = writer.bytes().unwrap();
        assert_eq!(Entry::read(bytes, SetType::HashIpPort), Ok(None));
    }
}
