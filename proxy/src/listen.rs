//! TCP listeners that can be closed from anywhere, at once.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens at an address, on IPv6 for IPv6 only: `[::]` leaves `0.0.0.0` to others.
/// Needs to run within a tokio runtime.
///
/// # Errors
/// What the kernel says: mostly that somebody else listens there, or that there is no such
/// address or family on this machine.
pub(crate) fn listen(address: SocketAddr) -> io::Result<(TcpListener, Closer)> {
    let domain = match address.ip() {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run that linger must not keep the port from us.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let closer = Closer(socket.try_clone()?);
    Ok((TcpListener::from_std(socket.into())?, closer))
}

/// Stops a listener when dropped. Aborting the task that owns the listener closes it only
/// once the runtime comes round to that; until then the port would be taken.
#[derive(Debug)]
pub(crate) struct Closer(Socket);

impl Drop for Closer {
    fn drop(&mut self) {
        // Fails only where it no longer listens.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
