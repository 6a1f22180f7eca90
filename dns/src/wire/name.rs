use std::fmt;

use super::Malformed;

/// The longest name in wire form, the root's zero octet included (RFC 1035 §3.1).
pub const NAME_OCTETS_MAX: usize = 255;
/// The longest label (RFC 1035 §3.1).
pub const LABEL_OCTETS_MAX: usize = 63;

/// A domain name in wire form, uncompressed, in the case it came in. Kept in place: a name
/// costs no allocation, so keep many of them as boxed slices ([`Name::as_wire`]).
#[derive(Clone)]
pub struct Name {
    length: u8,
    octets: [u8; NAME_OCTETS_MAX],
}

/// A text that is no domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or one at the start.
    #[error("{0:?} has an empty label")]
    EmptyLabel(String),
    /// More than 63 octets between two dots.
    #[error("{0:?} has a label of more than 63 octets")]
    LongLabel(String),
    /// More than 255 octets in wire form.
    #[error("{0:?} is longer than 255 octets")]
    LongName(String),
    /// A `\` with neither three digits up to 255 nor a character behind it.
    #[error("{0:?} has a \\ that escapes nothing")]
    Escape(String),
}

impl Name {
    /// The root.
    pub const ROOT: Self = Self {
        length: 1,
        octets: [0; NAME_OCTETS_MAX],
    };

    /// Reads a name without compression at `at`; also says where it ends.
    ///
    /// # Errors
    /// If it runs out of the message, is too long, or has a pointer or an unknown label type.
    pub fn read_plain(message: &[u8], at: usize) -> Result<(Self, usize), Malformed> {
        let rest = message.get(at..);
        let mut name = Self::ROOT;
        let length = name.set_plain(rest.ok_or(Malformed("a name runs out of the message"))?)?;
        Ok((name, at + length))
    }

    /// Reads a name that may be compressed at `at`; also says where it ends there.
    ///
    /// # Errors
    /// If it runs out of the message, is too long, or a pointer does not point back.
    pub fn read(message: &[u8], at: usize) -> Result<(Self, usize), Malformed> {
        let mut name = Self::ROOT;
        let mut length = 0;
        let (mut from, mut lowest, mut end) = (at, at, None);
        loop {
            let first = message.get(from).copied();
            let first = usize::from(first.ok_or(Malformed("a name runs out of the message"))?);
            if first >= 0xC0 {
                let second = message.get(from + 1).copied();
                let second = second.ok_or(Malformed("a pointer is cut off"))?;
                let target = (first & 0x3F) << 8 | usize::from(second);
                // Every pointer must lead further back: so no name can loop.
                if target >= lowest {
                    return Err(Malformed("a pointer that does not point back"));
                }
                end = end.or(Some(from + 2));
                (from, lowest) = (target, target);
                continue;
            }
            if first > LABEL_OCTETS_MAX {
                return Err(Malformed("an unknown label type"));
            }
            let label = message.get(from..=from + first);
            let label = label.ok_or(Malformed("a name runs out of the message"))?;
            let place = name.octets.get_mut(length..length + label.len());
            let place = place.ok_or(Malformed("a name of more than 255 octets"))?;
            place.copy_from_slice(label);
            length += label.len();
            from += label.len();
            if first == 0 {
                break;
            }
        }
        name.length = u8::try_from(length).map_err(|_| Malformed("a name is too long"))?;
        Ok((name, end.unwrap_or(from)))
    }

