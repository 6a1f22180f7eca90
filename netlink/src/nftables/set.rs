use std::time::Duration;

use super::data::{FieldType, length_of, type_number, types_of_number};
use super::expression::{Name, milliseconds};
use super::numbers::{LIST_ELEM, bits, data, set};
use super::userdata::{self, ByteOrder};
use crate::attribute::{self, Detail, attributes};
use crate::writer::Writer;

/// A set, a map or a verdict map, without its elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set {
    /// Its name, without `%`. An anonymous set needs one, too, that no other in the table has;
    /// nobody sees it. The kernel looks sets up by going through all of a table: thousands of them
    /// make a transaction slow.
    pub name: Name,
    /// The fields of a key, at least one; nft can show at most five.
    pub key: Vec<FieldType>,
    /// What a key leads to; `None` for a set.
    pub maps_to: Option<MapsTo>,
    /// Belongs to the one rule that names it, and goes with it. nft shows its elements within
    /// the rule. It must be named by a rule in the transaction that adds it.
    pub anonymous: bool,
    /// No element comes or goes after the transaction. nft makes anonymous sets so.
    pub constant: bool,
    /// Elements may be ranges.
    pub intervals: bool,
    /// Packets add elements ([`super::Expression::Update`]).
    pub dynamic: bool,
    /// When elements vanish.
    pub timeout: Timeout,
    /// Most elements it may have. A set that packets add to should have one; the kernel takes
    /// 65,535 else.
    pub elements_max: Option<u32>,
    /// Its comment.
    pub comment: Option<Name>,
}

/// What a map's keys lead to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MapsTo {
    /// A verdict.
    Verdict,
    /// Bytes of these fields.
    Data(Vec<FieldType>),
}

/// When elements of a set vanish by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Timeout {
    /// They stay.
    #[default]
    Never,
    /// Each may have its own time-out.
    PerElement,
    /// After this time, unless an element has its own. Whole milliseconds, at least one.
    After(Duration),
}

impl Set {
    /// A set of keys of these fields, with nothing else to it.
    #[must_use]
    pub fn new(name: impl Into<Name>, key: &[FieldType]) -> Self {
        Self {
            name: name.into(),
            key: key.to_vec(),
            maps_to: None,
            anonymous: false,
            constant: false,
            intervals: false,
            dynamic: false,
            timeout: Timeout::Never,
            elements_max: None,
            comment: None,
        }
    }

    /// A map from keys of these fields, with nothing else to it.
    #[must_use]
    pub fn map(name: impl Into<Name>, key: &[FieldType], maps_to: MapsTo) -> Self {
        Self {
            maps_to: Some(maps_to),
            ..Self::new(name, key)
        }
    }

    fn flags(&self) -> u32 {
        let timeout = self.timeout != Timeout::Never;
        let concatenation = self.intervals && self.key.len() > 1;
        bits([
            (self.anonymous, set::FLAG_ANONYMOUS),
            (self.constant, set::FLAG_CONSTANT),
            (self.intervals, set::FLAG_INTERVAL),
            (self.maps_to.is_some(), set::FLAG_MAP),
            (timeout, set::FLAG_TIMEOUT),
            (self.dynamic, set::FLAG_DYNAMIC),
            (concatenation, set::FLAG_CONCATENATION),
        ])
    }

    /// The attributes of `NFT_MSG_NEWSET` after the table's name. `id` is any number that no
    /// other set of the transaction has.
    pub(super) fn write(&self, writer: &mut Writer, id: u32) {
        writer.text(set::NAME, &self.name);
        writer.u32_be(set::FLAGS, self.flags());
        writer.u32_be(set::KEY_TYPE, type_number(&self.key));
        writer.u32_be(set::KEY_LENGTH, length(&self.key));
        match &self.maps_to {
            None => {}
            Some(MapsTo::Verdict) => {
                writer.u32_be(set::DATA_TYPE, data::TYPE_VERDICT);
                writer.u32_be(set::DATA_LENGTH, 0);
            }
            Some(MapsTo::Data(fields)) => {
                writer.u32_be(set::DATA_TYPE, type_number(fields));
                writer.u32_be(set::DATA_LENGTH, length(fields));
            }
        }
        writer.u32_be(set::ID, id);
        if let Timeout::After(timeout) = self.timeout {
            writer.attribute(set::TIMEOUT, &milliseconds(timeout).to_be_bytes());
        }
        self.write_description(writer);
        let data = self.maps_to.as_ref().map(|maps_to| match maps_to {
            MapsTo::Verdict => ByteOrder::Mixed,
            MapsTo::Data(fields) => byte_order(fields),
        });
        let key = byte_order(&self.key);
        userdata::write_set(writer, set::USERDATA, key, data, self.comment.as_deref());
    }

