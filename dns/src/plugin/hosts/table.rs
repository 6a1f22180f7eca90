use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::plugin::zones::Zones;
use crate::wire::{Class, Name, Rtype};

/// Records of one name and type, or of one address, at most: more do not fit a message.
const RECORDS_MAX: u16 = 4096;
const FULL: &str = "more than 4096 records for one question; this and later ones are left out";
/// A pointer to the name in the question, which follows the header (RFC 1035 §4.1.4).
const POINTER_TO_QUESTION: [u8; 2] = [0xC0, 12];

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Records in wire form, for a reply to a question about their owner.
#[derive(Debug, Default)]
pub(super) struct Fragment {
    octets: Vec<u8>,
    records: u16,
    /// Records were left out, and that was said.
    full: bool,
}

impl Fragment {
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(super) const fn records(&self) -> u16 {
        self.records
    }

    /// Appends a record.
    fn push(&mut self, rtype: Rtype, ttl_s: u32, data: &[u8]) -> Result<(), &'static str> {
        if self.records == RECORDS_MAX {
            // One message for all that are left out.
            let said = std::mem::replace(&mut self.full, true);
            return if said { Ok(()) } else { Err(FULL) };
        }
        let length = u16::try_from(data.len()).map_err(|_| "a name is too long")?;
        self.octets.extend_from_slice(&POINTER_TO_QUESTION);
        self.octets.extend_from_slice(&rtype.0.to_be_bytes());
        self.octets.extend_from_slice(&Class::IN.0.to_be_bytes());
        self.octets.extend_from_slice(&ttl_s.to_be_bytes());
        self.octets.extend_from_slice(&length.to_be_bytes());
        self.octets.extend_from_slice(data);
        self.records += 1;
        Ok(())
    }

    /// The single records, all of which have `data` octets of data.
    pub(super) fn each(&self, data: usize) -> impl Iterator<Item = &[u8]> {
        self.octets.chunks_exact(data + 12)
    }

    fn has(&self, data: &[u8]) -> bool {
        self.each(data.len()).any(|record| record.ends_with(data))
    }
}

/// The two families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Octets of an address.
    pub(super) const fn octets(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

#[derive(Debug, Default)]
struct Addresses {
    v4: Fragment,
    v6: Fragment,
}

impl Addresses {
    fn of(&self, family: Family) -> Option<&Fragment> {
        let fragment = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        (fragment.records > 0).then_some(fragment)
    }
}

/// How a table is made: which names are taken, and what records say.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) zones: Zones,
    pub(super) ttl_s: u32,
    pub(super) reverse: bool,
}

/// What one source says.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By name, lower case, wire form.
    names: Map<Arc<[u8]>, Addresses>,
    /// `*.parent`, by the parent.
    wildcards: Map<Arc<[u8]>, Addresses>,
    reverse: Map<IpAddr, Fragment>,
    entries: u32,
}

impl Table {
    /// Takes in one line. All names that can be are taken; the error is about the last other.
    pub(super) fn add<'n>(
        &mut self,
        address: IpAddr,
        names: impl Iterator<Item = &'n str>,
        rules: &Rules,
    ) -> Result<(), String> {
        let mut result = Err("an address without a name".to_owned());
        for (index, text) in names.enumerate() {
            let added = self.add_name(address, text, rules);
            if index == 0 || added.is_err() {
                result = added;
            }
        }
        result
    }

    fn add_name(&mut self, address: IpAddr, text: &str, rules: &Rules) -> Result<(), String> {
        let name = Name::from_text(text)
            .map_err(|problem| problem.to_string())?
            .to_lower();
        if rules.zones.find(&name).is_none() {
            return Ok(());
        }
        let wildcard = name.as_wire().strip_prefix(b"\x01*");
        let map = if wildcard.is_some() {
            &mut self.wildcards
        } else {
            &mut self.names
        };
        let key = wildcard.unwrap_or(name.as_wire());
        let addresses = match map.get_mut(key) {
            Some(addresses) => addresses,
            None => map.entry(key.into()).or_default(),
        };
        let (fragment, rtype, data) = match address {
            IpAddr::V4(address) => (&mut addresses.v4, Rtype::A, &address.octets()[..]),
            IpAddr::V6(address) => (&mut addresses.v6, Rtype::AAAA, &address.octets()[..]),
        };
        if fragment.has(data) {
            return Ok(());
        }
        fragment.push(rtype, rules.ttl_s, data)?;
        self.entries = self.entries.saturating_add(1);
        if rules.reverse && wildcard.is_none() {
            let fragment = self.reverse.entry(address).or_default();
            fragment.push(Rtype::PTR, rules.ttl_s, name.as_wire())?;
            self.entries = self.entries.saturating_add(1);
        }
        Ok(())
    }

    /// The addresses of a name (in lower case): its own, or else those of `*` in its place.
    pub(super) fn addresses(&self, name: &Name, family: Family) -> Option<&Fragment> {
        if self.names.is_empty() && self.wildcards.is_empty() {
            return None;
        }
        let wire = name.as_wire();
        let own = self
            .names
            .get(wire)
            .and_then(|addresses| addresses.of(family));
        own.or_else(|| {
            let first = usize::from(*wire.first()?);
            let parent = wire.get(first + 1..).filter(|_| first > 0)?;
            self.wildcards.get(parent)?.of(family)
        })
    }

    /// The PTR records of an address.
    pub(super) fn names(&self, address: IpAddr) -> Option<&Fragment> {
        self.reverse.get(&address)
    }

    /// How many records it has.
    pub(super) const fn entries(&self) -> u32 {
        self.entries
    }
}

/// An address as such files write it: a zone identifier (`%eth0`) counts for nothing, and an
/// IPv4 address mapped into IPv6 is an IPv4 address.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    text.parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}
