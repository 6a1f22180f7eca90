//! The node's own addresses, by rtnetlink: what they are, and when they change.
//!
//! Source: `RTM_GETADDR` and the groups `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR` of
//! `linux/rtnetlink.h`; every supported kernel has them, and no privilege is needed.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use tokio::time::Instant;

const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// How long the kernel may take to answer.
const ANSWER_TIMEOUT_SECONDS: i64 = 10;
/// Room for one datagram of a dump, which the kernel fills with at most 32 KiB.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// Room for a notice. What is longer is cut off, which is fine: nobody reads it.
const NOTICE_BYTES: usize = 256;
/// After a first notice, how long to wait for further ones before listing: interfaces come
/// with several addresses, and pods by the dozen.
const SETTLE: Duration = Duration::from_millis(20);
/// How long to wait after an error before the next listing.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often a listing that was overtaken by changes is taken anew before what it gave is
/// used. Each change brings a notice and so another listing anyway.
const LIST_TRIES_MAX: u32 = 5;

/// What is known of one local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressInfo {
    /// Index of an interface that has it (the lowest, where several do).
    pub interface_index: u32,
    /// How far it is valid.
    pub scope: Scope,
}

/// How far an address is valid (`rt_scope_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere, or within the site.
    Global,
    /// On its link (169.254.0.0/16, fe80::/10).
    Link,
    /// On this machine only (127.0.0.1, ::1).
    Host,
}

/// All local addresses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses(BTreeMap<IpAddr, AddressInfo>);

impl LocalAddresses {
    /// Lists them now, for the network namespace of the calling thread. Blocks for the
    /// kernel's answer, normally less than a millisecond.
    ///
    /// # Errors
    /// [`AddressError`], if the kernel cannot be asked.
    pub fn list() -> Result<Self, AddressError> {
        for _ in 1..LIST_TRIES_MAX {
            let (addresses, interrupted) = list_once()?;
            if !interrupted {
                return Ok(addresses);
            }
        }
        list_once().map(|(addresses, _)| addresses)
    }

    /// Whether packets to this address are delivered on this machine: it is one of the
    /// addresses, or within 127.0.0.0/8, all of which is local.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.contains_key(&address)
    }

    /// The addresses, sorted, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &AddressInfo)> {
        self.0.iter().map(|(address, info)| (*address, info))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none, not even loopback.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, address: IpAddr, info: AddressInfo) {
        let known = self.0.entry(address).or_insert(info);
        if info.interface_index < known.interface_index {
            *known = info;
        }
    }
}

impl FromIterator<(IpAddr, AddressInfo)> for LocalAddresses {
    fn from_iter<I: IntoIterator<Item = (IpAddr, AddressInfo)>>(addresses: I) -> Self {
        let mut all = Self::default();
        for (address, info) in addresses {
            all.insert(address, info);
        }
        all
    }
}

/// Why the node's addresses are not known.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No socket.
    #[error("cannot open a netlink socket for the node's addresses: {0}")]
    Open(io::Error),
    /// The request did not get through or no answer came.
    #[error("cannot list the node's addresses: {0}")]
    List(io::Error),
    /// The kernel's answer makes no sense.
    #[error("cannot read the kernel's list of the node's addresses: {0}")]
    Malformed(String),
    /// The notices stopped.
    #[error("cannot follow changes of the node's addresses: {0}")]
    Follow(io::Error),
}

/// Follows the node's addresses. Must be used within a tokio runtime with I/O enabled.
pub struct AddressWatch {
    notices: TokioSocket,
    current: Arc<LocalAddresses>,
    /// When to list: a notice was taken, or a listing failed. Kept here and not in the future
    /// of `changed`, so that one that is dropped again and again still gets there.
    list_at: Option<Instant>,
}

impl AddressWatch {
    /// Subscribes, then lists, so that nothing falls between.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn open() -> Result<Self, AddressError> {
        let notices = open_notices().map_err(AddressError::Open)?;
        let current = Arc::new(LocalAddresses::list()?);
        Ok(Self {
            notices,
            current,
            list_at: None,
        })
    }

    /// The addresses as last seen.
    #[must_use]
    pub const fn current(&self) -> &Arc<LocalAddresses> {
        &self.current
    }

    /// Waits until the addresses differ from [`Self::current`] and returns the new ones.
    /// Lost notices (`ENOBUFS`) lead to a listing like any other. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`AddressError`]; calling again tries again, not sooner than after a second.
    pub async fn changed(&mut self) -> Result<Arc<LocalAddresses>, AddressError> {
        loop {
            let list_at = match self.list_at {
                Some(list_at) => list_at,
                None => {
                    let delay = self.wait_for_notice().await.map(|()| SETTLE);
                    let list_at = Instant::now() + *delay.as_ref().unwrap_or(&RETRY_DELAY);
                    self.list_at = Some(list_at);
                    delay?;
                    list_at
                }
            };
            tokio::time::sleep_until(list_at).await;
            if let Some(news) = self.list()? {
                return Ok(news);
            }
        }
    }

    fn list(&mut self) -> Result<Option<Arc<LocalAddresses>>, AddressError> {
        self.list_at = Some(Instant::now() + RETRY_DELAY); // unless all goes well
        drain(self.notices.socket_ref()).map_err(AddressError::Follow)?;
        let listed = LocalAddresses::list()?;
        self.list_at = None;
        if listed == *self.current {
            return Ok(None);
        }
        self.current = Arc::new(listed);
        Ok(Some(Arc::clone(&self.current)))
    }

    async fn wait_for_notice(&self) -> Result<(), AddressError> {
        let mut buffer = [0; NOTICE_BYTES];
        match self.notices.recv(&mut &mut buffer[..]).await {
            Ok(()) => Ok(()),
            Err(error) if is_overrun(&error) => Ok(()),
            Err(error) => Err(AddressError::Follow(error)),
        }
    }
}

