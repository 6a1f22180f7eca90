//! One nfnetlink socket: messages with `struct nfgenmsg` in front of their attributes.

use std::fmt::Display;

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::error::NetlinkError;
use crate::transport::{self, Span, Transport};
use crate::writer::{MessageHead, Writer};

/// `struct nfgenmsg` in front of every payload.
const NFGENMSG_BYTES: usize = 4;

/// One of the kernel's answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    /// An object: command, `nfgen_family` and attributes.
    Object {
        command: u8,
        family: u8,
        attributes: &'a [u8],
    },
    /// A request was refused. `original` is our message as the kernel echoes it, cut to its
    /// header in most families.
    Refused {
        sequence: u32,
        code: i32,
        original: &'a [u8],
    },
}

/// A socket of the nfnetlink protocol.
#[derive(Debug)]
pub(crate) struct NfnlSocket {
    subsystem: u8,
    transport: Transport,
}

impl NfnlSocket {
    /// Opens a socket in the network namespace of the calling thread. Linux 4.2
    /// (`NETLINK_CAP_ACK`).
    pub(crate) fn open(subsystem: u8, subsystem_name: &'static str) -> Result<Self, NetlinkError> {
        Ok(Self {
            subsystem,
            transport: Transport::open(NETLINK_NETFILTER, subsystem_name)?,
        })
    }

    /// The same, and the kernel says with a refusal what in the message it is about.
    pub(crate) fn open_explained(
        subsystem: u8,
        subsystem_name: &'static str,
    ) -> Result<Self, NetlinkError> {
        Ok(Self {
            subsystem,
            transport: Transport::open_explained(NETLINK_NETFILTER, subsystem_name)?,
        })
    }

    /// The head of the next message, with a sequence number of its own.
    pub(crate) fn head(&mut self, command: u8, flags: u16, family: u8) -> MessageHead {
        MessageHead {
            subsystem: self.subsystem,
            command,
            flags,
            sequence: self.transport.take_sequence(),
            family,
        }
    }

    /// [`Transport::exchange`], with what nfnetlink puts into each message.
    pub(crate) fn exchange(
        &mut self,
        writer: &Writer,
        last: u32,
        request: &dyn Display,
        on_answer: &mut dyn FnMut(Answer<'_>) -> Result<(), String>,
    ) -> Result<(), NetlinkError> {
        self.transport
            .exchange(writer, last, request, &mut |answer| {
                on_answer(read_answer(answer)?)
            })
    }

    /// The first of `count` numbers in a row, for as many messages.
    pub(crate) fn take_sequences(&mut self, count: u32) -> u32 {
        self.transport.take_sequences(count)
    }

    /// [`Transport::exchange_batch`], with what nfnetlink puts into each message.
    pub(crate) fn exchange_batch(
        &mut self,
        writer: &Writer,
        span: Span,
        request: &dyn Display,
        on_answer: &mut dyn FnMut(Answer<'_>) -> Result<(), String>,
    ) -> Result<(), NetlinkError> {
        self.transport
            .exchange_batch(writer, span, request, &mut |answer| {
                on_answer(read_answer(answer)?)
            })
    }

    /// One message, one acknowledgement, objects in between. A refusal is an error.
    pub(crate) fn request(
        &mut self,
        writer: &Writer,
        last: u32,
        request: &dyn Display,
        mut on_object: impl FnMut(u8, u8, &[u8]) -> Result<(), String>,
    ) -> Result<(), NetlinkError> {
        let mut refused = None;
        self.exchange(writer, last, request, &mut |answer| match answer {
            Answer::Object {
                command,
                family,
                attributes,
            } => on_object(command, family, attributes),
            Answer::Refused { code, .. } => {
                refused = Some(code);
                Ok(())
            }
        })?;
        refused.map_or(Ok(()), |code| {
            Err(NetlinkError::Refused {
                request: request.to_string(),
                code,
            })
        })
    }
}

fn read_answer(answer: transport::Answer<'_>) -> Result<Answer<'_>, String> {
    match answer {
        transport::Answer::Message { kind, payload } => read_object(kind, payload),
        transport::Answer::Refused {
            sequence,
            code,
            original,
        } => Ok(Answer::Refused {
            sequence,
            code,
            original,
        }),
    }
}

fn read_object(kind: u16, payload: &[u8]) -> Result<Answer<'_>, String> {
    let [_, command] = kind.to_be_bytes();
    Ok(Answer::Object {
        command,
        family: payload.first().copied().unwrap_or_default(),
        attributes: payload
            .get(NFGENMSG_BYTES..)
            .ok_or("a message shorter than its header")?,
    })
}
