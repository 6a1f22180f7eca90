//! Lists of what the kernel's routing has, by rtnetlink: asked for as a whole, and followed;
//! and [`change`] for changing it.
//!
//! Source: `linux/rtnetlink.h`; every supported kernel has it, and no privilege is needed.
//! A notice only says that a list has to be taken anew: so lost notices do no harm.

mod change;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkMessage, parse_i32,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use tokio::time::Instant;

pub use change::{Refused, change};

/// How long the kernel may take to answer.
const ANSWER_TIMEOUT_SECONDS: i64 = 10;
/// Room for one datagram of a dump, which the kernel fills with at most 32 KiB.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// Room for a notice. What is longer is cut off, which is fine: nobody reads more of it than
/// how it begins.
const NOTICE_BYTES: usize = 256;
/// After a first notice, how long to wait for further ones before listing: interfaces come
/// with several addresses, and pods by the dozen.
const SETTLE: Duration = Duration::from_millis(20);
/// How long to wait after an error before the next listing.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often a listing that was overtaken by changes is taken anew before what it gave is
/// used. Each change brings a notice and so another listing anyway.
const LIST_TRIES_MAX: u32 = 5;
/// Bytes of an error's code in front of an error message (`struct nlmsgerr`).
const ERROR_CODE_BYTES: usize = 4;

/// What one listing gives.
pub trait Listed: Default + PartialEq {
    /// What it is, for errors.
    const SUBJECT: &'static str;
    /// The multicast groups that tell of changes.
    const GROUPS: &'static [u32];

    /// What asks the kernel for all of it.
    fn request() -> RouteNetlinkMessage;

    /// Takes in one message of the answer, header included.
    ///
    /// # Errors
    /// When the message makes no sense.
    fn take(&mut self, message: &[u8]) -> Result<(), DecodeError>;

    /// Whether a notice (a message like those of the answer, which may be cut off) is a reason
    /// to list anew. To be answered with no only where a group tells of much else.
    #[must_use]
    fn concerns(_notice: &[u8]) -> bool {
        true
    }
}

