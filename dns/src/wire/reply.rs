mod answer_only;
mod kind;
mod shuffle;
mod ttl;

pub use kind::Kind;
pub use shuffle::Shuffled;

use super::compress::Compressor;
use super::record::layout;
use super::walk::{Place, record_at, skip_name};
use super::{HEADER_OCTETS, Malformed, Name, Question, Rcode, Record, Records, Request};
use super::{Rtype, u16_at};

/// UDP payload we take, and say so: what DNS flag day 2020 recommends.
const OWN_UDP_OCTETS: u16 = 1232;
/// The longest explanation sent with a code of RFC 8914.
const EDE_TEXT_OCTETS_MAX: usize = 200;

/// The sections records go into, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who says so; the SOA of a negative answer.
    Authority,
    /// What the asker will want next.
    Additional,
}

/// Why there is no better answer: an INFO-CODE of RFC 8914 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdeCode(pub u16);

impl EdeCode {
    /// Something not in the list.
    pub const OTHER: Self = Self(0);
    /// The data is past its time.
    pub const STALE_ANSWER: Self = Self(3);
    /// The server is not ready to answer.
    pub const NOT_READY: Self = Self(14);
    /// The server may not answer this.
    pub const BLOCKED: Self = Self(15);
    /// Left out for this client.
    pub const FILTERED: Self = Self(17);
    /// The client may not ask.
    pub const PROHIBITED: Self = Self(18);
    /// A stale NXDOMAIN.
    pub const STALE_NXDOMAIN: Self = Self(19);
    /// No upstream answered.
    pub const NO_REACHABLE_AUTHORITY: Self = Self(22);
    /// An upstream could not be reached.
    pub const NETWORK_ERROR: Self = Self(23);
}

/// A reply under construction, in wire form at every moment: the header, the question, and
/// the records so far. OPT comes last, in [`Reply::finish`]. Reused: building allocates
/// nothing once the buffers have grown.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    octets: Vec<u8>,
    question_end: usize,
    counts: [u16; 3],
    compressor: Compressor,
    /// The code.
    pub rcode: Rcode,
    /// AA: we are an authority for the name.
    pub authoritative: bool,
    /// TC: something did not fit.
    pub truncated: bool,
    /// RA: recursion is available (as an upstream said).
    pub recursion_available: bool,
    /// AD: an upstream has validated it.
    pub authentic_data: bool,
    /// Why there is no better answer, for clients that understand EDNS.
    pub ede: Option<(EdeCode, String)>,
    /// Further EDNS options to send.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl Default for Rcode {
    fn default() -> Self {
        Self::NOERROR
    }
}

impl Reply {
    /// Begins an empty NOERROR answer to `question`, forgetting what was there.
    pub fn begin(&mut self, question: &Question) {
        self.reset();
        self.octets.extend_from_slice(question.name().as_wire());
        self.octets
            .extend_from_slice(&question.rtype.0.to_be_bytes());
        self.octets
            .extend_from_slice(&question.class.0.to_be_bytes());
        self.question_end = self.octets.len();
    }

    /// Begins a reply without a question, for a query whose question can't be read.
    pub fn begin_bare(&mut self) {
        self.reset();
        self.question_end = HEADER_OCTETS;
    }

    fn reset(&mut self) {
        self.octets.clear();
        self.octets.resize(HEADER_OCTETS, 0);
        self.counts = [0; 3];
        self.compressor.clear();
        self.rcode = Rcode::NOERROR;
        self.authoritative = false;
        self.truncated = false;
        self.recursion_available = false;
        self.authentic_data = false;
        self.ede = None;
        self.options.clear();
    }

    /// Begins an empty answer with this code.
    pub fn begin_with(&mut self, question: &Question, rcode: Rcode) {
        self.begin(question);
        self.rcode = rcode;
    }

