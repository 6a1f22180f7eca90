//! One netlink socket: requests out, answers in, nothing waits for ever.

mod datagram;

use std::fmt::Display;
use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::error::NetlinkError;
use crate::writer::Writer;
use datagram::{Ends, Progress, read_datagram};

pub(crate) use datagram::Answer;

/// How long an answer may take. The kernel answers while it handles the request, so only a
/// lost answer gets here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for one datagram. The kernel fills at most 32 KiB while dumping and echoes at most
/// one of our own messages (below 32 KiB as well) in an error.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// What a socket sends without being given more room: less than the least default of
/// `net.core.wmem_default`.
const SEND_WITHOUT_ROOM_BYTES: usize = 64 * 1024;
/// Room for answers where many may come at once: about 10,000 refusals, each of which takes
/// 768 bytes or more of the kernel's memory.
const MANY_ANSWERS_BYTES: usize = 8 * 1024 * 1024;

/// The messages of a batch, by their sequence numbers, in one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Begins the batch. Its refusal is one of the whole.
    pub(crate) first: u32,
    /// Asks for an acknowledgement.
    pub(crate) last: u32,
}

/// A socket of one netlink protocol, connected to the kernel. After an error that leaves
/// answers behind, the next request opens a fresh one.
#[derive(Debug)]
pub(crate) struct Transport {
    protocol: isize,
    subsystem: &'static str,
    explained: bool,
    socket: Socket,
    next_sequence: u32,
    buffer: Vec<u8>,
    stale: bool,
}

impl Transport {
    /// Opens a socket in the network namespace of the calling thread. `protocol` is one of
    /// `NETLINK_*`, `subsystem` its name in error messages. Linux 4.2 (`NETLINK_CAP_ACK`).
    pub(crate) fn open(protocol: isize, subsystem: &'static str) -> Result<Self, NetlinkError> {
        Self::open_with(protocol, subsystem, false)
    }

    /// The same, with room for many answers, and refusals say more (`NETLINK_EXT_ACK`):
    /// behind the header of our message come attributes `NLMSGERR_ATTR_*`. Linux 4.12; earlier
    /// kernels say no more.
    pub(crate) fn open_explained(
        protocol: isize,
        subsystem: &'static str,
    ) -> Result<Self, NetlinkError> {
        Self::open_with(protocol, subsystem, true)
    }

    fn open_with(
        protocol: isize,
        subsystem: &'static str,
        explained: bool,
    ) -> Result<Self, NetlinkError> {
        Ok(Self {
            protocol,
            subsystem,
            explained,
            socket: open_socket(protocol, subsystem, explained)?,
            next_sequence: 1,
            buffer: vec![0; RECEIVE_BUFFER_BYTES],
            stale: false,
        })
    }

    /// The sequence number of the next message.
    pub(crate) fn take_sequence(&mut self) -> u32 {
        let sequence = self.next_sequence;
        // 0 is what the kernel's own notices carry.
        self.next_sequence = self.next_sequence.checked_add(1).unwrap_or(1);
        sequence
    }

    /// The first of `count` numbers in a row, for as many messages.
    pub(crate) fn take_sequences(&mut self, count: u32) -> u32 {
        if self.next_sequence.checked_add(count).is_none() {
            self.next_sequence = 1;
        }
        let first = self.next_sequence;
        self.next_sequence = first.saturating_add(count);
        first
    }