fn open_notices() -> io::Result<TokioSocket> {
    let mut notices = TokioSocket::new(NETLINK_ROUTE)?;
    notices.socket_mut().bind_auto()?;
    notices.socket_ref().add_membership(RTNLGRP_IPV4_IFADDR)?;
    notices.socket_ref().add_membership(RTNLGRP_IPV6_IFADDR)?;
    Ok(notices)
}

/// Notices were lost.
fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOBUFS)
}

/// Takes all notices there are. What they say does not matter: the listing does.
fn drain(socket: &Socket) -> io::Result<()> {
    let mut buffer = [0; NOTICE_BYTES];
    loop {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(_) => {}
            Err(error) if is_overrun(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// One dump, and whether it was overtaken by a change.
fn list_once() -> Result<(LocalAddresses, bool), AddressError> {
    let socket = open_for_list().map_err(AddressError::Open)?;
    socket
        .send(&dump_request(), 0)
        .map_err(AddressError::List)?;
    let mut addresses = LocalAddresses::default();
    let mut interrupted = false;
    let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
    loop {
        let length = match socket.recv(&mut buffer.as_mut_slice(), 0) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(AddressError::List(error)),
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        if read_datagram(datagram, &mut addresses, &mut interrupted)? {
            return Ok((addresses, interrupted));
        }
    }
}

fn open_for_list() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::new(ANSWER_TIMEOUT_SECONDS, 0),
    )?;
    Ok(socket)
}

fn dump_request() -> Vec<u8> {
    let mut message =
        NetlinkMessage::from(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Returns true at the end of the dump.
fn read_datagram(
    mut bytes: &[u8],
    addresses: &mut LocalAddresses,
    interrupted: &mut bool,
) -> Result<bool, AddressError> {
    while !bytes.is_empty() {
        let malformed =
            |error: netlink_packet_core::DecodeError| AddressError::Malformed(error.to_string());
        let length = NetlinkBuffer::new_checked(bytes)
            .map_err(malformed)?
            .length();
        let message =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map_err(malformed)?;
        *interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(AddressError::List(error.to_io()));
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
                if let Some((address, info)) = read_address(&message) {
                    addresses.insert(address, info);
                }
            }
            _ => {}
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn read_address(message: &AddressMessage) -> Option<(IpAddr, AddressInfo)> {
    let (mut own, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    // On a point-to-point link "address" is the other end's; without a "local" it is ours.
    let address = own.or(other)?;
    let info = AddressInfo {
        interface_index: message.header.index,
        scope: match message.header.scope {
            AddressScope::Host => Scope::Host,
            AddressScope::Link => Scope::Link,
            _ => Scope::Global,
        },
    };
    Some((address, info))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<AddressAttribute>, scope: AddressScope, index: u32) -> Vec<u8> {
        let mut address = AddressMessage::default();
        address.header.scope = scope;
        address.header.index = index;
        address.attributes = attributes;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewAddress(address));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_ipv4_ipv6_and_point_to_point_addresses() {
        use AddressAttribute::{Address, Local};
        let mut bytes = message(
            vec![Address(ip("10.0.0.2")), Local(ip("10.0.0.1"))],
            AddressScope::Universe,
            3,
        );
        bytes.extend(message(vec![Address(ip("fe80::1"))], AddressScope::Link, 4));
        bytes.extend(message(vec![Address(ip("fe80::1"))], AddressScope::Link, 2));
        bytes.extend(message(vec![Local(ip("127.0.0.1"))], AddressScope::Host, 1));
        let (mut addresses, mut interrupted) = (LocalAddresses::default(), false);
        assert!(!read_datagram(&bytes, &mut addresses, &mut interrupted).unwrap());
        assert!(!interrupted);
        let read: Vec<_> = addresses
            .iter()
            .map(|(address, info)| (address, *info))
            .collect();
        let info = |interface_index, scope| AddressInfo {
            interface_index,
            scope,
        };
        assert_eq!(
            read,
            [
                (ip("10.0.0.1"), info(3, Scope::Global)),
                (ip("127.0.0.1"), info(1, Scope::Host)),
                (ip("fe80::1"), info(2, Scope::Link)),
            ]
        );
    }

    #[test]
    fn all_of_127_is_local() {
        let addresses: LocalAddresses = [(
            ip("10.0.0.1"),
            AddressInfo {
                interface_index: 2,
                scope: Scope::Global,
            },
        )]
        .into_iter()
        .collect();
        assert!(addresses.contains(ip("127.9.9.9")) && addresses.contains(ip("10.0.0.1")));
        assert!(!addresses.contains(ip("10.0.0.2")));
    }

    #[test]
    fn a_cut_off_answer_is_an_error() {
        let bytes = message(vec![], AddressScope::Universe, 3);
        let result = read_datagram(&bytes[..18], &mut LocalAddresses::default(), &mut false);
        assert!(matches!(result, Err(AddressError::Malformed(_))));
    }
}
