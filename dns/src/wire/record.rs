use super::walk::record_at;
use super::{Class, Malformed, Name, Rtype, u16_at, u32_at};

/// One record, decoded for whoever must look into it or change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The owner, in the case it had.
    pub owner: Name,
    /// Its type.
    pub rtype: Rtype,
    /// Its class.
    pub class: Class,
    /// Seconds it may be kept.
    pub ttl: u32,
    /// RDATA, names in it written out.
    pub data: Vec<u8>,
}

/// The records of a message by section; OPT is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The answer section.
    pub answer: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section.
    pub additional: Vec<Record>,
}

impl Record {
    /// A record of class IN.
    #[must_use]
    pub fn new(owner: Name, rtype: Rtype, ttl: u32, data: Vec<u8>) -> Self {
        Self {
            owner,
            rtype,
            class: Class::IN,
            ttl,
            data,
        }
    }

    /// A CNAME record.
    #[must_use]
    pub fn cname(owner: Name, ttl: u32, target: &Name) -> Self {
        Self::new(owner, Rtype::CNAME, ttl, target.as_wire().to_vec())
    }

    /// The one name that a CNAME, NS, PTR or DNAME holds; the target of an MX or SRV.
    #[must_use]
    pub fn target(&self) -> Option<Name> {
        let layout = layout(self.rtype)?;
        let (name, _) = Name::read_plain(&self.data, layout.before).ok()?;
        (layout.names == 1).then_some(name)
    }

    /// The serial of a SOA record: 20 octets from the end of its RDATA (RFC 1035 §3.3.13).
    #[must_use]
    pub fn soa_serial(&self) -> Option<u32> {
        let at = self.data.len().checked_sub(20)?;
        u32_at(&self.data, at).filter(|_| self.rtype == Rtype::SOA)
    }

    /// Reads the record at `at` of a message; says where it ends.
    ///
    /// # Errors
    /// If it is cut off or a name in it is malformed.
    pub fn read(message: &[u8], at: usize) -> Result<(Self, usize), Malformed> {
        let place = record_at(message, at)?;
        let (owner, _) = Name::read(message, place.start)?;
        let record = Self {
            owner,
            rtype: place.rtype,
            class: Class(u16_at(message, place.fixed + 2).unwrap_or_default()),
            ttl: place.read_ttl(message),
            data: written_out(message, place.data, place.end, place.rtype)?,
        };
        Ok((record, place.end))
    }
}

/// Where RDATA of a type has names: so many octets in, so many names.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) before: usize,
    pub(super) names: usize,
    /// RFC 3597 §4: only names in the types of RFC 1035 may be compressed.
    pub(super) compressible: bool,
}

pub(super) const fn layout(rtype: Rtype) -> Option<Layout> {
    let (before, names, compressible) = match rtype {
        Rtype::NS | Rtype::CNAME | Rtype::PTR | Rtype::MB | Rtype::MG | Rtype::MR => (0, 1, true),
        Rtype::SOA | Rtype::MINFO => (0, 2, true),
        Rtype::MX => (2, 1, true),
        Rtype::DNAME => (0, 1, false),
        Rtype::RP => (0, 2, false),
        Rtype::AFSDB | Rtype::KX => (2, 1, false),
        // RFC 2782: no compression, and some clients read none.
        Rtype::SRV => (6, 1, false),
        _ => return None,
    };
    Some(Layout {
        before,
        names,
        compressible,
    })
}

fn written_out(
    message: &[u8],
    start: usize,
    end: usize,
    rtype: Rtype,
) -> Result<Vec<u8>, Malformed> {
    let cut = Malformed("RDATA is cut off");
    let part = |from: usize, to: usize| message.get(from..to).ok_or(cut);
    let Some(layout) = layout(rtype) else {
        return Ok(part(start, end)?.to_vec());
    };
    // Names must end where the RDATA does; what they point to lies before.
    let within = part(0, end)?;
    let mut at = start + layout.before;
    let mut data = part(start, at)?.to_vec();
    for _ in 0..layout.names {
        let (name, after) = Name::read(within, at)?;
        data.extend_from_slice(name.as_wire());
        at = after;
    }
    data.extend_from_slice(part(at, end)?);
    Ok(data)
}
