//! What a refusal of the kernel is about: its offset in our message, as a name.

use netlink_packet_core::NLA_F_NESTED;

use super::batch::Batch;
use super::change::Change;
use super::error::Refusal;
use super::numbers::{LIST_ELEM, element, message, rule};
use crate::attribute;

/// `enum nlmsgerr_attrs`.
const ERROR_MESSAGE: u16 = 1;
const ERROR_OFFSET: u16 = 2;
/// `struct nlmsghdr`, behind which a refusal has its attributes.
const MESSAGE_HEADER_BYTES: usize = 16;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const ATTRIBUTES_AT: usize = 20;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// How deep attributes are in attributes.
const DEPTH_MAX: usize = 8;

/// The refusal of the message with this sequence number. `echo` is what follows the errno.
pub(super) fn refusal(
    batch: &Batch,
    changes: &[Change],
    sequence: u32,
    code: i32,
    echo: &[u8],
) -> Refusal {
    let explained = echo.get(MESSAGE_HEADER_BYTES..).unwrap_or_default();
    let text = attribute::find(explained, ERROR_MESSAGE).ok().flatten();
    let text = text.and_then(|text| attribute::text(text, "NLMSGERR_ATTR_MSG").ok());
    let mut refusal = Refusal {
        change: None,
        request: "the transaction".to_owned(),
        item: None,
        attribute: None,
        message: text.map(str::to_owned),
        code,
    };
    let Some((place, bytes)) = batch.message(sequence) else {
        return refusal;
    };
    refusal.change = Some(place.change);
    let Some(change) = changes.get(place.change) else {
        return refusal;
    };
    refusal.request = change.to_string();
    let offset = attribute::find(explained, ERROR_OFFSET).ok().flatten();
    let offset = offset.and_then(|value| attribute::u32_native(value, "").ok());
    if let Some(offset) = offset.and_then(|offset| usize::try_from(offset).ok()) {
        let path = path_to(bytes, offset);
        refusal.attribute = name(change.command().0, &path);
        refusal.item = item(change, &path).map(|item| item + place.first_element);
    }
    refusal
}

/// An attribute on the way to another: its kind, and how many of the same came before it.
type Step = (u16, usize);

/// The attributes around and at an offset of a message, from the outermost.
fn path_to(message: &[u8], offset: usize) -> Vec<Step> {
    let mut path = Vec::new();
    let length = read_u16(message, 0).map_or(0, usize::from);
    let length_high = read_u16(message, 2).map_or(0, usize::from);
    let mut end = length + (length_high << 16);
    let mut at = ATTRIBUTES_AT;
    while path.len() < DEPTH_MAX {
        let mut before: Vec<u16> = Vec::new();
        let Some((kind, start, next)) = attribute_around(message, at, end, offset, &mut before)
        else {
            return path;
        };
        let masked = kind & !NLA_F_NESTED;
        path.push((masked, before.iter().filter(|one| **one == masked).count()));
        if start == offset || kind & NLA_F_NESTED == 0 {
            return path;
        }
        (at, end) = (start + ATTRIBUTE_HEADER_BYTES, next);
    }
    path
}

/// Kind, beginning and end of the attribute that the offset is in; kinds of those before it.
fn attribute_around(
    bytes: &[u8],
    mut at: usize,
    end: usize,
    offset: usize,
    before: &mut Vec<u16>,
) -> Option<(u16, usize, usize)> {
    while at < end {
        let length = usize::from(read_u16(bytes, at)?).max(ATTRIBUTE_HEADER_BYTES);
        let kind = read_u16(bytes, at + 2)?;
        let next = at + length.next_multiple_of(4);
        if (at..next).contains(&offset) {
            return Some((kind, at, next));
        }
        before.push(kind & !NLA_F_NESTED);
        at = next;
    }
    None
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_ne_bytes)
}

/// The element or expression that a path leads through.
fn item(change: &Change, path: &[Step]) -> Option<usize> {
    let ((element::LIST_ELEMENTS | rule::EXPRESSIONS, 0), (LIST_ELEM, item)) =
        (*path.first()?, *path.get(1)?)
    else {
        return None;
    };
    // A range is two elements for the kernel; which of ours it is only the count of those
    // before says.
    let mut left = item;
    let elements = change.elements();
    if elements.is_empty() {
        return Some(item);
    }
    elements.iter().position(|element| {
        let here = element.kernel_elements();
        let found = left < here;
        left = left.saturating_sub(here);
        found
    })
}

/// The name of the attribute, as far as this crate writes such.
fn name(command: u8, path: &[Step]) -> Option<&'static str> {
    let (outer, inner) = (path.first()?.0, path.get(2).map(|step| step.0));
    Some(match (command, outer) {
        (message::NEW_TABLE | message::DELETE_TABLE, 1) => "NFTA_TABLE_NAME",
        (message::NEW_TABLE, 6) => "NFTA_TABLE_USERDATA",
        (message::NEW_CHAIN | message::DELETE_CHAIN, 1) => "NFTA_CHAIN_TABLE",
        (message::NEW_CHAIN | message::DELETE_CHAIN, 3) => "NFTA_CHAIN_NAME",
        (message::NEW_CHAIN, 4) => "NFTA_CHAIN_HOOK",
        (message::NEW_CHAIN, 5) => "NFTA_CHAIN_POLICY",
        (message::NEW_CHAIN, 7) => "NFTA_CHAIN_TYPE",
        (message::NEW_RULE | message::DELETE_RULE, 1) => "NFTA_RULE_TABLE",
        (message::NEW_RULE | message::DELETE_RULE, 2) => "NFTA_RULE_CHAIN",
        (message::NEW_RULE | message::DELETE_RULE, 3) => "NFTA_RULE_HANDLE",
        (message::NEW_RULE, 4) => "NFTA_RULE_EXPRESSIONS, expression",
        (message::NEW_RULE, 7) => "NFTA_RULE_USERDATA",
        (message::NEW_SET | message::DELETE_SET, 1) => "NFTA_SET_TABLE",
        (message::NEW_SET | message::DELETE_SET, 2) => "NFTA_SET_NAME",
        (message::NEW_SET, 3) => "NFTA_SET_FLAGS",
        (message::NEW_SET, 4) => "NFTA_SET_KEY_TYPE",
        (message::NEW_SET, 5) => "NFTA_SET_KEY_LEN",
        (message::NEW_SET, 6) => "NFTA_SET_DATA_TYPE",
        (message::NEW_SET, 7) => "NFTA_SET_DATA_LEN",
        (message::NEW_SET, 9) => "NFTA_SET_DESC",
        (message::NEW_SET, 11) => "NFTA_SET_TIMEOUT",
        (message::NEW_ELEMENT | message::DELETE_ELEMENT, 1) => "NFTA_SET_ELEM_LIST_TABLE",
        (message::NEW_ELEMENT | message::DELETE_ELEMENT, 2) => "NFTA_SET_ELEM_LIST_SET",
        (message::NEW_ELEMENT | message::DELETE_ELEMENT, 3) => match inner {
            Some(1) => "NFTA_SET_ELEM_KEY of element",
            Some(2) => "NFTA_SET_ELEM_DATA of element",
            Some(4) => "NFTA_SET_ELEM_TIMEOUT of element",
            Some(10) => "NFTA_SET_ELEM_KEY_END of element",
            _ => "NFTA_SET_ELEM_LIST_ELEMENTS, element",
        },
        _ => return None,
    })
}
