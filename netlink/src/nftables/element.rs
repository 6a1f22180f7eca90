use std::time::Duration;

use super::data::Data;
use super::expression::{Name, milliseconds};
use super::numbers::{LIST_ELEM, element};
use super::userdata;
use super::verdict::{Value, read_data, write_data};
use crate::attribute::{self, Detail, attributes};
use crate::writer::Writer;

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    /// Its key.
    pub key: Key,
    /// What the key leads to, in a map.
    pub value: Option<Value>,
    /// When it vanishes, instead of the set's own time-out. Whole milliseconds, at least one.
    pub timeout: Option<Duration>,
    /// How long it still stays. Read only.
    pub expires_in: Option<Duration>,
    /// Its comment.
    pub comment: Option<Name>,
}

/// Which keys an element stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// One. In a set with [`super::Set::intervals`] whose key is a single field, give a
    /// [`Self::Range`] from the key to itself.
    One(Data),
    /// From the first to the second, both included, of a set whose key is a single field in
    /// network order.
    Range(Data, Data),
    /// The same for each field of a concatenation (Linux 5.6).
    Ranges(Data, Data),
    /// Those that no other element stands for (Linux 5.13).
    Any,
}

impl Element {
    /// An element of a set.
    #[must_use]
    pub const fn new(key: Data) -> Self {
        Self::of(Key::One(key), None)
    }

    /// An element of a map.
    #[must_use]
    pub const fn leading_to(key: Data, value: Value) -> Self {
        Self::of(Key::One(key), Some(value))
    }

    /// An element with nothing else to it.
    #[must_use]
    pub const fn of(key: Key, value: Option<Value>) -> Self {
        Self {
            key,
            value,
            timeout: None,
            expires_in: None,
            comment: None,
        }
    }

    /// One or two elements of `NFTA_SET_ELEM_LIST_ELEMENTS`: the kernel keeps a range of a
    /// single field as where it begins and where something else begins.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nest(LIST_ELEM, |writer| {
            if let Some(timeout) = self.timeout {
                writer.attribute(element::TIMEOUT, &milliseconds(timeout).to_be_bytes());
            }
            match &self.key {
                Key::One(key) | Key::Range(key, _) => write_data(writer, element::KEY, key),
                Key::Ranges(from, to) => {
                    write_data(writer, element::KEY, from);
                    write_data(writer, element::KEY_END, to);
                }
                Key::Any => writer.u32_be(element::FLAGS, element::FLAG_CATCH_ALL),
            }
            if let Some(value) = &self.value {
                value.write(writer, element::DATA);
            }
            userdata::write_comment(writer, element::USERDATA, self.comment.as_deref());
        });
        if let Key::Range(_, to) = &self.key
            && let Some(next) = successor(to)
        {
            writer.nest(LIST_ELEM, |writer| {
                writer.u32_be(element::FLAGS, element::FLAG_INTERVAL_END);
                write_data(writer, element::KEY, &next);
            });
        }
    }
}

impl Element {
    /// How many elements it is for the kernel.
    pub(super) fn kernel_elements(&self) -> usize {
        match &self.key {
            Key::Range(_, to) if successor(to).is_some() => 2,
            _ => 1,
        }
    }
}

/// The next greater key, `None` after the greatest.
fn successor(key: &Data) -> Option<Data> {
    let mut bytes = key.bytes().to_vec();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(Data::new(&bytes));
        }
    }
    None
}

/// The next smaller key, `None` before the least.
fn predecessor(key: &Data) -> Option<Data> {
    let mut bytes = key.bytes().to_vec();
    for byte in bytes.iter_mut().rev() {
        let carries = *byte == 0;
        *byte = byte.wrapping_sub(1);
        if !carries {
            return Some(Data::new(&bytes));
        }
    }
    None
}

/// What the kernel has as an element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Element(Element),
    /// Where a range ends: the first key that is not in it.
    End(Data),
}

