//! The places of the testbed and the addresses they own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

/// A network namespace of the testbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The node on which the proxy under test runs.
    Node1,
    /// Another node, without a proxy.
    Node2,
    /// Pod on node1, behind the bridge `cbr0`.
    Pod11,
    /// Pod on node1, behind the veth `veth12`.
    Pod12,
    /// Pod on node2.
    Pod21,
    /// Pod on node2.
    Pod22,
    /// Outside the cluster, 198.51.100.2 to .5: the lower half of its network.
    Client,
    /// Outside the cluster, 198.51.100.130 and .131: the upper half.
    Blocked,
    /// The router between all of them.
    Fabric,
}

/// TCP or UDP. SCTP has no sockets here; its rules are compared as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
pub enum Family {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

impl Place {
    /// Every place, in the order in which they are built.
    pub const ALL: [Self; 9] = [
        Self::Fabric,
        Self::Node1,
        Self::Node2,
        Self::Pod11,
        Self::Pod12,
        Self::Pod21,
        Self::Pod22,
        Self::Client,
        Self::Blocked,
    ];

    /// The name used in case tables and in the namespace's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node1 => "node1",
            Self::Node2 => "node2",
            Self::Pod11 => "pod11",
            Self::Pod12 => "pod12",
            Self::Pod21 => "pod21",
            Self::Pod22 => "pod22",
            Self::Client => "client",
            Self::Blocked => "blocked",
            Self::Fabric => "fabric",
        }
    }

    /// All IPv4 addresses of the place, its main one first. Their IPv6 twins are [`to_ipv6`]'s.
    pub fn addresses(self) -> &'static [&'static str] {
        match self {
            Self::Node1 => &["192.168.100.11", "192.168.200.11"],
            Self::Node2 => &["192.168.100.12", "192.168.200.12"],
            Self::Pod11 => &["10.244.1.11", "10.244.1.31", "10.244.1.32", "10.244.1.33"],
            Self::Pod12 => &["10.244.1.12", "10.244.1.41", "10.244.1.42", "10.244.1.43"],
            Self::Pod21 => &["10.244.2.21", "10.244.2.51", "10.244.2.52", "10.244.2.53"],
            Self::Pod22 => &["10.244.2.22", "10.244.2.61", "10.244.2.62", "10.244.2.63"],
            Self::Client => &[
                "198.51.100.2",
                "198.51.100.3",
                "198.51.100.4",
                "198.51.100.5",
            ],
            Self::Blocked => &["198.51.100.130", "198.51.100.131"],
            Self::Fabric => &["192.168.100.1"],
        }
    }

    /// The main address in one family.
    pub fn address(self, family: Family) -> IpAddr {
        let main = self
            .addresses()
            .first()
            .and_then(|text| text.parse::<Ipv4Addr>().ok());
        let main = IpAddr::V4(main.unwrap_or(Ipv4Addr::UNSPECIFIED));
        family.twin(main)
    }

    /// Whether packets of this place start on node1 (the node itself and its pods).
    pub fn lives_on_node1(self) -> bool {
        matches!(self, Self::Node1 | Self::Pod11 | Self::Pod12)
    }

    /// The name of the Node the place is or lives on, if any.
    pub fn node(self) -> Option<&'static str> {
        match self {
            Self::Node1 | Self::Pod11 | Self::Pod12 => Some("node1"),
            Self::Node2 | Self::Pod21 | Self::Pod22 => Some("node2"),
            Self::Client | Self::Blocked | Self::Fabric => None,
        }
    }
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::IPv4
        } else {
            Self::IPv6
        }
    }

    /// `address` in this family: an IPv4 address becomes its IPv6 twin where asked, an IPv6 one stays.
    pub fn twin(self, address: IpAddr) -> IpAddr {
        match (self, address) {
            (Self::IPv6, IpAddr::V4(v4)) => IpAddr::V6(to_ipv6(v4)),
            _ => address,
        }
    }

    /// [`Self::twin`] for an address with its port.
    pub fn twin_socket(self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.twin(address.ip()), address.port())
    }
}

/// The place that owns a pod's or node's address, in either family.
pub fn endpoint_place(address: IpAddr) -> Option<Place> {
    Place::ALL.into_iter().find(|place| {
        place
            .addresses()
            .iter()
            .filter_map(|text| text.parse::<Ipv4Addr>().ok())
            .any(|own| match address {
                IpAddr::V4(v4) => own == v4,
                IpAddr::V6(v6) => to_ipv6(own) == v6,
            })
    })
}

