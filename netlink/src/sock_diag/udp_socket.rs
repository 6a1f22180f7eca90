use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::attribute::Detail;
use crate::family::Family;

/// `struct inet_diag_sockid` of `linux/inet_diag.h`.
const SOCKET_ID_BYTES: usize = 48;
/// `INET_DIAG_NOCOOKIE`: to the kernel it means "whichever socket is there".
const NO_COOKIE: u64 = u64::MAX;

/// The id that stands for no socket in particular.
pub(super) const NO_SOCKET_ID: [u8; SOCKET_ID_BYTES] = [0; SOCKET_ID_BYTES];

/// A connected UDP socket, as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpSocket {
    /// Of the socket, not of what it talks to.
    pub family: Family,
    /// Its own end. An IPv6 socket that talks IPv4 has IPv4-mapped addresses on both ends.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Index of the interface it is bound to, 0 for none.
    pub interface: u32,
    /// The owner, as the reader's user namespace numbers users.
    pub uid: u32,
    /// Inode of the socket's file: `socket:[inode]` in /proc/PID/fd.
    pub inode: u32,
    /// Private, so that only what was listed can be destroyed.
    cookie: u64,
}

impl UdpSocket {
    /// What identifies it as long as the machine runs (`SO_COOKIE`).
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Where it sends to, an IPv4-mapped address as the IPv4 address that it means.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.remote.ip().to_canonical(), self.remote.port())
    }

    /// Reads `struct inet_diag_msg`; the attributes behind it are not needed.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Detail> {
        let mut fields = Fields { rest: bytes };
        let [family, _state, _timer, _retransmits] = fields.take()?;
        let family =
            Family::from_number(family).ok_or_else(|| format!("a socket of family {family}"))?;
        let local_port = u16::from_be_bytes(fields.take()?);
        let remote_port = u16::from_be_bytes(fields.take()?);
        let local = fields.address(family)?;
        let remote = fields.address(family)?;
        let interface = fields.number()?;
        let (low, high) = (fields.number()?, fields.number()?);
        let cookie = u64::from(high) << 32 | u64::from(low);
        if cookie == NO_COOKIE {
            return Err("a socket without a cookie".to_owned());
        }
        let [_expires, _receive_queue, _send_queue] =
            [fields.number()?, fields.number()?, fields.number()?];
        Ok(Self {
            family,
            local: SocketAddr::new(local, local_port),
            remote: SocketAddr::new(remote, remote_port),
            interface,
            uid: fields.number()?,
            inode: fields.number()?,
            cookie,
        })
    }

    /// As `struct inet_diag_sockid`.
    pub(super) fn id(&self) -> [u8; SOCKET_ID_BYTES] {
        let mut bytes = Vec::with_capacity(SOCKET_ID_BYTES);
        bytes.extend(self.local.port().to_be_bytes());
        bytes.extend(self.remote.port().to_be_bytes());
        for end in [self.local, self.remote] {
            let mut address = [0; 16];
            match end.ip() {
                IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => address = ip.octets(),
            }
            bytes.extend(address);
        }
        bytes.extend(self.interface.to_ne_bytes());
        let low = self.cookie & u64::from(u32::MAX);
        for half in [low, self.cookie >> 32] {
            bytes.extend(u32::try_from(half).unwrap_or_default().to_ne_bytes());
        }
        bytes.try_into().unwrap_or(NO_SOCKET_ID)
    }
}

/// `10.0.0.1:4000 -> 10.0.0.2:53 (inode 7, cookie 9)`.
impl fmt::Display for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {} (inode {}, cookie {})",
            self.local, self.remote, self.inode, self.cookie
        )
    }
}

/// The fixed fields, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Detail> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or("a socket's message ends before its fields do")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u32, Detail> {
        self.take().map(u32::from_ne_bytes)
    }

    fn address(&mut self, family: Family) -> Result<IpAddr, Detail> {
        let bytes: [u8; 16] = self.take()?;
        let [a, b, c, d, ..] = bytes;
        Ok(match family {
            Family::V4 => Ipv4Addr::new(a, b, c, d).into(),
            Family::V6 => Ipv6Addr::from(bytes).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct inet_diag_msg` of a socket 10.0.0.1:4000 -> 10.0.0.2:53.
    fn fixed_part() -> Vec<u8> {
        let mut bytes = vec![2, 1, 0, 0];
        bytes.extend([4000_u16.to_be_bytes(), 53_u16.to_be_bytes()].concat());
        for last in [1, 2] {
            bytes.extend([10, 0, 0, last]);
            bytes.extend([0; 12]);
        }
        for number in [3_u32, 0x55, 0x66, 0, 0, 0, 1000, 4321] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn the_fields_are_read_and_written_back() {
        let socket = UdpSocket::parse(&fixed_part()).unwrap();
        let expected = UdpSocket {
            family: Family::V4,
            local: "10.0.0.1:4000".parse().unwrap(),
            remote: "10.0.0.2:53".parse().unwrap(),
            interface: 3,
            uid: 1000,
            inode: 4321,
            cookie: 0x66_0000_0055,
        };
        assert_eq!(socket, expected);
        assert_eq!(socket.id(), fixed_part()[4..52]);
        assert_eq!(
            socket.to_string(),
            "10.0.0.1:4000 -> 10.0.0.2:53 (inode 4321, cookie 438086664277)"
        );
    }

    #[test]
    fn a_mapped_address_stays_one_and_its_destination_is_ipv4() {
        let mut bytes = fixed_part();
        bytes[0] = 10;
        let mapped = "::ffff:10.0.0.2".parse::<Ipv6Addr>().unwrap();
        bytes[24..40].copy_from_slice(&mapped.octets());
        let socket = UdpSocket::parse(&bytes).unwrap();
        assert_eq!(socket.remote, "[::ffff:10.0.0.2]:53".parse().unwrap());
        assert_eq!(socket.destination(), "10.0.0.2:53".parse().unwrap());
        assert_eq!(socket.id(), bytes[4..52]);
    }

    #[test]
    fn cut_off_and_odd_messages_are_errors() {
        let whole = fixed_part();
        for length in 0..whole.len() {
            assert_eq!(
                UdpSocket::parse(&whole[..length]).unwrap_err(),
                "a socket's message ends before its fields do"
            );
        }
        let mut bytes = fixed_part();
        bytes[0] = 1;
        assert_eq!(
            UdpSocket::parse(&bytes).unwrap_err(),
            "a socket of family 1"
        );
        let mut bytes = fixed_part();
        bytes[44..52].fill(0xff);
        assert!(UdpSocket::parse(&bytes).is_err());
    }
}
