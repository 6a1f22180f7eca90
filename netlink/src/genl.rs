//! One generic netlink socket: messages with `struct genlmsghdr` in front of their attributes,
//! of a family whose number the kernel says.
//!
//! Source: `linux/genetlink.h`.

use std::fmt::Display;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::libc::ENOENT;

use crate::attribute;
use crate::error::NetlinkError;
use crate::transport::{self, Transport};
use crate::writer::Writer;

/// The family that knows the others (`GENL_ID_CTRL`).
const CONTROLLER: u16 = 16;
const CONTROLLER_VERSION: u8 = 1;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// `struct genlmsghdr` in front of every payload.
const GENLMSGHDR_BYTES: usize = 4;

/// One of the kernel's answers.
#[derive(Debug)]
pub(crate) enum Answer<'a> {
    /// An object: command and attributes.
    Object { command: u8, attributes: &'a [u8] },
    /// A request was refused.
    Refused { sequence: u32, code: i32 },
}

/// A generic netlink family, by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FamilyName {
    pub(crate) name: &'static str,
    pub(crate) version: u8,
}

/// The fixed part of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GenlHead {
    /// The family's number.
    pub(crate) family: u16,
    pub(crate) version: u8,
    pub(crate) command: u8,
    /// `NLM_F_*`.
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
}

impl GenlHead {
    /// One message: both headers, and the attributes that `body` writes.
    pub(crate) fn message(&self, writer: &mut Writer, body: impl FnOnce(&mut Writer)) {
        writer.plain_message(self.family, self.flags, self.sequence, |writer| {
            writer.fixed(&[self.command, self.version, 0, 0]);
            body(writer);
        });
    }
}

/// A socket that speaks with one family.
#[derive(Debug)]
pub(crate) struct GenlSocket {
    name: FamilyName,
    family: u16,
    transport: Transport,
}

impl GenlSocket {
    /// Opens a socket in the network namespace of the calling thread and asks for the family's
    /// number; `None` where the kernel has no such family. Linux 4.2 (`NETLINK_CAP_ACK`).
    pub(crate) fn open(name: FamilyName) -> Result<Option<Self>, NetlinkError> {
        let mut transport = Transport::open(NETLINK_GENERIC, name.name)?;
        let family = family_number(&mut transport, name.name)?;
        Ok(family.map(|family| Self {
            name,
            family,
            transport,
        }))
    }

    /// Whether the family still has the number it had: a module that is unloaded takes its
    /// family along, and gets another number when it comes back.
    pub(crate) fn is_current(&mut self) -> Result<bool, NetlinkError> {
        let now = family_number(&mut self.transport, self.name.name)?;
        Ok(now == Some(self.family))
    }

    /// The head of the next message, with a sequence number of its own.
    pub(crate) fn head(&mut self, command: u8, flags: u16) -> GenlHead {
        GenlHead {
            family: self.family,
            version: self.name.version,
            command,
            flags: NLM_F_REQUEST | flags,
            sequence: self.transport.take_sequence(),
        }
    }

    /// [`Transport::exchange`], with what generic netlink puts into each message.
    pub(crate) fn exchange(
        &mut self,
        writer: &Writer,
        last: u32,
        request: &dyn Display,
        on_answer: &mut dyn FnMut(Answer<'_>) -> Result<(), String>,
    ) -> Result<(), NetlinkError> {
        let family = self.family;
        self.transport
            .exchange(writer, last, request, &mut |answer| match answer {
                transport::Answer::Message { kind, payload } if kind == family => {
                    on_answer(read_object(payload)?)
                }
                transport::Answer::Message { .. } => Ok(()),
                transport::Answer::Refused { sequence, code, .. } => {
                    on_answer(Answer::Refused { sequence, code })
                }
            })
    }

    /// One message, one acknowledgement (or the end of a dump), objects in between. A refusal
    /// is an error.
    pub(crate) fn request(
        &mut self,
        writer: &Writer,
        last: u32,
        request: &dyn Display,
        mut on_object: impl FnMut(u8, &[u8]) -> Result<(), String>,
    ) -> Result<(), NetlinkError> {
        let mut refused = None;
        self.exchange(writer, last, request, &mut |answer| match answer {
            Answer::Object {
                command,
                attributes,
            } => on_object(command, attributes),
            Answer::Refused { code, .. } => {
                refused.get_or_insert(code);
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

fn read_object(payload: &[u8]) -> Result<Answer<'_>, String> {
    Ok(Answer::Object {
        command: payload.first().copied().unwrap_or_default(),
        attributes: payload
            .get(GENLMSGHDR_BYTES..)
            .ok_or("a message shorter than its header")?,
    })
}

fn family_number(
    transport: &mut Transport,
    name: &'static str,
) -> Result<Option<u16>, NetlinkError> {
    let head = GenlHead {
        family: CONTROLLER,
        version: CONTROLLER_VERSION,
        command: CTRL_CMD_GETFAMILY,
        flags: NLM_F_REQUEST | NLM_F_ACK,
        sequence: transport.take_sequence(),
    };
    let mut writer = Writer::new();
    write_family_request(&mut writer, &head, name);
    let request = format_args!("ask for the generic netlink family {name}");
    let (mut family, mut refused) = (None, None);
    transport.exchange(&writer, head.sequence, &request, &mut |answer| {
        match answer {
            transport::Answer::Message {
                kind: CONTROLLER,
                payload,
            } => family = read_family(payload)?,
            transport::Answer::Message { .. } => {}
            transport::Answer::Refused { code, .. } => refused = Some(code),
        }
        Ok(())
    })?;
    match refused {
        None => family.map(Some).ok_or_else(|| NetlinkError::Malformed {
            request: request.to_string(),
            detail: "a family without a number".to_owned(),
        }),
        Some(ENOENT) => Ok(None),
        Some(code) => Err(NetlinkError::Refused {
            request: request.to_string(),
            code,
        }),
    }
}

fn write_family_request(writer: &mut Writer, head: &GenlHead, name: &str) {
    head.message(writer, |writer| writer.text(CTRL_ATTR_FAMILY_NAME, name));
}

fn read_family(payload: &[u8]) -> Result<Option<u16>, String> {
    let Answer::Object { attributes, .. } = read_object(payload)? else {
        return Ok(None);
    };
    attribute::find(attributes, CTRL_ATTR_FAMILY_ID)?
        .map(|value| attribute::u16_native(value, "CTRL_ATTR_FAMILY_ID"))
        .transpose()
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_a_family_as_bytes() {
        let mut writer = Writer::new();
        let head = GenlHead {
            family: CONTROLLER,
            version: 1,
            command: CTRL_CMD_GETFAMILY,
            flags: 5,
            sequence: 9,
        };
        write_family_request(&mut writer, &head, "IPVS");
        let expected = [
            32, 0, 0, 0, 16, 0, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            3, 1, 0, 0, // genlmsghdr
            9, 0, 2, 0, b'I', b'P', b'V', b'S', 0, 0, 0, 0, // CTRL_ATTR_FAMILY_NAME
        ];
        assert_eq!(writer.bytes(), Some(&expected[..]));
    }

    #[test]
    fn the_answer_says_the_number() {
        let payload = [1, 2, 0, 0, 6, 0, 1, 0, 0x23, 0, 0, 0];
        assert_eq!(read_family(&payload), Ok(Some(0x23)));
        assert_eq!(read_family(&payload[..4]), Ok(None));
        assert!(read_family(&payload[..3]).is_err());
    }
}
