//! Bytes of the ipset protocol.

use netlink_packet_core::NLA_F_NET_BYTEORDER;

use super::entry::Entry;
use super::set_type::{SetSpec, SetType};
use crate::attribute::{self, Detail, attributes};
use crate::family::Family;
use crate::writer::Writer;

/// `IPSET_PROTOCOL_MIN`, which every kernel speaks.
const PROTOCOL: u8 = 6;

const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
const ATTR_TYPENAME: u16 = 3;
const ATTR_SETNAME2: u16 = 3;
const ATTR_REVISION: u16 = 4;
const ATTR_FAMILY: u16 = 5;
const ATTR_FLAGS: u16 = 6;
const ATTR_DATA: u16 = 7;
const ATTR_ADT: u16 = 8;
const ATTR_LINENO: u16 = 9;

const ATTR_PORT: u16 = 4;
const ATTR_PORT_TO: u16 = 5;
const ATTR_HASHSIZE: u16 = 18;
const ATTR_MAXELEM: u16 = 19;
const ATTR_ELEMENTS: u16 = 24;
const ATTR_REFERENCES: u16 = 25;

/// `NFPROTO_UNSPEC`.
const FAMILY_NONE: u8 = 0;

const FLAG_LIST_HEADER: u32 = 1 << 2;

/// `struct nlmsghdr` and `struct nfgenmsg` in front of a message's attributes.
const HEADERS_BYTES: usize = 20;

/// `enum ipset_cmd`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    Create,
    Destroy,
    Swap,
    List,
    Add,
    Del,
    Test,
    Type,
}

impl Command {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Create => 2,
            Self::Destroy => 3,
            Self::Swap => 6,
            Self::List => 7,
            Self::Add => 9,
            Self::Del => 10,
            Self::Test => 11,
            Self::Type => 13,
        }
    }

    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Del => "remove",
            Self::Create => "create",
            Self::Destroy => "destroy",
            Self::Swap => "swap",
            Self::List => "list",
            Self::Test => "test",
            Self::Type => "ask for",
        }
    }
}

/// A set without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetHeader {
    /// Its name.
    pub name: String,
    /// The kernel's name of its type, such as `hash:ip`.
    pub type_name: String,
    /// Family of its addresses; `None` for types without (and what `ipset` makes of them).
    pub family: Option<Family>,
    /// First and last port, of a `bitmap:port`.
    pub ports: Option<(u16, u16)>,
    /// Revision of the type.
    pub revision: u8,
    /// Most elements it takes (`maxelem`; 0 for types without a limit).
    pub max_elements: u32,
    /// Elements in it, where the kernel says (Linux 4.10).
    pub elements: Option<u32>,
    /// How many rules and sets use it.
    pub references: u32,
}

impl SetHeader {
    /// Its type; `None` for one that can't be made here.
    #[must_use]
    pub fn set_type(&self) -> Option<SetType> {
        SetType::from_name(&self.type_name, self.ports)
    }

    /// Whether it has the room that was asked for.
    pub(super) fn has_room_of(&self, spec: &SetSpec) -> bool {
        match (spec.set_type, self.ports) {
            (SetType::BitmapPort { first, last }, Some((from, to))) => from <= first && last <= to,
            _ => self.max_elements >= spec.max_elements,
        }
    }
}

pub(super) fn write_name(writer: &mut Writer, name: &str) {
    writer.u8(ATTR_PROTOCOL, PROTOCOL);
    writer.text(ATTR_SETNAME, name);
}

pub(super) fn write_create(writer: &mut Writer, name: &str, spec: &SetSpec, revision: u8) {
    write_name(writer, name);
    writer.text(ATTR_TYPENAME, spec.set_type.name());
    writer.u8(ATTR_REVISION, revision);
    writer.u8(ATTR_FAMILY, family_number(spec));
    writer.nest(ATTR_DATA, |writer| match spec.set_type {
        SetType::BitmapPort { first, last } => {
            writer.u16_be(ATTR_PORT | NLA_F_NET_BYTEORDER, first);
            writer.u16_be(ATTR_PORT_TO | NLA_F_NET_BYTEORDER, last);
        }
        _ => {
            writer.u32_marked_be(ATTR_HASHSIZE, spec.hash_size);
            writer.u32_marked_be(ATTR_MAXELEM, spec.max_elements);
        }
    });
}

/// As `ipset` numbers them: both families' rules take a set without one.
const fn family_number(spec: &SetSpec) -> u8 {
    if spec.set_type.has_family() {
        spec.family.number()
    } else {
        FAMILY_NONE
    }
}

pub(super) fn write_swap(writer: &mut Writer, first: &str, second: &str) {
    write_name(writer, first);
    writer.text(ATTR_SETNAME2, second);
}