/// The IPv6 twin of an IPv4 address of the testbed; the digits stay readable.
///
/// | IPv4 | IPv6 |
/// |---|---|
/// | 192.168.100.N, 192.168.200.N | fd00:100::N, fd00:200::N |
/// | 10.244.A.N | fd00:244:A::N |
/// | 10.96.A.BB | fd00:96::ABB (A one digit, BB two: all of it in fd00:96::/112) |
/// | 203.0.113.N | 2001:db8:113::N |
/// | 198.51.100.N | 2001:db8:51::N |
/// | 127.0.0.1 | ::1 |
/// | others | the mapped address ::ffff:a.b.c.d, which nothing routes |
pub fn to_ipv6(v4: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = v4.octets();
    let text = match (a, b, c) {
        (192, 168, 100 | 200) => format!("fd00:{c}::{d}"),
        (10, 244, _) => format!("fd00:244:{c}::{d}"),
        (10, 96, _) if c < 10 && d < 100 => format!("fd00:96::{c}{d:02}"),
        (203, 0, 113) => format!("2001:db8:113::{d}"),
        (198, 51, 100) => format!("2001:db8:51::{d}"),
        (127, 0, 0) => "::1".to_owned(),
        (0, 0, 0) => "::".to_owned(),
        _ => return v4.to_ipv6_mapped(),
    };
    text.parse().unwrap_or_else(|_| v4.to_ipv6_mapped())
}

/// The IPv6 twin of an IPv4 prefix: the twin of its first address, as long as keeps the same
/// places inside and outside (a pod or cluster network keeps its own IPv6 length).
///
/// # Errors
/// A prefix for which the testbed has no twin.
pub fn to_ipv6_prefix(prefix: IpNet) -> Result<IpNet> {
    let IpNet::V4(v4) = prefix else {
        return Ok(prefix);
    };
    let first = to_ipv6(v4.network());
    let length = match (v4.network().octets(), v4.prefix_len()) {
        (_, 0) => 0,
        ([10, 244, 0, 0], 16) => 32,
        ([10, 244, ..], 24) => 64,
        ([10, 96, ..], 16) => 112,
        (_, 32) => 128,
        // 24 bits and more: N in hex digits stays below 0x80 for N < 80.
        (_, length @ 24..=31) => 128 - 8 * u8::from(length == 24) - (32 - length),
        _ => bail!("{prefix} has no IPv6 twin in the testbed"),
    };
    Ok(IpNet::new(IpAddr::V6(first), length)?.trunc())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|place| place.name() == text)
            .with_context(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("`{text}` is no place of the testbed; expected one of {names}")
            })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => bail!("`{text}` is no protocol the testbed can send; expected tcp or udp"),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_those_of_the_recorded_objects() {
        for (v4, v6) in [
            ("10.96.1.15", "fd00:96::115"),
            ("10.244.2.21", "fd00:244:2::21"),
            ("192.168.100.12", "fd00:100::12"),
        ] {
            let v4: Ipv4Addr = v4.parse().unwrap();
            assert_eq!(to_ipv6(v4), v6.parse::<Ipv6Addr>().unwrap());
        }
    }

    #[test]
    fn prefix_twins_keep_clients_inside_and_outside() {
        let allowed = to_ipv6_prefix("198.51.100.0/25".parse().unwrap()).unwrap();
        assert!(allowed.contains(&Place::Client.address(Family::IPv6)));
        assert!(!allowed.contains(&Place::Blocked.address(Family::IPv6)));
        let nodes = to_ipv6_prefix("192.168.100.0/24".parse().unwrap()).unwrap();
        assert!(nodes.contains(&Place::Node2.address(Family::IPv6)));
    }

    #[test]
    fn every_endpoint_address_has_one_owner() {
        assert_eq!(
            endpoint_place("10.244.1.31".parse().unwrap()),
            Some(Place::Pod11)
        );
        assert_eq!(
            endpoint_place("fd00:244:2::22".parse().unwrap()),
            Some(Place::Pod22)
        );
        assert_eq!(endpoint_place("10.244.9.9".parse().unwrap()), None);
    }
}