/// Why it is not known what the kernel has.
#[derive(Debug, thiserror::Error)]
pub enum RtnetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket for {subject}: {source}")]
    Open {
        /// What was to be listed.
        subject: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The request did not get through or no answer came.
    #[error("cannot list {subject}: {source}")]
    List {
        /// What was to be listed.
        subject: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel's answer makes no sense.
    #[error("cannot read the kernel's list of {subject}: {message}")]
    Malformed {
        /// What was listed.
        subject: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Requests did not get through or no answer came.
    #[error("cannot change {subject}: {source}")]
    Change {
        /// What was to be changed.
        subject: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The notices stopped.
    #[error("cannot follow changes of {subject}: {source}")]
    Follow {
        /// What was followed.
        subject: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Lists all there is now, for the network namespace of the calling thread. Blocks for the
/// kernel's answer, normally less than a millisecond.
///
/// # Errors
/// [`RtnetlinkError`], if the kernel cannot be asked.
pub fn list<T: Listed>() -> Result<T, RtnetlinkError> {
    for _ in 1..LIST_TRIES_MAX {
        let (listed, interrupted) = list_once()?;
        if !interrupted {
            return Ok(listed);
        }
    }
    list_once().map(|(listed, _)| listed)
}

/// Follows a list. Must be used within a tokio runtime with I/O enabled.
pub struct Watch<T> {
    notices: TokioSocket,
    current: Arc<T>,
    /// When to list: a notice was taken, or a listing failed. Kept here and not in the future
    /// of `changed`, so that one that is dropped again and again still gets there.
    list_at: Option<Instant>,
}

impl<T: Listed> Watch<T> {
    /// Subscribes, then lists, so that nothing falls between.
    ///
    /// # Errors
    /// [`RtnetlinkError`].
    pub fn open() -> Result<Self, RtnetlinkError> {
        let notices = open_notices(T::GROUPS).map_err(|source| RtnetlinkError::Open {
            subject: T::SUBJECT,
            source,
        })?;
        let current = Arc::new(list()?);
        Ok(Self {
            notices,
            current,
            list_at: None,
        })
    }

    /// What there is, as last seen.
    #[must_use]
    pub const fn current(&self) -> &Arc<T> {
        &self.current
    }

    /// Waits until what there is differs from [`Self::current`] and returns it. Lost notices
    /// (`ENOBUFS`) lead to a listing like any other. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`RtnetlinkError`]; calling again tries again, not sooner than after a second.
    pub async fn changed(&mut self) -> Result<Arc<T>, RtnetlinkError> {
        loop {
            let list_at = match self.list_at {
                Some(list_at) => list_at,
                None => {
                    let delay = self.wait_for_notice().await.map(|()| SETTLE);
                    let list_at = Instant::now() + *delay.as_ref().unwrap_or(&RETRY_DELAY);
                    self.list_at = Some(list_at);
                    delay.map_err(follow::<T>)?;
                    list_at
                }
            };
            tokio::time::sleep_until(list_at).await;
            if let Some(news) = self.list()? {
                return Ok(news);
            }
        }
    }

    fn list(&mut self) -> Result<Option<Arc<T>>, RtnetlinkError> {
        self.list_at = Some(Instant::now() + RETRY_DELAY); // unless all goes well
        drain(self.notices.socket_ref()).map_err(follow::<T>)?;
        let listed = list()?;
        self.list_at = None;
        if listed == *self.current {
            return Ok(None);
        }
        self.current = Arc::new(listed);
        Ok(Some(Arc::clone(&self.current)))
    }

    async fn wait_for_notice(&self) -> io::Result<()> {
        let mut buffer = [0; NOTICE_BYTES];
        loop {
            let mut room = &mut buffer[..];
            match self.notices.recv(&mut room).await {
                Err(error) if !is_overrun(&error) => return Err(error),
                Err(_) => return Ok(()),
                Ok(()) => {
                    let length = NOTICE_BYTES - room.len();
                    if T::concerns(buffer.get(..length).unwrap_or_default()) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

const fn follow<T: Listed>(source: io::Error) -> RtnetlinkError {
    RtnetlinkError::Follow {
        subject: T::SUBJECT,
        source,
    }
}

fn open_notices(groups: &[u32]) -> io::Result<TokioSocket> {
    let mut notices = TokioSocket::new(NETLINK_ROUTE)?;
    notices.socket_mut().bind_auto()?;
    for group in groups {
        notices.socket_ref().add_membership(*group)?;
    }
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
fn list_once<T: Listed>() -> Result<(T, bool), RtnetlinkError> {
    let subject = T::SUBJECT;
    let socket = open_for_list().map_err(|source| RtnetlinkError::Open { subject, source })?;
    let list = |source| RtnetlinkError::List { subject, source };
    socket.send(&dump_request(T::request()), 0).map_err(list)?;
    let mut listed = T::default();
    let mut interrupted = false;
    let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
    loop {
        let length = match socket.recv(&mut buffer.as_mut_slice(), 0) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(list(error)),
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        if read_datagram(datagram, &mut listed, &mut interrupted)? {
            return Ok((listed, interrupted));
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

fn dump_request(request: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Returns true at the end of the dump.
pub(crate) fn read_datagram<T: Listed>(
    mut bytes: &[u8],
    listed: &mut T,
    interrupted: &mut bool,
) -> Result<bool, RtnetlinkError> {
    let malformed = |error: DecodeError| RtnetlinkError::Malformed {
        subject: T::SUBJECT,
        message: error.to_string(),
    };
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(malformed)?;
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        *interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = message
                    .payload()
                    .get(..ERROR_CODE_BYTES)
                    .unwrap_or_default();
                let code = parse_i32(code).map_err(malformed)?;
                return Err(RtnetlinkError::List {
                    subject: T::SUBJECT,
                    source: io::Error::from_raw_os_error(code.saturating_neg()),
                });
            }
            _ => listed
                .take(bytes.get(..length).unwrap_or_default())
                .map_err(malformed)?,
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::LocalAddresses;

    fn read(kind: u16, flags: u16, payload: &[u8]) -> (Result<bool, RtnetlinkError>, bool) {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(payload);
        let (mut listed, mut interrupted) = (LocalAddresses::default(), false);
        let end = read_datagram(&bytes, &mut listed, &mut interrupted);
        (end, interrupted)
    }

    #[test]
    fn the_end_and_an_interruption_are_seen() {
        let (end, interrupted) = read(NLMSG_DONE, NLM_F_DUMP_INTR, &[0; 4]);
        assert!(end.unwrap() && interrupted);
    }

    #[test]
    fn a_refusal_says_what_the_kernel_said() {
        let (end, _) = read(NLMSG_ERROR, 0, &(-nix::libc::EPERM).to_ne_bytes());
        let said = end.unwrap_err().to_string();
        assert!(said.starts_with("cannot list the node's addresses: Operation not permitted"));
        assert!(matches!(
            read(NLMSG_ERROR, 0, &[1]).0,
            Err(RtnetlinkError::Malformed { .. })
        ));
    }
}
