use std::time::Instant;

use crate::wire::{Class, Question, Rcode, Reply, Rtype, Section};

/// One reply to be given again.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name in lower case; the records as they lie behind a question with a name of that
    /// length; then where their TTLs are, two octets each, counted from the first record.
    octets: Box<[u8]>,
    name_octets: u8,
    records_octets: u16,
    counts: [u16; 3],
    rtype: Rtype,
    class: Class,
    rcode: Rcode,
    authentic_data: bool,
    recursion_available: bool,
    /// It has what was asked for.
    pub(super) answers: bool,
    ttl_s: u32,
    stored: Instant,
    /// Hits without a longer gap, and the last.
    pub(super) hits: u32,
    pub(super) last_hit: Instant,
    /// Somebody is asking for it again.
    pub(super) refreshing: bool,
    /// Not to be asked for again before.
    pub(super) retry_after: Option<Instant>,
}

/// Octets that an entry takes beside its own: its place in the index, and the allocator's.
const OVERHEAD_OCTETS: usize = 48;

impl Entry {
    /// Keeps a reply; `None` if it is malformed. `ttl_s` is what all its records have.
    pub(super) fn of(
        reply: &Reply,
        question: &Question,
        ttl_s: u32,
        answers: bool,
        now: Instant,
    ) -> Option<Self> {
        let start = reply.records_start();
        let records = reply.octets().get(start..)?;
        let name = question.lower().as_wire();
        let mut octets = Vec::with_capacity(name.len() + records.len() + 32);
        octets.extend_from_slice(name);
        octets.extend_from_slice(records);
        let mut fits = true;
        let walked = reply.for_each_ttl(|_, at, _| match u16::try_from(at - start) {
            Ok(offset) => octets.extend_from_slice(&offset.to_be_bytes()),
            Err(_) => fits = false,
        });
        walked.ok().filter(|()| fits)?;
        Some(Self {
            octets: octets.into_boxed_slice(),
            name_octets: u8::try_from(name.len()).ok()?,
            records_octets: u16::try_from(records.len()).ok()?,
            counts: [Section::Answer, Section::Authority, Section::Additional]
                .map(|section| reply.count(section)),
            rtype: question.rtype,
            class: question.class,
            rcode: reply.rcode,
            authentic_data: reply.authentic_data,
            recursion_available: reply.recursion_available,
            answers,
            ttl_s,
            stored: now,
            hits: 0,
            last_hit: now,
            refreshing: false,
            retry_after: None,
        })
    }

    /// Octets of memory.
    pub(super) fn octets(&self) -> usize {
        self.octets.len() + size_of::<Self>() + OVERHEAD_OCTETS
    }

    pub(super) const fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// The TTL it was stored with.
    pub(super) const fn ttl_s(&self) -> u32 {
        self.ttl_s
    }

    /// Seconds it is still good for; zero or less if it is stale.
    pub(super) fn left_s(&self, now: Instant) -> i64 {
        let age = now.saturating_duration_since(self.stored).as_secs();
        i64::from(self.ttl_s).saturating_sub_unsigned(age)
    }

    /// Whether it is for this question, and not for another with the same hash.
    pub(super) fn is_for(&self, question: &Question) -> bool {
        let name = self.octets.get(..usize::from(self.name_octets));
        self.rtype == question.rtype
            && self.class == question.class
            && name == Some(question.lower().as_wire())
    }

    /// Makes `reply` this one, all its TTLs `ttl_s`.
    pub(super) fn write(&self, question: &Question, ttl_s: u32, dnssec: bool, reply: &mut Reply) {
        reply.begin(question);
        let name = usize::from(self.name_octets);
        let end = name + usize::from(self.records_octets);
        let (kept, offsets) = self.octets.split_at_checked(end).unwrap_or_default();
        let records = kept.get(name..).unwrap_or_default();
        let start = reply.records_start();
        let [answer, authority, additional] = self.counts;
        reply.push_wire(Section::Answer, answer, records);
        reply.push_wire(Section::Authority, authority, &[]);
        reply.push_wire(Section::Additional, additional, &[]);
        let ttl = ttl_s.to_be_bytes();
        let wire = reply.octets_mut().get_mut(start..).unwrap_or_default();
        let (offsets, _) = offsets.as_chunks::<2>();
        for offset in offsets {
            let at = usize::from(u16::from_be_bytes(*offset));
            if let Some(place) = wire.get_mut(at..at + 4) {
                place.copy_from_slice(&ttl);
            }
        }
        reply.rcode = self.rcode;
        // Some stub resolvers take nothing without it; so the reference sets it, too.
        reply.authoritative = true;
        reply.recursion_available = self.recursion_available;
        reply.authentic_data = self.authentic_data && dnssec;
    }
}