    /// The message so far. The header is filled in by [`Reply::finish`] only.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// For patching what was pushed; lengths stay as they are.
    pub fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.octets
    }

    /// Where the records begin.
    #[must_use]
    pub const fn records_start(&self) -> usize {
        self.question_end
    }

    /// How many records a section has.
    #[must_use]
    pub const fn count(&self, section: Section) -> u16 {
        match section {
            Section::Answer => self.counts[0],
            Section::Authority => self.counts[1],
            Section::Additional => self.counts[2],
        }
    }

    fn counted(&mut self, section: Section, records: u16) {
        let count = match section {
            Section::Answer => &mut self.counts[0],
            Section::Authority => &mut self.counts[1],
            Section::Additional => &mut self.counts[2],
        };
        *count = count.saturating_add(records);
    }

    /// Appends `records` records in wire form. Pointers in them are kept: they must be right
    /// for where the records come to lie. Sections are filled in their order.
    pub fn push_wire(&mut self, section: Section, records: u16, wire: &[u8]) {
        self.octets.extend_from_slice(wire);
        self.counted(section, records);
    }

    /// Appends a record, compressed. Sections are filled in their order.
    pub fn push(&mut self, section: Section, record: &Record) {
        if self.compressor.is_empty() && self.question_end > HEADER_OCTETS {
            self.compressor.note(&self.octets, HEADER_OCTETS);
        }
        self.compressor.write(&mut self.octets, &record.owner);
        self.octets.extend_from_slice(&record.rtype.0.to_be_bytes());
        self.octets.extend_from_slice(&record.class.0.to_be_bytes());
        self.octets.extend_from_slice(&record.ttl.to_be_bytes());
        let length_at = self.octets.len();
        self.octets.extend_from_slice(&[0, 0]);
        self.push_data(record);
        let length = self.octets.len() - length_at - 2;
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        if let Some(place) = self.octets.get_mut(length_at..length_at + 2) {
            place.copy_from_slice(&length);
        }
        self.counted(section, 1);
    }

    fn push_data(&mut self, record: &Record) {
        let layout = layout(record.rtype).filter(|layout| layout.compressible);
        let Some(layout) = layout else {
            self.octets.extend_from_slice(&record.data);
            return;
        };
        let start = self.octets.len();
        let mut at = layout.before;
        self.octets
            .extend_from_slice(record.data.get(..at).unwrap_or_default());
        for _ in 0..layout.names {
            let Ok((name, end)) = Name::read_plain(&record.data, at) else {
                // Not as its type lays down: sent as it is.
                self.octets.truncate(start);
                self.octets.extend_from_slice(&record.data);
                return;
            };
            self.compressor.write(&mut self.octets, &name);
            at = end;
        }
        self.octets
            .extend_from_slice(record.data.get(at..).unwrap_or_default());
    }

    /// The records, decoded.
    ///
    /// # Errors
    /// If what was pushed as wire form is malformed.
    pub fn records(&self) -> Result<Records, Malformed> {
        let mut at = self.question_end;
        let mut section = |count: u16| -> Result<Vec<Record>, Malformed> {
            let mut records = Vec::with_capacity(usize::from(count));
            for _ in 0..count {
                let (record, end) = Record::read(&self.octets, at)?;
                at = end;
                records.push(record);
            }
            Ok(records)
        };
        Ok(Records {
            answer: section(self.counts[0])?,
            authority: section(self.counts[1])?,
            additional: section(self.counts[2])?,
        })
    }

    /// Replaces question and records; code and flags stay.
    pub fn rebuild(&mut self, question: &Question, records: &Records) {
        let (rcode, authoritative, truncated, available, authentic) = (
            self.rcode,
            self.authoritative,
            self.truncated,
            self.recursion_available,
            self.authentic_data,
        );
        let (ede, options) = (self.ede.take(), std::mem::take(&mut self.options));
        self.begin(question);
        for (section, records) in [
            (Section::Answer, &records.answer),
            (Section::Authority, &records.authority),
            (Section::Additional, &records.additional),
        ] {
            for record in records {
                self.push(section, record);
            }
        }
        (self.rcode, self.authoritative, self.truncated) = (rcode, authoritative, truncated);
        (self.recursion_available, self.authentic_data) = (available, authentic);
        (self.ede, self.options) = (ede, options);
    }

    /// Takes over somebody else's reply to `question`: all its records but OPT, its code and
    /// flags. The message may be compressed in any way.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn take_message(&mut self, question: &Question, message: &[u8]) -> Result<(), Malformed> {
        let flags = u16_at(message, 2).ok_or(Malformed("a reply without a header"))?;
        let count = |at| u16_at(message, at).unwrap_or_default();
        let mut at = HEADER_OCTETS;
        for _ in 0..count(4) {
            at = skip_name(message, at)? + 4;
        }
        self.begin(question);
        let mut extended = 0;
        for (section, count) in [
            (Section::Answer, count(6)),
            (Section::Authority, count(8)),
            (Section::Additional, count(10)),
        ] {
            for _ in 0..count {
                let (record, end) = Record::read(message, at)?;
                at = end;
                if record.rtype == Rtype::OPT {
                    extended = u16::from(record.ttl.to_be_bytes()[0]) << 4;
                } else {
                    self.push(section, &record);
                }
            }
        }
        self.rcode = Rcode(extended | flags & 0xF);
        self.authoritative = flags & 0x0400 != 0;
        self.truncated = flags & 0x0200 != 0;
        self.recursion_available = flags & 0x0080 != 0;
        self.authentic_data = flags & 0x0020 != 0;
        Ok(())
    }

    /// Calls `each` with every record's section, place of its TTL in [`Reply::octets`],
    /// and type.
    ///
    /// # Errors
    /// If what was pushed as wire form is malformed.
    pub fn for_each_ttl(
        &self,
        mut each: impl FnMut(Section, usize, Rtype),
    ) -> Result<(), Malformed> {
        let mut at = self.question_end;
        for (section, count) in self.sections() {
            for _ in 0..count {
                let place = record_at(&self.octets, at)?;
                each(section, place.ttl(), place.rtype);
                at = place.end;
            }
        }
        Ok(())
    }

    /// The first run of address records of a section that may change places: all have the
    /// same length, and the same pointer to before them as owner, so that nothing points
    /// into what moves. Start in [`Reply::octets`], octets each, and how many.
    #[must_use]
    pub fn same_shape_run(&self, section: Section) -> Option<(usize, usize, usize)> {
        let mut at = self.question_end;
        for (each, count) in self.sections() {
            for number in 0..count {
                let place = record_at(&self.octets, at).ok()?;
                if each == section && is_address(&place) {
                    return self.run_from(place, usize::from(count - number));
                }
                at = place.end;
            }
        }
        None
    }

    /// Start, octets each, and number of the address records from `first` on that look alike.
    fn run_from(&self, first: Place, most: usize) -> Option<(usize, usize, usize)> {
        let length = first.end - first.start;
        let pointer = self.octets.get(first.start..first.fixed)?;
        let target = u16_at(pointer, 0).filter(|_| pointer.len() == 2)? & 0x3FFF;
        if usize::from(target) >= first.start {
            return None;
        }
        let (mut end, mut number) = (first.end, 1);
        while number < most
            && let Ok(next) = record_at(&self.octets, end)
            && next.rtype == first.rtype
            && next.end - next.start == length
            && self.octets.get(next.start..next.fixed) == Some(pointer)
        {
            (end, number) = (next.end, number + 1);
        }
        Some((first.start, length, number))
    }

    fn sections(&self) -> [(Section, u16); 3] {
        [
            (Section::Answer, self.counts[0]),
            (Section::Authority, self.counts[1]),
            (Section::Additional, self.counts[2]),
        ]
    }

    /// Makes the message ready to be sent to whoever sent `request`: cuts it to `limit` octets
    /// with OPT, appends OPT if the request had one, fills in the header.
    pub fn finish(&mut self, request: &Request, limit: usize) {
        let options = self.options_len(request);
        if self.octets.len() + options > limit {
            self.cut(limit.saturating_sub(options));
        }
        let mut additionals = self.counts[2];
        if request.edns.is_some() {
            self.push_opt(request, options);
            additionals = additionals.saturating_add(1);
        }
        let mut flags = 0x8000 | u16::from(request.opcode.0) << 11 | self.rcode.0 & 0xF;
        for (set, bit) in [
            (self.authoritative, 0x0400),
            (self.truncated, 0x0200),
            (request.recursion_desired, 0x0100),
            (self.recursion_available, 0x0080),
            (self.authentic_data, 0x0020),
            (request.checking_disabled, 0x0010),
        ] {
            if set {
                flags |= bit;
            }
        }
        let questions = u16::from(self.question_end > HEADER_OCTETS);
        let words = [
            request.id,
            flags,
            questions,
            self.counts[0],
            self.counts[1],
            additionals,
        ];
        for (place, word) in self.octets.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }

    /// Octets that OPT will take.
    fn options_len(&self, request: &Request) -> usize {
        if request.edns.is_none() {
            return 0;
        }
        let ede = self
            .ede
            .as_ref()
            .map_or(0, |(_, text)| 6 + ede_text(text).len());
        let others: usize = self
            .options
            .iter()
            .map(|(_, content)| 4 + content.len())
            .sum();
        11 + ede + others
    }

    fn push_opt(&mut self, request: &Request, length: usize) {
        let dnssec_ok = if request.dnssec_ok() { 0x80 } else { 0 };
        let extended = (self.rcode.0 >> 4).to_be_bytes()[1];
        self.octets.extend_from_slice(&[0, 0, 41]);
        self.octets.extend_from_slice(&OWN_UDP_OCTETS.to_be_bytes());
        self.octets.extend_from_slice(&[extended, 0, dnssec_ok, 0]);
        let rest = u16::try_from(length - 11).unwrap_or_default();
        self.octets.extend_from_slice(&rest.to_be_bytes());
        if let Some((code, text)) = &self.ede {
            let text = ede_text(text);
            let length = u16::try_from(text.len() + 2).unwrap_or(2);
            self.octets.extend_from_slice(&15_u16.to_be_bytes());
            self.octets.extend_from_slice(&length.to_be_bytes());
            self.octets.extend_from_slice(&code.0.to_be_bytes());
            self.octets.extend_from_slice(text.as_bytes());
        }
        for (code, content) in &self.options {
            let length = u16::try_from(content.len()).unwrap_or_default();
            self.octets.extend_from_slice(&code.to_be_bytes());
            self.octets.extend_from_slice(&length.to_be_bytes());
            self.octets.extend_from_slice(content);
        }
    }

    /// Drops records from the end until the rest has at most `limit` octets. TC is set if
    /// any was dropped, an additional one included, as the reference does it.
    fn cut(&mut self, limit: usize) {
        let mut at = self.question_end;
        let mut kept = [0_u16; 3];
        'sections: for (kept, (_, count)) in kept.iter_mut().zip(self.sections()) {
            for _ in 0..count {
                match record_at(&self.octets, at) {
                    Ok(place) if place.end <= limit => at = place.end,
                    _ => break 'sections,
                }
                *kept += 1;
            }
        }
        if kept != self.counts {
            self.truncated = true;
            self.octets.truncate(at);
            self.counts = kept;
        }
    }
}

fn is_address(place: &Place) -> bool {
    matches!(place.rtype, Rtype::A | Rtype::AAAA)
}

fn ede_text(text: &str) -> &str {
    let mut end = text.len().min(EDE_TEXT_OCTETS_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
