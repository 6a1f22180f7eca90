//! DNS messages in wire form (RFC 1035 §4, RFC 6891).
//!
//! A query is read in place into a [`Request`]; an answer is a [`Reply`], which is in wire
//! form at every moment, so that answers kept as bytes are copied and not built. Who has to
//! edit records ([`Reply::records`]) pays for decoding them.

mod compress;
mod name;
mod numbers;
mod question;
mod record;
mod reply;
mod request;
mod walk;

pub use name::{LABEL_OCTETS_MAX, NAME_OCTETS_MAX, Name, NameError};
pub use numbers::{Class, Opcode, Rcode, Rtype};
pub use question::Question;
pub use record::{Record, Records};
pub use reply::{EdeCode, Kind, Reply, Section, Shuffled};
pub use request::{Edns, HEADER_OCTETS, Intake, Request, Transport};

/// Something in a message that is not as RFC 1035 lays it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed DNS message: {0}")]
pub struct Malformed(pub &'static str);

/// Two octets of a message as a number.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let octets = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(octets.try_into().ok()?))
}

/// Four octets of a message as a number.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let octets = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(octets.try_into().ok()?))
}