    /// Sends what `writer` holds and hands on every answer to it, until the message with
    /// the sequence number `last` is acknowledged, refused, or its dump is over. That message
    /// must ask for an acknowledgement or a dump.
    ///
    /// A refusal is an answer here, not an error: the caller knows what it means.
    pub(crate) fn exchange(
        &mut self,
        writer: &Writer,
        last: u32,
        request: &dyn Display,
        on_answer: &mut dyn FnMut(Answer<'_>) -> Result<(), String>,
    ) -> Result<(), NetlinkError> {
        let ends = Ends { first: None, last };
        self.send_whole(writer, request)?;
        let mut interrupted = false;
        loop {
            let progress = self.receive_some(MsgFlags::empty(), ends, request, on_answer)?;
            interrupted |= progress.interrupted;
            if progress.finished {
                break;
            }
        }
        self.stale = false;
        if interrupted {
            return Err(NetlinkError::Interrupted {
                request: request.to_string(),
            });
        }
        Ok(())
    }

    /// The same for a batch, of which only the last message asks for an acknowledgement; the
    /// kernel answers to others only if it refuses them.
    ///
    /// # Errors
    /// `Overrun` if refusals were so many that some were lost, after the others were handed on.
    pub(crate) fn exchange_batch(
        &mut self,
        writer: &Writer,
        span: Span,
        request: &dyn Display,
        on_answer: &mut dyn FnMut(Answer<'_>) -> Result<(), String>,
    ) -> Result<(), NetlinkError> {
        let ends = Ends {
            first: Some(span.first),
            last: span.last,
        };
        self.send_whole(writer, request)?;
        let mut overrun = None;
        loop {
            // The kernel answers before the call that sends returns: what is not here by now
            // does not come.
            let flags = match overrun {
                None => MsgFlags::empty(),
                Some(_) => MsgFlags::MSG_DONTWAIT,
            };
            match self.receive_some(flags, ends, request, on_answer) {
                Ok(progress) if progress.refused_as_a_whole => return Ok(()), // stale
                Ok(progress) if progress.finished => break,
                Ok(_) => {}
                Err(error @ NetlinkError::Overrun { .. }) => overrun = Some(error),
                Err(NetlinkError::Silent { .. }) if overrun.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        self.stale = overrun.is_some();
        overrun.map_or(Ok(()), Err)
    }

    fn send_whole(&mut self, writer: &Writer, request: &dyn Display) -> Result<(), NetlinkError> {
        if self.stale {
            self.socket = open_socket(self.protocol, self.subsystem, self.explained)?;
            self.stale = false;
        }
        let bytes = writer.bytes().ok_or_else(|| NetlinkError::TooLarge {
            request: request.to_string(),
        })?;
        if bytes.len() > SEND_WITHOUT_ROOM_BYTES {
            make_room(&self.socket, bytes.len());
        }
        self.stale = true; // until the last answer is in
        self.send(bytes, request)
    }

    /// Takes one datagram and hands on what is in it.
    fn receive_some(
        &mut self,
        flags: MsgFlags,
        ends: Ends,
        request: &dyn Display,
        on_answer: &mut dyn FnMut(Answer<'_>) -> Result<(), String>,
    ) -> Result<Progress, NetlinkError> {
        let length = self.receive(flags, request)?;
        let datagram = self.buffer.get(..length).unwrap_or_default();
        read_datagram(datagram, ends, on_answer).map_err(|detail| NetlinkError::Malformed {
            request: request.to_string(),
            detail,
        })
    }

    fn send(&self, bytes: &[u8], request: &dyn Display) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {
                    return Err(NetlinkError::TooLarge {
                        request: request.to_string(),
                    });
                }
                Err(source) => {
                    return Err(NetlinkError::Send {
                        request: request.to_string(),
                        source,
                    });
                }
            }
        }
    }

    fn receive(&mut self, flags: MsgFlags, request: &dyn Display) -> Result<usize, NetlinkError> {
        let request = || request.to_string();
        loop {
            let mut room = self.buffer.as_mut_slice();
            let capacity = room.len();
            let error = match self
                .socket
                .recv(&mut room, flags.bits() | nix::libc::MSG_TRUNC)
            {
                Ok(length) if length <= capacity => return Ok(length),
                Ok(length) => {
                    let detail = format!("{length} bytes at once, at most {capacity} expected");
                    return Err(NetlinkError::Malformed {
                        request: request(),
                        detail,
                    });
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    return Err(NetlinkError::Silent {
                        request: request(),
                        seconds: ANSWER_TIMEOUT.as_secs(),
                    });
                }
                _ if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    return Err(NetlinkError::Overrun { request: request() });
                }
                _ => {
                    return Err(NetlinkError::Receive {
                        request: request(),
                        source: error,
                    });
                }
            }
        }
    }
}

fn open_socket(
    protocol: isize,
    subsystem: &'static str,
    explained: bool,
) -> Result<Socket, NetlinkError> {
    let open = || -> io::Result<Socket> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Connected to the kernel, nobody else can put answers into this socket.
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        if explained {
            let _unknown_before_4_12 = socket.set_ext_ack(true);
            let _default_without_rights =
                setsockopt(&socket, sockopt::RcvBufForce, &MANY_ANSWERS_BYTES);
        }
        let seconds = i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0))?;
        Ok(socket)
    };
    open().map_err(|source| NetlinkError::Open { subsystem, source })
}

/// Gives the socket room for one message of so many bytes: beyond `net.core.wmem_max` if we
/// may (`CAP_NET_ADMIN`), else up to it. Whether it is enough shows in sending.
fn make_room(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _shows_in_sending = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
}

/// Any bytes as what a socket receives at once.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_bytes(bytes: &[u8]) {
    for first in [None, Some(1)] {
        let ends = Ends { first, last: 2 };
        let _ = read_datagram(bytes, ends, &mut |_| Ok(()));
    }
}