/// `None` for an element without a key that this crate knows.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Listed>, Detail> {
    let (mut key, mut key_end, mut flags) = (None, None, 0);
    let mut read = Element::of(Key::Any, None);
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        match kind {
            element::KEY => key = read_data(value),
            element::KEY_END => key_end = read_data(value),
            element::DATA => read.value = Value::read(value),
            element::FLAGS => flags = attribute::u32_be(value, "NFTA_SET_ELEM_FLAGS")?,
            element::TIMEOUT => read.timeout = Some(duration(value, "NFTA_SET_ELEM_TIMEOUT")?),
            element::EXPIRATION => {
                read.expires_in = Some(duration(value, "NFTA_SET_ELEM_EXPIRATION")?);
            }
            element::USERDATA => {
                read.comment = userdata::comment(value, userdata::COMMENT).map(Name::from);
            }
            _ => {}
        }
    }
    read.key = match (key, key_end) {
        (Some(key), None) if flags & element::FLAG_INTERVAL_END != 0 => {
            return Ok(Some(Listed::End(key)));
        }
        (Some(key), Some(end)) => Key::Ranges(key, end),
        (Some(key), None) => Key::One(key),
        (None, _) if flags & element::FLAG_CATCH_ALL != 0 => Key::Any,
        (None, _) => return Ok(None),
    };
    Ok(Some(Listed::Element(read)))
}

fn duration(value: &[u8], what: &str) -> Result<Duration, Detail> {
    attribute::u64_be(value, what).map(Duration::from_millis)
}

/// Puts beginnings and ends of ranges of a single field together. Ends come in any order, and
/// where a range ends that the next begins behind there may be none.
pub(super) fn join_ranges(elements: Vec<Element>, mut ends: Vec<Data>) -> Vec<Element> {
    let begin = |element: &Element| match &element.key {
        Key::One(key) => Some(key.clone()),
        _ => None,
    };
    let mut begins: Vec<Data> = elements.iter().filter_map(begin).collect();
    begins.sort();
    ends.sort();
    let first_after = |keys: &[Data], key: &Data| {
        let at = keys.partition_point(|other| other <= key);
        keys.get(at).cloned()
    };
    elements
        .into_iter()
        .map(|mut element| {
            if let Some(from) = begin(&element) {
                let next = [first_after(&begins, &from), first_after(&ends, &from)];
                let end = next.into_iter().flatten().min();
                let last = end.as_ref().and_then(predecessor);
                let greatest = || Data::new(&vec![u8::MAX; from.bytes().len()]);
                let to = last.unwrap_or_else(greatest);
                element.key = Key::Range(from, to);
            }
            element
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u8, to: u8) -> Element {
        let key = Key::Range(Data::new(&[10, from]), Data::new(&[10, to]));
        Element::of(key, None)
    }

    #[test]
    fn ranges_are_put_together_from_beginnings_and_ends() {
        let one = |key: &[u8]| Element::new(Data::new(key));
        let elements = vec![one(&[10, 8]), one(&[10, 0]), one(&[255, 0]), one(&[10, 4])];
        let ends = vec![
            Data::new(&[10, 12]),
            Data::new(&[0, 0]),
            Data::new(&[10, 3]),
        ];
        let greatest = Key::Range(Data::new(&[255, 0]), Data::new(&[255, 255]));
        let expected = [
            range(8, 11),
            range(0, 2),
            Element::of(greatest, None),
            range(4, 7),
        ];
        assert_eq!(join_ranges(elements, ends), expected);
    }

    #[test]
    fn keys_before_and_after_carry_over() {
        let data = |bytes: &[u8]| Data::new(bytes);
        assert_eq!(successor(&data(&[1, 255])), Some(data(&[2, 0])));
        assert_eq!(successor(&data(&[255, 255])), None);
        assert_eq!(predecessor(&data(&[2, 0])), Some(data(&[1, 255])));
        assert_eq!(predecessor(&data(&[0, 0])), None);
    }
}
