//! Name compression while a message is built (RFC 1035 §4.1.4).

use super::Name;

/// Places remembered in one message. A name that is not found among them is written out:
/// so the cost of a large message stays linear.
const SUFFIXES_CAPACITY: usize = 64;
/// A pointer has 14 bits.
const POINTER_MAX: usize = 0x3FFF;

/// Where in the message names begin that later ones may point to.
#[derive(Clone, Debug, Default)]
pub(super) struct Compressor {
    starts: Vec<u16>,
}

impl Compressor {
    pub(super) fn clear(&mut self) {
        self.starts.clear();
    }

    /// Forgets names that begin at `end` or behind it: the message was cut there.
    pub(super) fn forget_from(&mut self, end: usize) {
        self.starts.retain(|start| usize::from(*start) < end);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Remembers every label of the plain name at `at`.
    pub(super) fn note(&mut self, message: &[u8], at: usize) {
        let mut at = at;
        while let Some(&label @ 1..=63) = message.get(at) {
            if at > POINTER_MAX || self.starts.len() >= SUFFIXES_CAPACITY {
                return;
            }
            self.starts.extend(u16::try_from(at));
            at += usize::from(label) + 1;
        }
    }

    /// Appends a name, pointing back for as much of its end as the message has already, in
    /// the same case.
    pub(super) fn write(&mut self, message: &mut Vec<u8>, name: &Name) {
        let wire = name.as_wire();
        let mut at = 0;
        let start = message.len();
        while let Some(&label @ 1..) = wire.get(at) {
            let rest = wire.get(at..).unwrap_or_default();
            if let Some(&target) = self
                .starts
                .iter()
                .find(|start| same(message, **start, rest))
            {
                message.extend_from_slice(&(0xC000 | target).to_be_bytes());
                self.note(message, start);
                return;
            }
            let next = at + usize::from(label) + 1;
            message.extend_from_slice(wire.get(at..next).unwrap_or_default());
            at = next;
        }
        message.push(0);
        self.note(message, start);
    }
}

/// Whether the name at `at` of the message is `plain`.
fn same(message: &[u8], at: u16, plain: &[u8]) -> bool {
    let (mut at, mut rest) = (usize::from(at), plain);
    loop {
        match message.get(at) {
            Some(&0) => return rest == [0],
            Some(&label @ 1..=63) => {
                let length = usize::from(label) + 1;
                let here = message.get(at..at + length);
                let (Some(here), Some((wanted, after))) = (here, rest.split_at_checked(length))
                else {
                    return false;
                };
                if here != wanted {
                    return false;
                }
                (at, rest) = (at + length, after);
            }
            Some(&high @ 0xC0..) => {
                let Some(&low) = message.get(at + 1) else {
                    return false;
                };
                let target = usize::from(high & 0x3F) << 8 | usize::from(low);
                if target >= at {
                    return false;
                }
                at = target;
            }
            _ => return false,
        }
    }
}
