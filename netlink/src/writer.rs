use std::net::IpAddr;

use netlink_packet_core::{NLA_F_NESTED, NLA_F_NET_BYTEORDER};

const ALIGNMENT_BYTES: usize = 4;
/// `struct nlmsghdr` of `linux/netlink.h`.
const MESSAGE_HEADER_BYTES: usize = 16;
const FLAGS_AT: usize = 6;
const SEQUENCE_AT: usize = 8;

/// Writes netlink messages one behind the other into one buffer, to be sent at once.
///
/// Lengths are filled in when a message or nest ends. A message that outgrows what its length
/// fields can say is noticed at [`Writer::bytes`].
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    too_large: bool,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Empties the writer and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.too_large = false;
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes back what was written since there were so many bytes, at the end of an attribute.
    pub(crate) fn take_back_to(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
    }

    /// What was written, or `None` if a length field overflowed.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        (!self.too_large).then_some(&self.bytes)
    }

    /// One nfnetlink message: `struct nlmsghdr`, `struct nfgenmsg` (version 0, no resource
    /// id), and the attributes that `body` writes.
    pub(crate) fn message(&mut self, head: &MessageHead, body: impl FnOnce(&mut Self)) {
        let kind = u16::from_be_bytes([head.subsystem, head.command]);
        self.plain_message(kind, head.flags, head.sequence, |writer| {
            writer.fixed(&[head.family, 0, 0, 0]);
            body(writer);
        });
    }

    /// `NFNL_MSG_BATCH_BEGIN` or `NFNL_MSG_BATCH_END` for a subsystem of nfnetlink.
    pub(crate) fn batch_message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        subsystem: u8,
        body: impl FnOnce(&mut Self),
    ) {
        self.plain_message(kind, flags, sequence, |writer| {
            let [high, low] = u16::from(subsystem).to_be_bytes();
            writer.fixed(&[0, 0, high, low]);
            body(writer);
        });
    }

    /// One message of any netlink protocol: `struct nlmsghdr` and what `body` writes.
    pub(crate) fn plain_message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]); // port id: the kernel knows ours
        debug_assert_eq!(self.bytes.len() - start, MESSAGE_HEADER_BYTES);
        body(self);
        match u32::try_from(self.bytes.len() - start) {
            Ok(length) => self.patch(start, &length.to_ne_bytes()),
            Err(_) => self.too_large = true,
        }
    }

    /// Gives the message that begins at `start` its sequence number.
    pub(crate) fn set_sequence(&mut self, start: usize, sequence: u32) {
        self.patch(start + SEQUENCE_AT, &sequence.to_ne_bytes());
    }

    /// Adds `NLM_F_*` to the message that begins at `start`.
    pub(crate) fn add_flags(&mut self, start: usize, flags: u16) {
        let place = start + FLAGS_AT;
        let present = self.bytes.get(place..).and_then(<[u8]>::first_chunk);
        let present = present.copied().map_or(0, u16::from_ne_bytes);
        self.patch(place, &(present | flags).to_ne_bytes());
    }

    /// A part of a protocol's fixed header, a multiple of 4 bytes in the end.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// One attribute, padded.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.attribute_with(kind, |writer| writer.bytes.extend_from_slice(value));
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute_with(kind | NLA_F_NESTED, body);
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    pub(crate) fn u16_be(&mut self, kind: u16, value: u16) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(crate) fn u16_native(&mut self, kind: u16, value: u16) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    pub(crate) fn u32_native(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A number whose byte order the attribute itself states, as ipset demands it.
    pub(crate) fn u32_marked_be(&mut self, kind: u16, value: u32) {
        self.u32_be(kind | NLA_F_NET_BYTEORDER, value);
    }

    /// An address as 4 or 16 bytes, the kind chosen by family.
    pub(crate) fn address(&mut self, kind_v4: u16, kind_v6: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind_v4, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind_v6, &address.octets()),
        }
    }

    /// A NUL-terminated string.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute_with(kind, |writer| {
            writer.bytes.extend_from_slice(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    fn attribute_with(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.patch(start, &length.to_ne_bytes()),
            Err(_) => self.too_large = true,
        }
        let padded = self.bytes.len().next_multiple_of(ALIGNMENT_BYTES);
        self.bytes.resize(padded, 0);
    }

    fn patch(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }
}

/// The fixed part of an nfnetlink message (`linux/netfilter/nfnetlink.h`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageHead {
    pub(crate) subsystem: u8,
    pub(crate) command: u8,
    /// `NLM_F_*`.
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// `nfgen_family`.
    pub(crate) family: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: MessageHead = MessageHead {
        subsystem: 6,
        command: 1,
        flags: 5,
        sequence: 0x0403_0201,
        family: 2,
    };

    #[test]
    #[cfg(target_endian = "little")]
    fn a_message_with_a_nest_as_bytes() {
        let mut writer = Writer::new();
        writer.message(&HEAD, |writer| {
            writer.text(2, "ab");
            writer.nest(7, |writer| writer.u8(1, 9));
        });
        let expected = [
            40, 0, 0, 0, 1, 6, 5, 0, 1, 2, 3, 4, 0, 0, 0, 0, // nlmsghdr
            2, 0, 0, 0, // nfgenmsg
            7, 0, 2, 0, b'a', b'b', 0, 0, // text and its padding
            12, 0, 7, 0x80, 5, 0, 1, 0, 9, 0, 0, 0, // nest
        ];
        assert_eq!(writer.bytes(), Some(&expected[..]));
    }

    #[test]
    fn messages_follow_each_other_aligned() {
        let mut writer = Writer::new();
        writer.message(&HEAD, |writer| writer.u8(1, 1));
        let first = writer.len();
        writer.message(&HEAD, |_| {});
        assert_eq!((first, writer.len()), (28, 48));
    }

    #[test]
    fn an_attribute_beyond_64_kib_is_noticed() {
        let mut writer = Writer::new();
        writer.message(&HEAD, |writer| writer.attribute(1, &[0; 65_536]));
        assert_eq!(writer.bytes(), None);
        writer.clear();
        assert_eq!(writer.bytes(), Some(&[][..]));
    }
}
