//! One netlink socket: requests out, answers in, nothing waits for ever.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use netlink_packet_core::{ErrorBuffer, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::error::NetlinkError;
use crate::writer::Writer;

/// How long an answer may take. The kernel answers while it handles the request, so only a
/// lost answer gets here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for one datagram. The kernel fills at most 32 KiB while dumping and echoes at most
/// one of our own messages (below 32 KiB as well) in an error.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// One of the kernel's answers.
#[derive(Debug)]
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
    socket: Socket,
    next_sequence: u32,
    buffer: Vec<u8>,
    stale: bool,
}

impl Transport {
    /// Opens a socket in the network namespace of the calling thread. `protocol` is one of
    /// `NETLINK_*`, `subsystem` its name in error messages. Linux 4.2 (`NETLINK_CAP_ACK`).
    pub(crate) fn open(protocol: isize, subsystem: &'static str) -> Result<Self, NetlinkError> {
        Ok(Self {
            protocol,
            subsystem,
            socket: open_socket(protocol, subsystem)?,
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
        if self.stale {
            self.socket = open_socket(self.protocol, self.subsystem)?;
            self.stale = false;
        }
        let bytes = writer.bytes().ok_or_else(|| NetlinkError::TooLarge {
            request: request.to_string(),
        })?;
        self.stale = true; // until the last answer is in
        self.send(bytes, request)?;
        let mut interrupted = false;
        loop {
            let length = self.receive(request)?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            let progress = read_datagram(datagram, last, on_answer).map_err(|detail| {
                NetlinkError::Malformed {
                    request: request.to_string(),
                    detail,
                }
            })?;
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

    fn send(&self, bytes: &[u8], request: &dyn Display) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(NetlinkError::Send {
                        request: request.to_string(),
                        source,
                    });
                }
            }
        }
    }

    fn receive(&mut self, request: &dyn Display) -> Result<usize, NetlinkError> {
        let request = || request.to_string();
        loop {
            let mut room = self.buffer.as_mut_slice();
            let capacity = room.len();
            let error = match self.socket.recv(&mut room, nix::libc::MSG_TRUNC) {
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

fn open_socket(protocol: isize, subsystem: &'static str) -> Result<Socket, NetlinkError> {
    let open = || -> io::Result<Socket> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Connected to the kernel, nobody else can put answers into this socket.
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        let seconds = i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0))?;
        Ok(socket)
    };
    open().map_err(|source| NetlinkError::Open { subsystem, source })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    finished: bool,
    interrupted: bool,
}

fn read_datagram(
    mut bytes: &[u8],
    last: u32,
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
                progress.finished |= sequence == last;
            }
            NLMSG_ERROR => {
                let error = ErrorBuffer::new_checked(payload).map_err(|error| error.to_string())?;
                if let Some(code) = negative_code(payload) {
                    let original = error.payload();
                    on_answer(Answer::Refused {
                        sequence,
                        code,
                        original,
                    })?;
                }
                progress.finished |= sequence == last;
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
            let _ = read_datagram(&bytes, 1, &mut |_| Ok(()));
        }

        #[test]
        fn messages_are_handed_on_one_by_one(
            payloads in vec(any_attributes(), 1..5)
        ) {
            let messages: Vec<_> = payloads.iter().map(|bytes| (0x23, bytes.clone())).collect();
            let mut heard = Vec::new();
            let progress = read_datagram(&written(&messages), 1, &mut |answer| {
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