    /// How many elements, and where the fields of a key are, which ranges must know.
    fn write_description(&self, writer: &mut Writer) {
        let concatenation = self.intervals && self.key.len() > 1;
        if self.elements_max.is_none() && !concatenation {
            return;
        }
        writer.nest(set::DESCRIPTION, |writer| {
            if let Some(elements) = self.elements_max {
                writer.u32_be(set::DESCRIPTION_SIZE, elements);
            }
            if concatenation {
                writer.nest(set::DESCRIPTION_CONCATENATION, |writer| {
                    for field in &self.key {
                        writer.nest(LIST_ELEM, |writer| {
                            let bytes = u32::try_from(field.bytes()).unwrap_or(u32::MAX);
                            writer.u32_be(set::FIELD_LENGTH, bytes);
                        });
                    }
                });
            }
        });
    }

    /// A set of a listing, its table's name and its handle.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &str, u64), Detail> {
        let mut read = Self::new("", &[]);
        let (mut table, mut handle, mut flags) = (None, None, 0);
        let mut data_type = None;
        for attribute in attributes(bytes) {
            let (kind, value) = attribute?;
            match kind {
                set::TABLE => table = Some(attribute::text(value, "NFTA_SET_TABLE")?),
                set::NAME => read.name = attribute::text(value, "NFTA_SET_NAME")?.into(),
                set::FLAGS => flags = attribute::u32_be(value, "NFTA_SET_FLAGS")?,
                set::KEY_TYPE => {
                    read.key = types_of_number(attribute::u32_be(value, "NFTA_SET_KEY_TYPE")?);
                }
                set::DATA_TYPE => data_type = Some(attribute::u32_be(value, "NFTA_SET_DATA_TYPE")?),
                set::TIMEOUT => {
                    let milliseconds = attribute::u64_be(value, "NFTA_SET_TIMEOUT")?;
                    read.timeout = Timeout::After(Duration::from_millis(milliseconds));
                }
                set::DESCRIPTION => {
                    read.elements_max = attribute::find(value, set::DESCRIPTION_SIZE)?
                        .map(|value| attribute::u32_be(value, "NFTA_SET_DESC_SIZE"))
                        .transpose()?;
                }
                set::USERDATA => {
                    read.comment = userdata::comment(value, userdata::SET_COMMENT).map(Name::from);
                }
                set::HANDLE => handle = Some(attribute::u64_be(value, "NFTA_SET_HANDLE")?),
                _ => {}
            }
        }
        read.take_flags(flags, data_type);
        match (table, handle) {
            (Some(table), Some(handle)) if !read.name.is_empty() => Ok((read, table, handle)),
            _ => Err("a set without a table, a name or a handle".to_owned()),
        }
    }

    fn take_flags(&mut self, flags: u32, data_type: Option<u32>) {
        self.anonymous = flags & set::FLAG_ANONYMOUS != 0;
        self.constant = flags & set::FLAG_CONSTANT != 0;
        self.intervals = flags & set::FLAG_INTERVAL != 0;
        self.dynamic = flags & set::FLAG_DYNAMIC != 0;
        if flags & set::FLAG_TIMEOUT != 0 && self.timeout == Timeout::Never {
            self.timeout = Timeout::PerElement;
        }
        if flags & set::FLAG_MAP != 0 {
            self.maps_to = Some(match data_type {
                Some(data::TYPE_VERDICT) => MapsTo::Verdict,
                number => MapsTo::Data(types_of_number(number.unwrap_or_default())),
            });
        }
    }
}

fn length(fields: &[FieldType]) -> u32 {
    u32::try_from(length_of(fields)).unwrap_or(u32::MAX)
}

fn byte_order(fields: &[FieldType]) -> ByteOrder {
    match fields {
        [one] if one.is_host_order() => ByteOrder::Host,
        [_] => ByteOrder::Network,
        _ => ByteOrder::Mixed,
    }
}
