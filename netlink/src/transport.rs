//! One netlink socket: requests out, answers in, nothing waits for ever.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use netlink_packet_core::{ErrorBuffer, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::error::NetlinkError;
use crate::writer::Writer;

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

/// One of the kernel's answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    /// A message of the protocol: its type and what follows `struct nlmsghdr`.
    Message { kind: u16, payload: &'a [u8] },
    /// A request was refused. `original` is our message as the kernel echoes it, cut to its
    /// header in most families.
    Refused {
        sequence: u32,
        code: i32,
        original: &'a [u8],
    },
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

/// Sequence numbers of the messages whose answers end an exchange.
#[derive(Clone, Copy, Debug)]
struct Ends {
    /// Of the message whose refusal is one of all.
    first: Option<u32>,
    /// Of the message that is answered last.
    last: u32,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    finished: bool,
    interrupted: bool,
    refused_as_a_whole: bool,
}

fn read_datagram(
    mut bytes: &[u8],
    ends: Ends,
    on_answer: &mut dyn FnMut(Answer<'_>) -> Result<(), String>,
) -> Result<Progress, String> {
    let mut progress = Progress::default();
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(|error| error.to_string())?;
        let length = usize::try_from(message.length()).map_err(|error| error.to_string())?;
        let sequence = message.sequence_number();
        progress.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        let payload = message.payload();
        match message.message_type() {
            NLMSG_DONE => {
                // A dump may end with an error of its own.
                if let Some(code) = negative_code(payload) {
                    on_answer(Answer::Refused {
                        sequence,
                        code,
                        original: &[],
                    })?;
                }
                progress.finished |= sequence == ends.last;
            }
            NLMSG_ERROR => {
                let error = ErrorBuffer::new_checked(payload).map_err(|error| error.to_string())?;
                if let Some(code) = negative_code(payload) {
                    let original = error.payload();
                    progress.refused_as_a_whole |= ends.first == Some(sequence);
                    on_answer(Answer::Refused {
                        sequence,
                        code,
                        original,
                    })?;
                }
                progress.finished |= sequence == ends.last;
            }
            kind => on_answer(Answer::Message { kind, payload })?,
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(progress)
}

/// The errno in front of an error or end-of-dump message, as a positive number.
fn negative_code(payload: &[u8]) -> Option<i32> {
    let code = payload
        .first_chunk::<4>()
        .copied()
        .map(i32::from_ne_bytes)?;
    (code < 0).then(|| code.saturating_neg())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::messages::{any_attributes, damaged};

    const LAST: Ends = Ends {
        first: None,
        last: 1,
    };

    /// Kinds of messages that are read each in its own way, and others.
    const KINDS: [u16; 5] = [0, NLMSG_ERROR, NLMSG_DONE, 4, 0x23];

    fn any_message() -> impl Strategy<Value = (u16, Vec<u8>)> {
        let kind = proptest::sample::select(&KINDS[..]);
        let code = proptest::option::of(any::<i32>());
        (kind, code, any_attributes()).prop_map(|(kind, code, attributes)| {
            let code = code.map(i32::to_ne_bytes).unwrap_or_default();
            (kind, [&code[..], &attributes].concat())
        })
    }

    fn written(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new();
        for (sequence, (kind, payload)) in (1..).zip(messages) {
            writer.plain_message(*kind, 0, sequence, |writer| {
                writer.fixed(payload);
                let padding = payload.len().next_multiple_of(4) - payload.len();
                writer.fixed(&vec![0; padding]);
            });
        }
        writer.bytes().unwrap().to_vec()
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(
            bytes in vec(any_message(), 0..5).prop_flat_map(|messages| damaged(written(&messages)))
        ) {
            let _ = read_datagram(&bytes, LAST, &mut |_| Ok(()));
        }

        #[test]
        fn messages_are_handed_on_one_by_one(
            payloads in vec(any_attributes(), 1..5)
        ) {
            let messages: Vec<_> = payloads.iter().map(|bytes| (0x23, bytes.clone())).collect();
            let mut heard = Vec::new();
            let progress = read_datagram(&written(&messages), LAST, &mut |answer| {
                if let Answer::Message { kind: 0x23, payload } = answer {
                    heard.push(payload.to_vec());
                }
                Ok(())
            });
            prop_assert_eq!(progress, Ok(Progress::default()));
            prop_assert_eq!(heard.len(), payloads.len());
            for (heard, sent) in heard.iter().zip(&payloads) {
                prop_assert!(heard.starts_with(sent));
            }
        }
    }
}