    /// Reads the usual text form, with `\.` and `\DDD` escapes; a missing last dot is added.
    ///
    /// # Errors
    /// [`NameError`] names the text.
    pub fn from_text(text: &str) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut rest = if text == "." { "" } else { text }.bytes();
        let escape = || NameError::Escape(text.to_owned());
        while let Some(octet) = rest.next() {
            match octet {
                b'.' => Self::end_label(&mut wire, &mut label, text)?,
                b'\\' => label.push(unescape(&mut rest).ok_or_else(escape)?),
                other => label.push(other),
            }
        }
        if !label.is_empty() {
            Self::end_label(&mut wire, &mut label, text)?;
        }
        wire.push(0);
        Self::copied(&wire).map_err(|_| NameError::LongName(text.to_owned()))
    }

    fn end_label(wire: &mut Vec<u8>, label: &mut Vec<u8>, text: &str) -> Result<(), NameError> {
        if label.is_empty() {
            return Err(NameError::EmptyLabel(text.to_owned()));
        }
        let length = u8::try_from(label.len()).ok();
        let length = length.filter(|length| usize::from(*length) <= LABEL_OCTETS_MAX);
        wire.push(length.ok_or_else(|| NameError::LongLabel(text.to_owned()))?);
        wire.append(label);
        Ok(())
    }

    /// A name from its wire form, which the caller knows to be well-formed.
    pub(crate) fn copied(wire: &[u8]) -> Result<Self, Malformed> {
        let mut name = Self::ROOT;
        let place = name.octets.get_mut(..wire.len());
        place
            .ok_or(Malformed("a name of more than 255 octets"))?
            .copy_from_slice(wire);
        name.length = u8::try_from(wire.len()).map_err(|_| Malformed("a name is too long"))?;
        Ok(name)
    }

    /// A name from labels, first to last, without the root's.
    ///
    /// # Errors
    /// If a label is empty or too long, or all together are.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Malformed> {
        let mut wire = Vec::new();
        for label in labels {
            let length = u8::try_from(label.len()).ok();
            let length = length.filter(|length| (1..=63).contains(length));
            wire.push(length.ok_or(Malformed("a label is empty or too long"))?);
            wire.extend_from_slice(label);
        }
        wire.push(0);
        Self::copied(&wire)
    }

    /// This name's labels followed by all of `suffix`.
    ///
    /// # Errors
    /// If they are too long together.
    pub fn followed_by(&self, suffix: &Self) -> Result<Self, Malformed> {
        let own = self.as_wire().split_last().map_or(&[][..], |(_, own)| own);
        Self::copied(&[own, suffix.as_wire()].concat())
    }

    /// The wire form, the root's zero octet included.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or(&[0])
    }

    /// How many octets the wire form has, 1 for the root.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        usize::from(self.length)
    }

    /// Whether this is the root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.length == 1
    }

    /// The same name in lower case.
    #[must_use]
    pub fn to_lower(&self) -> Self {
        let mut lower = self.clone();
        // Length octets are at most 63 and 'A' is 65: they stay as they are.
        if let Some(octets) = lower.octets.get_mut(..usize::from(self.length)) {
            octets.make_ascii_lowercase();
        }
        lower
    }

    /// Makes this a copy of `other` in lower case, touching no more octets than it has.
    pub fn set_lower(&mut self, other: &Self) {
        let length = usize::from(other.length);
        if let (Some(to), Some(from)) = (self.octets.get_mut(..length), other.octets.get(..length))
        {
            to.copy_from_slice(from);
            to.make_ascii_lowercase();
            self.length = other.length;
        }
    }

    /// Makes this a copy of `other`, touching no more octets than it has.
    pub fn set(&mut self, other: &Self) {
        let length = usize::from(other.length);
        if let (Some(to), Some(from)) = (self.octets.get_mut(..length), other.octets.get(..length))
        {
            to.copy_from_slice(from);
            self.length = other.length;
        }
    }

    /// Reads a plain name at the start of `wire` into this one; says how long it is.
    pub(crate) fn set_plain(&mut self, wire: &[u8]) -> Result<usize, Malformed> {
        let mut end = 0;
        loop {
            let label = wire.get(end).copied();
            let label = usize::from(label.ok_or(Malformed("a name runs out of the message"))?);
            if label > LABEL_OCTETS_MAX {
                return Err(Malformed(
                    "a pointer or unknown label where a name is plain",
                ));
            }
            end += label + 1;
            if label == 0 {
                break;
            }
        }
        let from = wire.get(..end);
        let from = from.ok_or(Malformed("a name runs out of the message"))?;
        let to = self.octets.get_mut(..end);
        to.ok_or(Malformed("a name of more than 255 octets"))?
            .copy_from_slice(from);
        self.length = u8::try_from(end).map_err(|_| Malformed("a name is too long"))?;
        Ok(end)
    }

    /// The labels, first to last, without the root's.
    #[must_use]
    pub fn labels(&self) -> Labels<'_> {
        Labels {
            wire: self.as_wire(),
        }
    }

    /// How many labels it has, 0 for the root.
    #[must_use]
    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// Where in this name's wire form `zone` begins, if it ends in it. Octets are compared
    /// as they are: give both in lower case.
    #[must_use]
    pub fn suffix_at(&self, zone: &Self) -> Option<usize> {
        let wire = self.as_wire();
        let at = wire.len().checked_sub(zone.wire_len())?;
        if wire.get(at..)? != zone.as_wire() {
            return None;
        }
        // The tail is the same; now it has to begin where a label begins.
        let mut start = 0;
        while start < at {
            start += usize::from(*wire.get(start)?) + 1;
        }
        (start == at).then_some(at)
    }

    /// Whether it is `zone` or below it. Give both in lower case.
    #[must_use]
    pub fn is_within(&self, zone: &Self) -> bool {
        self.suffix_at(zone).is_some()
    }

    /// The name without its first label; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let first = usize::from(*self.as_wire().first()?);
        if first == 0 {
            return None;
        }
        Self::copied(self.as_wire().get(first + 1..)?).ok()
    }

    /// Whether both are the same name, whatever their case.
    #[must_use]
    pub fn eq_ignore_case(&self, other: &Self) -> bool {
        self.as_wire().eq_ignore_ascii_case(other.as_wire())
    }
}

