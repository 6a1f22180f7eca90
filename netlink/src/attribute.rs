//! Reading netlink attributes without copying them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

/// What is wrong with an answer of the kernel.
pub(crate) type Detail = String;

/// Kind (without the nested and byte-order bits) and value of one attribute.
pub(crate) type Attribute<'a> = (u16, &'a [u8]);

/// The attributes in `bytes`, in order.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, Detail>> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        attribute
            .into_inner()
            .get(NLA_HEADER_SIZE..length)
            .map(|value| (kind, value))
            .ok_or_else(|| format!("attribute {kind} is cut off"))
    })
}

/// The first attribute of a kind.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Result<Option<&[u8]>, Detail> {
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        if kind == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn array<const N: usize>(value: &[u8], what: &str) -> Result<[u8; N], Detail> {
    value
        .try_into()
        .map_err(|_| format!("{what} has {} bytes instead of {N}", value.len()))
}

pub(crate) fn u8(value: &[u8], what: &str) -> Result<u8, Detail> {
    array::<1>(value, what).map(|[byte]| byte)
}

pub(crate) fn u16_be(value: &[u8], what: &str) -> Result<u16, Detail> {
    array(value, what).map(u16::from_be_bytes)
}

pub(crate) fn u32_be(value: &[u8], what: &str) -> Result<u32, Detail> {
    array(value, what).map(u32::from_be_bytes)
}

pub(crate) fn u64_be(value: &[u8], what: &str) -> Result<u64, Detail> {
    array(value, what).map(u64::from_be_bytes)
}

pub(crate) fn u16_native(value: &[u8], what: &str) -> Result<u16, Detail> {
    array(value, what).map(u16::from_ne_bytes)
}

pub(crate) fn u32_native(value: &[u8], what: &str) -> Result<u32, Detail> {
    array(value, what).map(u32::from_ne_bytes)
}

pub(crate) fn ipv4(value: &[u8], what: &str) -> Result<IpAddr, Detail> {
    array::<4>(value, what).map(|octets| Ipv4Addr::from(octets).into())
}

pub(crate) fn ipv6(value: &[u8], what: &str) -> Result<IpAddr, Detail> {
    array::<16>(value, what).map(|octets| Ipv6Addr::from(octets).into())
}

/// A NUL-terminated string.
pub(crate) fn text<'a>(value: &'a [u8], what: &str) -> Result<&'a str, Detail> {
    let bytes = value.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kind_and_value_and_skips_padding() {
        let bytes = [5, 0, 1, 0x80, 9, 0, 0, 0, 6, 0, 2, 0, 0x12, 0x34, 0, 0];
        let all: Vec<_> = attributes(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(all, [(1, &[9][..]), (2, &[0x12, 0x34][..])]);
        assert_eq!(find(&bytes, 2).unwrap(), Some(&[0x12, 0x34][..]));
        assert_eq!(find(&bytes, 3).unwrap(), None);
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error() {
        assert!(attributes(&[9, 0, 1, 0, 1]).next().unwrap().is_err());
        assert!(attributes(&[2, 0, 1, 0]).next().unwrap().is_err());
        assert!(attributes(&[4, 0]).next().unwrap().is_err());
    }

    #[test]
    fn a_value_of_the_wrong_size_names_the_field() {
        let error = u32_be(&[1, 2], "CTA_ID").unwrap_err();
        assert_eq!(error, "CTA_ID has 2 bytes instead of 4");
    }

    #[test]
    fn text_ends_at_the_first_nul() {
        assert_eq!(text(b"KUBE\0\0", "name"), Ok("KUBE"));
        assert_eq!(text(b"KUBE", "name"), Ok("KUBE"));
        assert!(text(&[0xff, 0], "name").is_err());
    }
}
