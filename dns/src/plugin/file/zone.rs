use std::collections::HashMap;

use crate::wire::{Name, Record, Rtype, u32_at};

/// A zone, ready to be asked. Never changed: a new file makes a new one.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) origin: Name,
    pub(super) soa: Record,
    pub(super) serial: u32,
    /// By owner in lower case, names without records on the way to others included
    /// (RFC 4592 §2.2.2: they exist).
    nodes: HashMap<Box<[u8]>, Node>,
}

/// What a name has.
#[derive(Debug, Default)]
pub(super) struct Node {
    records: Vec<Record>,
}

impl Node {
    /// Records of a type.
    pub(super) fn of(&self, rtype: Rtype) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .filter(move |record| record.rtype == rtype)
    }

    pub(super) fn has(&self, rtype: Rtype) -> bool {
        self.of(rtype).next().is_some()
    }

    pub(super) fn all(&self) -> &[Record] {
        &self.records
    }
}

/// Records that make no zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ZoneError {
    #[error("no SOA record at {0}")]
    NoSoa(String),
    #[error("{0} SOA records: expected one")]
    ManySoa(usize),
    #[error("{0} is not in the zone {1}")]
    Outside(String, String),
    #[error("{0} has a CNAME beside other records")]
    CnameAndOther(String),
}

impl Zone {
    /// Makes a zone of all its records, in any order.
    pub(super) fn new(origin: &Name, records: Vec<Record>) -> Result<Self, ZoneError> {
        let origin = origin.to_lower();
        let mut nodes: HashMap<Box<[u8]>, Node> = HashMap::new();
        for record in records {
            let owner = record.owner.to_lower();
            if !owner.is_within(&origin) {
                let names = (record.owner.to_string(), origin.to_string());
                return Err(ZoneError::Outside(names.0, names.1));
            }
            for name in ancestors(&owner, &origin) {
                nodes.entry(name.as_wire().into()).or_default();
            }
            let node = nodes.entry(owner.as_wire().into()).or_default();
            if !node.records.contains(&record) {
                node.records.push(record);
            }
        }
        let soa = Self::only_soa(&origin, &nodes)?;
        for node in nodes.values() {
            let alone =
                |record: &Record| matches!(record.rtype, Rtype::CNAME | Rtype::RRSIG | Rtype::NSEC);
            if node.has(Rtype::CNAME) && !node.records.iter().all(alone) {
                let owner = node.records.first().map(|record| record.owner.to_string());
                return Err(ZoneError::CnameAndOther(owner.unwrap_or_default()));
            }
        }
        Ok(Self {
            serial: soa.soa_serial().unwrap_or_default(),
            origin,
            soa,
            nodes,
        })
    }

    fn only_soa(origin: &Name, nodes: &HashMap<Box<[u8]>, Node>) -> Result<Record, ZoneError> {
        let apex = nodes.get(origin.as_wire());
        let mut found = apex.into_iter().flat_map(|node| node.of(Rtype::SOA));
        match (found.next(), found.count()) {
            (None, _) => Err(ZoneError::NoSoa(origin.to_string())),
            (Some(soa), 0) => Ok(soa.clone()),
            (Some(_), more) => Err(ZoneError::ManySoa(more + 1)),
        }
    }

    /// What a name in lower case has, if it exists.
    pub(super) fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.get(name.as_wire())
    }

    /// All records, the SOA first.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        let others = self.nodes.values().flat_map(|node| &node.records);
        let others = others.filter(|record| record.rtype != Rtype::SOA);
        std::iter::once(&self.soa).chain(others)
    }
}

/// The names between `name` and `origin`, nearest first, neither of them included.
pub(super) fn ancestors(name: &Name, origin: &Name) -> impl Iterator<Item = Name> {
    let length = origin.wire_len();
    std::iter::successors(name.parent(), Name::parent)
        .take_while(move |name| name.wire_len() > length)
}

/// The time a negative answer may be kept (RFC 2308 §5).
pub(super) fn negative_ttl(soa: &Record) -> u32 {
    let at = soa.data.len().checked_sub(4);
    let minimum = at.and_then(|at| u32_at(&soa.data, at)).unwrap_or_default();
    minimum.min(soa.ttl)
}