/// The labels of a name in order.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    wire: &'a [u8],
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.wire.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        self.wire = rest;
        Some(label)
    }
}

fn unescape(rest: &mut std::str::Bytes<'_>) -> Option<u8> {
    let first = rest.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let digits = [first, rest.next()?, rest.next()?];
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_wire() == other.as_wire()
    }
}

impl Eq for Name {}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_wire().hash(state);
    }
}

/// Text form with the last dot; what is not printable, and dots within labels, escaped.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(octet))?;
                    }
                    0x21..=0x7E => write!(f, "{}", char::from(octet))?,
                    other => write!(f, "\\{other:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).expect(text)
    }

    #[test]
    fn text_and_wire_form_are_the_same_name() {
        for text in [
            ".",
            "a.",
            "Web-0.headless.default.svc.cluster.local.",
            "a\\.b.c.",
            "\\000\\255.x.",
        ] {
            assert_eq!(name(text).to_string(), text);
            let (again, end) = Name::read_plain(name(text).as_wire(), 0).expect(text);
            assert_eq!((again, end), (name(text), name(text).wire_len()));
        }
        assert_eq!(name("no.dot"), name("no.dot."));
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        assert!(matches!(
            Name::from_text("a..b"),
            Err(NameError::EmptyLabel(_))
        ));
        assert!(matches!(
            Name::from_text(".a"),
            Err(NameError::EmptyLabel(_))
        ));
        assert!(matches!(Name::from_text("a\\"), Err(NameError::Escape(_))));
        assert!(matches!(
            Name::from_text("a\\256."),
            Err(NameError::Escape(_))
        ));
        let label = "x".repeat(64);
        assert!(matches!(
            Name::from_text(&label),
            Err(NameError::LongLabel(_))
        ));
        let long = ["y".repeat(63).as_str(); 4].join(".");
        assert!(matches!(
            Name::from_text(&long),
            Err(NameError::LongName(_))
        ));
    }

    #[test]
    fn a_zone_is_found_at_label_boundaries_only() {
        let zone = name("local.");
        assert_eq!(name("a.local.").suffix_at(&zone), Some(2));
        assert_eq!(name("local.").suffix_at(&zone), Some(0));
        assert_eq!(name("b.").suffix_at(&Name::ROOT), Some(2));
        assert_eq!(name("alocal.").suffix_at(&zone), None);
        // The length octet of "local" (5) inside another label.
        assert_eq!(name("x\\005local.").suffix_at(&zone), None);
    }

    #[test]
    fn pointers_lead_back_or_nowhere() {
        let message = b"\x01a\x00\x01b\xC0\x00\x01c\xC0\x03\xC0\x0B";
        let (read, end) = Name::read(message, 7).expect("two pointers");
        assert_eq!((read, end), (name("c.b.a."), 11));
        assert!(Name::read(message, 11).is_err(), "a pointer to itself");
        assert!(
            Name::read(b"\xC0\x02\x01a\x00", 0).is_err(),
            "a pointer forward"
        );
        assert!(Name::read(b"\x40abc", 0).is_err(), "a label type of 1990");
        assert!(
            Name::read_plain(message, 7).is_err(),
            "a pointer in a plain name"
        );
    }

    #[test]
    fn case_is_kept_and_can_be_ignored() {
        let mixed = name("ClUsTeR.LoCaL.");
        assert_eq!(mixed.to_lower(), name("cluster.local."));
        assert_ne!(mixed, name("cluster.local."));
        assert!(mixed.eq_ignore_case(&name("cluster.local.")));
    }
}
