//! Comments, the way nft keeps them with an object: type, length, text with its NUL.

use crate::writer::Writer;

/// Type of the comment of a table, chain, rule or element (`NFTNL_UDATA_*_COMMENT`).
pub(super) const COMMENT: u8 = 0;
/// Type of the comment of a set (`NFTNL_UDATA_SET_COMMENT`).
pub(super) const SET_COMMENT: u8 = 7;
/// Types of the byte orders of a set's key and values.
const SET_KEY_ORDER: u8 = 0;
const SET_DATA_ORDER: u8 = 1;

/// Longest comment in bytes; a longer one is cut. nft takes no longer ones (128 with a NUL).
pub const COMMENT_BYTES_MAX: usize = 127;

/// In which order the bytes of a set's key are.
#[derive(Clone, Copy, Debug)]
pub(super) enum ByteOrder {
    /// In that of each field.
    Mixed,
    /// The machine's.
    Host,
    /// The network's.
    Network,
}

impl ByteOrder {
    /// As nft numbers it.
    const fn number(self) -> u32 {
        match self {
            Self::Mixed => 0,
            Self::Host => 1,
            Self::Network => 2,
        }
    }
}

/// Writes a comment as attribute `kind`, or nothing.
pub(super) fn write_comment(writer: &mut Writer, kind: u16, comment: Option<&str>) {
    if let Some(comment) = comment {
        let mut bytes = Vec::with_capacity(comment.len() + 3);
        push_comment(&mut bytes, COMMENT, comment);
        writer.attribute(kind, &bytes);
    }
}

/// Writes what a set says about itself for nft.
pub(super) fn write_set(
    writer: &mut Writer,
    kind: u16,
    key: ByteOrder,
    data: Option<ByteOrder>,
    comment: Option<&str>,
) {
    let mut bytes = Vec::new();
    push_number(&mut bytes, SET_KEY_ORDER, key.number());
    if let Some(data) = data {
        push_number(&mut bytes, SET_DATA_ORDER, data.number());
    }
    if let Some(comment) = comment {
        push_comment(&mut bytes, SET_COMMENT, comment);
    }
    writer.attribute(kind, &bytes);
}

fn push_number(bytes: &mut Vec<u8>, kind: u8, number: u32) {
    bytes.extend([kind, 4]);
    bytes.extend(number.to_ne_bytes());
}

fn push_comment(bytes: &mut Vec<u8>, kind: u8, comment: &str) {
    let mut end = comment.len().min(COMMENT_BYTES_MAX);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let text = comment.get(..end).unwrap_or_default();
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    bytes.extend([kind, length]);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

/// The comment in what was kept with an object; others keep other things there.
pub(super) fn comment(mut bytes: &[u8], wanted: u8) -> Option<&str> {
    while let [kind, length, rest @ ..] = bytes {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == wanted {
            let text = value.split(|byte| *byte == 0).next()?;
            return std::str::from_utf8(text).ok();
        }
        bytes = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_among_others_and_damage_is_none() {
        let mut bytes = Vec::new();
        push_number(&mut bytes, SET_KEY_ORDER, 2);
        push_comment(&mut bytes, SET_COMMENT, "ns/svc");
        assert_eq!(comment(&bytes, SET_COMMENT), Some("ns/svc"));
        assert_eq!(comment(&bytes, 9), None);
        assert_eq!(comment(&bytes[..9], SET_COMMENT), None);
    }

    #[test]
    fn a_long_comment_is_cut_between_letters() {
        let mut bytes = Vec::new();
        push_comment(&mut bytes, COMMENT, &"ä".repeat(100));
        assert_eq!(comment(&bytes, COMMENT), Some("ä".repeat(63).as_str()));
    }
}
