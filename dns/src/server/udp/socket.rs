use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// Octets of queries the kernel keeps for us while we answer others.
const RECEIVE_BUFFER_OCTETS: usize = 4 << 20;
/// Octets of replies the kernel takes before sending blocks.
const SEND_BUFFER_OCTETS: usize = 4 << 20;

/// A UDP socket of which several share one address, each with its part of the clients.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
}

impl UdpSocket {
    /// Binds one more socket to `address`. The unspecified IPv6 address takes IPv4 as well.
    ///
    /// # Errors
    /// The system's, as when somebody else has the port.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let (domain, socket) = new_socket(address)?;
        socket.set_reuse_port(true)?;
        // Smaller ones work as well; the kernel has its own upper bounds.
        let _smaller_is_fine = socket.set_recv_buffer_size(RECEIVE_BUFFER_OCTETS);
        let _smaller_is_fine = socket.set_send_buffer_size(SEND_BUFFER_OCTETS);
        if address.ip().is_unspecified() {
            // To answer from the address that was asked.
            if domain == Domain::IPV6 {
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            } else {
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            }
        }
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket();
        let local = local.ok_or_else(|| io::Error::other("a UDP socket without an address"))?;
        Ok(Self { socket, local })
    }

    /// Whether nobody listens on `address`, not even somebody who would share it.
    ///
    /// # Errors
    /// The system's, as when somebody does.
    pub(crate) fn check_free(address: SocketAddr) -> io::Result<()> {
        let (_, socket) = new_socket(address)?;
        socket.bind(&address.into())
    }

    /// Where it listens; the port is the kernel's choice if 0 was asked for.
    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Ends the waiting of whoever sleeps in receiving, for good.
    pub(crate) fn wake(&self) {
        // "Not connected" is what a datagram socket answers, after waking all sleepers.
        // Replies of queries that still wait can be sent all the same.
        let _not_connected = self.socket.shutdown(std::net::Shutdown::Read);
    }
}

fn new_socket(address: SocketAddr) -> io::Result<(Domain, Socket)> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    Ok((domain, socket))
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
