//! The UDP sockets of a network namespace: which are connected, and how to destroy one.
//!
//! Source: `linux/sock_diag.h`, `linux/inet_diag.h` and net/ipv4/udp_diag.c. Listing needs
//! Linux 3.3 (CONFIG_INET_UDP_DIAG) and no right, destroying Linux 4.9
//! (CONFIG_INET_DIAG_DESTROY) and CAP_NET_ADMIN in the namespace.
//!
//! `INET_DIAG_REQ_SK_BPF_STORAGES` is of no use here: the kernel takes the request but adds no
//! storage to the answer for a UDP socket (tried with Linux 6.18; `inet_sk_diag_fill` is
//! through early with sockets that are not `inet_connection_sock`).

mod udp_socket;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::libc::{ENOENT, EOPNOTSUPP};

use crate::error::NetlinkError;
use crate::family::Family;
use crate::transport::{Answer, Transport};
use crate::writer::Writer;

pub use udp_socket::UdpSocket;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

const IPPROTO_UDP: u8 = 17;
/// The bit of `TCP_ESTABLISHED`, the state of connected sockets of any protocol.
const STATES_ESTABLISHED: u32 = 1 << 1;

/// Why sockets could not be listed or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// The kernel does not list UDP sockets.
    #[error(
        "this kernel cannot list UDP sockets: CONFIG_INET_UDP_DIAG (module udp_diag) is missing"
    )]
    NoUdpDiag,
    /// The kernel destroys no sockets.
    #[error(
        "this kernel cannot destroy sockets: it was built without CONFIG_INET_DIAG_DESTROY; \
         connected UDP sockets keep sending where they are connected to"
    )]
    NoDestroy,
    /// Anything else.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl DiagError {
    /// The kernel lacks it: asking again, or in another namespace, changes nothing.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::NoUdpDiag | Self::NoDestroy)
    }
}

/// What became of a socket that was to be destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// It is disconnected, and its owner's next (or waiting) call fails with `ECONNABORTED`.
    Now,
    /// The kernel found another socket or none at its addresses: it was closed or connected
    /// anew. Of several sockets with the very same addresses on both ends the kernel finds
    /// one; the others can be destroyed once that one is.
    NotFound,
}

/// Lists and destroys the UDP sockets of the network namespace it was opened in.
#[derive(Debug)]
pub struct Diag {
    transport: Transport,
    writer: Writer,
}

impl Diag {
    /// Opens the socket, in the network namespace of the calling thread. It stays there, and
    /// is to be used by threads that are there: after an error it is opened anew.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, DiagError> {
        Ok(Self {
            transport: Transport::open(NETLINK_SOCK_DIAG, "sock_diag")?,
            writer: Writer::new(),
        })
    }

    /// Hands every connected UDP socket of a family to `on_socket`, as the kernel delivers
    /// them; no list is held in memory. IPv6 sockets that talk IPv4 are of family
    /// [`Family::V6`]. A socket that comes or goes meanwhile may or may not be there, and its
    /// neighbour in the kernel's hash table may be missed or come twice.
    ///
    /// # Errors
    /// [`DiagError::NoUdpDiag`]; [`NetlinkError::Malformed`] and the like.
    pub fn for_each_connected_udp(
        &mut self,
        family: Family,
        mut on_socket: impl FnMut(UdpSocket),
    ) -> Result<(), DiagError> {
        let sequence = self.transport.take_sequence();
        self.writer.clear();
        write_list(&mut self.writer, sequence, family);
        let request = format_args!("list the connected UDP sockets of {family}");
        let mut refused = None;
        self.transport
            .exchange(&self.writer, sequence, &request, &mut |answer| {
                match answer {
                    Answer::Message {
                        kind: SOCK_DIAG_BY_FAMILY,
                        payload,
                    } => on_socket(UdpSocket::parse(payload)?),
                    Answer::Message { .. } => {}
                    Answer::Refused { code, .. } => refused = Some(code),
                }
                Ok(())
            })?;
        match refused {
            None => Ok(()),
            Some(ENOENT) => Err(DiagError::NoUdpDiag),
            Some(code) => Err(refusal(request.to_string(), code)),
        }
    }

    /// All connected UDP sockets of a family; see [`Self::for_each_connected_udp`].
    ///
    /// # Errors
    /// As [`Self::for_each_connected_udp`].
    pub fn connected_udp(&mut self, family: Family) -> Result<Vec<UdpSocket>, DiagError> {
        let mut sockets = Vec::new();
        self.for_each_connected_udp(family, |socket| sockets.push(socket))?;
        Ok(sockets)
    }

    /// Destroys exactly this socket, as it was listed. Its owner keeps the file descriptor,
    /// can connect it anew, and what BPF programs stored with it stays.
    ///
    /// # Errors
    /// [`DiagError::NoDestroy`]; [`NetlinkError::Refused`] with `EPERM` without CAP_NET_ADMIN.
    pub fn destroy(&mut self, socket: &UdpSocket) -> Result<Destroyed, DiagError> {
        let sequence = self.transport.take_sequence();
        self.writer.clear();
        write_destroy(&mut self.writer, sequence, socket);
        let request = format_args!("destroy the UDP socket {socket}");
        let mut refused = None;
        self.transport
            .exchange(&self.writer, sequence, &request, &mut |answer| {
                if let Answer::Refused { code, .. } = answer {
                    refused = Some(code);
                }
                Ok(())
            })?;
        match refused {
            None => Ok(Destroyed::Now),
            Some(ENOENT) => Ok(Destroyed::NotFound),
            Some(EOPNOTSUPP) => Err(DiagError::NoDestroy),
            Some(code) => Err(refusal(request.to_string(), code)),
        }
    }
}

const fn refusal(request: String, code: i32) -> DiagError {
    DiagError::Netlink(NetlinkError::Refused { request, code })
}

fn write_list(writer: &mut Writer, sequence: u32, family: Family) {
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    writer.plain_message(SOCK_DIAG_BY_FAMILY, flags, sequence, |writer| {
        write_request(writer, family, None);
    });
}

fn write_destroy(writer: &mut Writer, sequence: u32, socket: &UdpSocket) {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    writer.plain_message(SOCK_DESTROY, flags, sequence, |writer| {
        write_request(writer, socket.family, Some(socket));
    });
}

/// `struct inet_diag_req_v2`, without extensions.
fn write_request(writer: &mut Writer, family: Family, socket: Option<&UdpSocket>) {
    writer.fixed(&[family.number(), IPPROTO_UDP, 0, 0]);
    writer.fixed(&STATES_ESTABLISHED.to_ne_bytes());
    writer.fixed(&socket.map_or(udp_socket::NO_SOCKET_ID, UdpSocket::id));
}

/// Any bytes as a socket that the kernel lists.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_bytes(bytes: &[u8]) {
    let _ = UdpSocket::parse(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_list_request_as_bytes() {
        let mut writer = Writer::new();
        write_list(&mut writer, 7, Family::V6);
        let mut expected = vec![72, 0, 0, 0, 20, 0, 1, 3, 7, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([10, 17, 0, 0, 2, 0, 0, 0]);
        expected.extend([0; 48]);
        assert_eq!(writer.bytes(), Some(&expected[..]));
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        assert!(
            DiagError::NoDestroy
                .to_string()
                .contains("CONFIG_INET_DIAG_DESTROY")
        );
        assert!(DiagError::NoDestroy.is_permanent());
        let refused = refusal("destroy".to_owned(), nix::libc::EPERM);
        assert!(!refused.is_permanent());
    }
}