/// One set, or all.
pub(super) fn write_list(writer: &mut Writer, name: Option<&str>, header_only: bool) {
    writer.u8(ATTR_PROTOCOL, PROTOCOL);
    if let Some(name) = name {
        writer.text(ATTR_SETNAME, name);
    }
    if header_only {
        writer.u32_marked_be(ATTR_FLAGS, FLAG_LIST_HEADER);
    }
}

pub(super) fn write_type(writer: &mut Writer, spec: &SetSpec) {
    writer.u8(ATTR_PROTOCOL, PROTOCOL);
    writer.text(ATTR_TYPENAME, spec.set_type.name());
    writer.u8(ATTR_FAMILY, family_number(spec));
}

pub(super) fn write_test(writer: &mut Writer, name: &str, entry: &Entry) {
    write_name(writer, name);
    writer.nest(ATTR_DATA, |writer| entry.write(writer));
}

/// Many elements in one message. Each carries its place (from `first_line`), which comes back
/// with a refusal.
pub(super) fn write_change(writer: &mut Writer, name: &str, entries: &[Entry], first_line: usize) {
    write_name(writer, name);
    // Says that this message counts lines; the kernel puts the refused one here.
    writer.u32_native(ATTR_LINENO, 0);
    writer.nest(ATTR_ADT, |writer| {
        for (index, entry) in entries.iter().enumerate() {
            writer.nest(ATTR_DATA, |writer| {
                entry.write(writer);
                // Counted from 1: 0 is "no line".
                let line = u32::try_from(first_line + index + 1).unwrap_or(u32::MAX);
                writer.u32_native(ATTR_LINENO, line);
            });
        }
    });
}

/// The place of the element that a refusal is about, from our own message as the kernel sent
/// it back.
pub(super) fn read_failed_line(original: &[u8]) -> Option<usize> {
    let value = attribute::find(original.get(HEADERS_BYTES..)?, ATTR_LINENO).ok()??;
    let line = attribute::u32_native(value, "IPSET_ATTR_LINENO").ok()?;
    usize::try_from(line).ok()?.checked_sub(1)
}

/// The newest revision of a set type, from the answer to `Type`.
pub(super) fn read_revision(bytes: &[u8]) -> Result<Option<u8>, Detail> {
    attribute::find(bytes, ATTR_REVISION)?
        .map(|value| attribute::u8(value, "IPSET_ATTR_REVISION"))
        .transpose()
}

pub(super) fn read_header(bytes: &[u8]) -> Result<SetHeader, Detail> {
    let (mut name, mut type_name, mut family, mut revision) = (None, None, None, 0);
    let (mut max_elements, mut elements, mut references) = (0, None, 0);
    let mut ports = None;
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        match kind {
            ATTR_SETNAME => name = Some(attribute::text(value, "the set's name")?),
            ATTR_TYPENAME => type_name = Some(attribute::text(value, "the type's name")?),
            ATTR_FAMILY => family = Some(attribute::u8(value, "IPSET_ATTR_FAMILY")?),
            ATTR_REVISION => revision = attribute::u8(value, "IPSET_ATTR_REVISION")?,
            ATTR_DATA => {
                let number = |kind, what| {
                    attribute::find(value, kind)?
                        .map(|value| attribute::u32_be(value, what))
                        .transpose()
                };
                max_elements = number(ATTR_MAXELEM, "IPSET_ATTR_MAXELEM")?.unwrap_or(0);
                elements = number(ATTR_ELEMENTS, "IPSET_ATTR_ELEMENTS")?;
                references = number(ATTR_REFERENCES, "IPSET_ATTR_REFERENCES")?.unwrap_or(0);
                ports = read_ports(value)?;
            }
            _ => {}
        }
    }
    let family = match family.ok_or("a set without a family")? {
        FAMILY_NONE => None,
        number => Some(Family::from_number(number).ok_or_else(|| format!("set family {number}"))?),
    };
    Ok(SetHeader {
        name: name.ok_or("a set without a name")?.to_owned(),
        type_name: type_name.ok_or("a set without a type")?.to_owned(),
        family,
        ports,
        revision,
        max_elements,
        elements,
        references,
    })
}

/// The range of a `bitmap:port`, from the attributes that a set was created with.
fn read_ports(data: &[u8]) -> Result<Option<(u16, u16)>, Detail> {
    let port = |kind| {
        attribute::find(data, kind)?
            .map(|value| attribute::u16_be(value, "IPSET_ATTR_PORT"))
            .transpose()
    };
    Ok(port(ATTR_PORT)?.zip(port(ATTR_PORT_TO)?))
}

