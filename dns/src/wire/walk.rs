//! Walking over the records of a message without reading them.

use super::{Malformed, Rtype, u16_at, u32_at};

/// Where one record's parts are in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: usize,
    /// Of the type, after the owner.
    pub(crate) fixed: usize,
    pub(crate) data: usize,
    pub(crate) end: usize,
    pub(crate) rtype: Rtype,
}

impl Place {
    /// Where the TTL's four octets are.
    pub(crate) const fn ttl(&self) -> usize {
        self.fixed + 4
    }

    pub(crate) fn read_ttl(&self, message: &[u8]) -> u32 {
        u32_at(message, self.ttl()).unwrap_or_default()
    }
}

/// The record that begins at `start`.
pub(crate) fn record_at(message: &[u8], start: usize) -> Result<Place, Malformed> {
    let fixed = skip_name(message, start)?;
    let cut = Malformed("a record is cut off");
    let rtype = Rtype(u16_at(message, fixed).ok_or(cut)?);
    let length = usize::from(u16_at(message, fixed + 8).ok_or(cut)?);
    let data = fixed + 10;
    let end = data + length;
    if end > message.len() {
        return Err(cut);
    }
    Ok(Place {
        start,
        fixed,
        data,
        end,
        rtype,
    })
}

/// Where the name at `at` ends, pointers not followed.
pub(crate) fn skip_name(message: &[u8], at: usize) -> Result<usize, Malformed> {
    let mut at = at;
    loop {
        let first = message.get(at).copied();
        match usize::from(first.ok_or(Malformed("a name runs out of the message"))?) {
            0 => return Ok(at + 1),
            label @ 1..=63 => at += label + 1,
            0xC0.. => return Ok(at + 2),
            _ => return Err(Malformed("an unknown label type")),
        }
    }
}
