//! The least a server can cost: one that sends each query back as a reply, one by one, without
//! looking at it. What it costs is the kernel's and the machine's.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};

/// A query without EDNS fits.
const QUERY_BYTES: usize = 512;

/// Echoes until it is killed.
///
/// # Errors
/// The address can't be had, or its socket fails.
pub fn serve(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| address.to_string())?;
    let mut buffer = [0; QUERY_BYTES];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        if let Some(flags) = buffer.get_mut(2) {
            *flags |= 0x80;
        }
        // Who does not take its reply loses it.
        drop(socket.send_to(buffer.get(..length).unwrap_or_default(), from));
    }
}