/// The elements in one message of a listing.
pub(super) fn read_entries(
    bytes: &[u8],
    set_type: SetType,
    entries: &mut Vec<Entry>,
) -> Result<(), Detail> {
    let Some(list) = attribute::find(bytes, ATTR_ADT)? else {
        return Ok(());
    };
    for attribute in attributes(list) {
        let (kind, value) = attribute?;
        if kind == ATTR_DATA {
            entries.extend(Entry::read(value, set_type)?);
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::writer::MessageHead;

    fn body(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        let head = MessageHead {
            subsystem: 6,
            command: 0,
            flags: 0,
            sequence: 0,
            family: 2,
        };
        writer.message(&head, write);
        writer.bytes().unwrap()[HEADERS_BYTES..].to_vec()
    }

    const ENTRIES: [Entry; 2] = [
        Entry::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1))),
        Entry::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2))),
    ];

    #[test]
    fn a_batch_of_elements_as_bytes() {
        let element = |last: u8, line: u8| {
            [
                [24, 0, 7, 0x80], // IPSET_ATTR_DATA
                [12, 0, 1, 0x80], // IPSET_ATTR_IP
                [8, 0, 1, 0x40],  // IPSET_ATTR_IPADDR_IPV4, in network order
                [10, 0, 0, last],
                [8, 0, 9, 0], // IPSET_ATTR_LINENO, in host order
                [line, 0, 0, 0],
            ]
            .concat()
        };
        let mut expected = vec![5, 0, 1, 0, 6, 0, 0, 0, 6, 0, 2, 0, b'S', 0, 0, 0];
        expected.extend([8, 0, 9, 0, 0, 0, 0, 0, 52, 0, 8, 0x80]);
        expected.extend(element(1, 6));
        expected.extend(element(2, 7));
        assert_eq!(
            body(|writer| write_change(writer, "S", &ENTRIES, 5)),
            expected
        );
    }

    #[test]
    fn a_set_to_be_created_as_bytes() {
        let spec = SetSpec {
            set_type: SetType::HashIp,
            family: Family::V6,
            max_elements: 65_536,
            hash_size: 1024,
        };
        let expected = [
            5, 0, 1, 0, 6, 0, 0, 0, // protocol
            6, 0, 2, 0, b'S', 0, 0, 0, // name
            12, 0, 3, 0, b'h', b'a', b's', b'h', b':', b'i', b'p', 0, // type
            5, 0, 4, 0, 4, 0, 0, 0, // revision
            5, 0, 5, 0, 10, 0, 0, 0, // family
            20, 0, 7, 0x80, // data
            8, 0, 18, 0x40, 0, 0, 4, 0, // hashsize
            8, 0, 19, 0x40, 0, 1, 0, 0, // maxelem
        ];
        assert_eq!(body(|writer| write_create(writer, "S", &spec, 4)), expected);
    }

    #[test]
    fn reads_elements_and_header_of_a_listing() {
        let bytes = body(|writer| {
            write_name(writer, "S");
            writer.text(ATTR_TYPENAME, "hash:ip");
            writer.u8(ATTR_FAMILY, 10);
            writer.u8(ATTR_REVISION, 3);
            writer.nest(ATTR_DATA, |writer| {
                writer.u32_marked_be(ATTR_MAXELEM, 9);
                writer.u32_marked_be(ATTR_ELEMENTS, 2);
                writer.u32_marked_be(ATTR_REFERENCES, 1);
            });
            writer.nest(ATTR_ADT, |writer| {
                for entry in &ENTRIES {
                    writer.nest(ATTR_DATA, |writer| entry.write(writer));
                }
            });
        });
        let expected = SetHeader {
            name: "S".to_owned(),
            type_name: "hash:ip".to_owned(),
            family: Some(Family::V6),
            ports: None,
            revision: 3,
            max_elements: 9,
            elements: Some(2),
            references: 1,
        };
        assert_eq!(read_header(&bytes), Ok(expected));
        let mut entries = Vec::new();
        read_entries(&bytes, SetType::HashIp, &mut entries).unwrap();
        assert_eq!(entries, ENTRIES);
        assert!(read_header(&bytes[..16]).is_err());
    }

    #[test]
    fn a_refusal_says_which_element() {
        let mut original = vec![0; HEADERS_BYTES];
        original.extend(body(|writer| {
            write_name(writer, "S");
            writer.u32_native(ATTR_LINENO, 8);
        }));
        assert_eq!(read_failed_line(&original), Some(7));
        assert_eq!(read_failed_line(&original[..HEADERS_BYTES]), None);
        assert_eq!(read_failed_line(&[]), None);
    }
}
