use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::walk::record_at;
use super::{Malformed, Name, Opcode, Question, Rcode, Rtype, u16_at};

/// Octets of a message's header (RFC 1035 §4.1.1).
pub const HEADER_OCTETS: usize = 12;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream (RFC 7766).
    Tcp,
    /// A TLS stream (RFC 7858).
    Tls,
}

impl Transport {
    /// As logs and metric labels call it: DoT is `tcp` there.
    #[must_use]
    pub const fn proto(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp | Self::Tls => "tcp",
        }
    }
}

/// What a query said in its OPT record (RFC 6891 §6.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Octets of UDP payload the client takes, as sent.
    pub udp_size: u16,
    /// 0 is the only one there is.
    pub version: u8,
    /// The DO bit (RFC 3225).
    pub dnssec_ok: bool,
    /// Where the options are in the request.
    options: (usize, usize),
}

/// A query as it came. Reused for the next one: reading into it allocates nothing.
#[derive(Clone, Debug)]
pub struct Request {
    octets: Vec<u8>,
    /// The id, to be given back.
    pub id: u16,
    /// What is asked for.
    pub opcode: Opcode,
    /// Recursion desired.
    pub recursion_desired: bool,
    /// Checking disabled (RFC 4035).
    pub checking_disabled: bool,
    /// Authentic data wanted (RFC 6840 §5.7).
    pub authentic_data: bool,
    /// The question, as asked; meaningless after [`Intake::Refuse`] without one.
    pub question: Question,
    /// The OPT record, where there was one.
    pub edns: Option<Edns>,
    /// How it came.
    pub transport: Transport,
    /// From where.
    pub source: SocketAddr,
    /// The address it was sent to, and port it was received on.
    pub local: SocketAddr,
    /// When it was received.
    pub received: Instant,
    /// EDNS options to go on with instead of those that came (`rewrite edns0`), also for a client
    /// that uses no EDNS: its reply has none in any case.
    pub rewritten_options: Option<Vec<(u16, Vec<u8>)>>,
    has_question: bool,
}

/// What to do with a packet after reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Answer it.
    Query,
    /// Send this code, and with it the question where there was a readable one.
    Refuse(Rcode),
    /// Say nothing: it is a reply, or no message at all.
    Silent,
}

impl Request {
    /// A place to read queries into.
    #[must_use]
    pub fn new() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
        Self {
            octets: Vec::new(),
            id: 0,
            opcode: Opcode::QUERY,
            recursion_desired: false,
            checking_disabled: false,
            authentic_data: false,
            question: Question::default(),
            edns: None,
            transport: Transport::Udp,
            source: nowhere,
            local: nowhere,
            received: Instant::now(),
            rewritten_options: None,
            has_question: false,
        }
    }

    /// A query of our own making for `question`, with recursion wanted and nothing else.
    #[must_use]
    pub fn for_question(question: &Question, like: &Self) -> Self {
        let mut request = like.clone();
        request.question.set(question);
        request.has_question = true;
        request
    }

    /// Takes a packet in, as a server should (RFC 1035, RFC 6891, RFC 9619: one question).
    pub fn read(&mut self, packet: &[u8]) -> Intake {
        self.octets.clear();
        self.octets.extend_from_slice(packet);
        self.has_question = false;
        self.edns = None;
        self.rewritten_options = None;
        let Some(flags) = u16_at(packet, 2).filter(|_| packet.len() >= HEADER_OCTETS) else {
            return Intake::Silent;
        };
        if flags & 0x8000 != 0 {
            return Intake::Silent;
        }
        self.id = u16_at(packet, 0).unwrap_or_default();
        self.opcode = Opcode((flags >> 11 & 0xF).to_be_bytes()[1]);
        let query = self.opcode == Opcode::QUERY;
        self.recursion_desired = query && flags & 0x0100 != 0;
        self.checking_disabled = query && flags & 0x0010 != 0;
        self.authentic_data = flags & 0x0020 != 0;
        if !query {
            return Intake::Refuse(Rcode::NOTIMP);
        }
        let count = |at| u16_at(packet, at).unwrap_or_default();
        let (answers, authorities, additionals) = (count(6), count(8), count(10));
        // An IXFR query has a SOA as authority; OPT and TSIG are all there is as additional.
        if count(4) != 1 || answers > 1 || authorities > 1 || additionals > 2 {
            return Intake::Refuse(Rcode::FORMERR);
        }
        let Some(end) = self.question.read(packet, HEADER_OCTETS) else {
            return Intake::Refuse(Rcode::FORMERR);
        };
        self.has_question = true;
        if answers + authorities + additionals == 0 {
            return Intake::Query;
        }
        match self.read_records(packet, end, answers + authorities, additionals) {
            Err(Malformed(_)) => Intake::Refuse(Rcode::FORMERR),
            Ok(()) if self.edns.is_some_and(|edns| edns.version != 0) => {
                Intake::Refuse(Rcode::BADVERS)
            }
            Ok(()) => Intake::Query,
        }
    }

    fn read_records(
        &mut self,
        packet: &[u8],
        mut at: usize,
        others: u16,
        additionals: u16,
    ) -> Result<(), Malformed> {
        for _ in 0..others {
            at = record_at(packet, at)?.end;
        }
        for _ in 0..additionals {
            let place = record_at(packet, at)?;
            at = place.end;
            if place.rtype != Rtype::OPT {
                continue;
            }
            // RFC 6891 §6.1.1: one OPT, owned by the root.
            if self.edns.is_some() || packet.get(place.start) != Some(&0) {
                return Err(Malformed(
                    "two OPT records, or one that the root does not own",
                ));
            }
            check_options(packet, place.data, place.end)?;
            let octet = |at| packet.get(at).copied().unwrap_or_default();
            self.edns = Some(Edns {
                udp_size: u16_at(packet, place.fixed + 2).unwrap_or_default(),
                version: octet(place.fixed + 5),
                dnssec_ok: octet(place.fixed + 6) & 0x80 != 0,
                options: (place.data, place.end),
            });
        }
        Ok(())
    }

    /// The packet as it came; not what was asked if something rewrote the question.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The question, if the packet had a readable one.
    #[must_use]
    pub fn readable_question(&self) -> Option<&Question> {
        self.has_question.then_some(&self.question)
    }

    /// Whether the client wants DNSSEC records.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Octets the answer may have: what the client takes, at least 512 (RFC 6891 §6.2.3);
    /// 65,535 over streams.
    #[must_use]
    pub fn reply_limit(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp | Transport::Tls, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(edns)) => usize::from(edns.udp_size.max(512)),
            (Transport::Udp, None) => 512,
        }
    }

    /// The EDNS options, each as code and content; those that a rewrite put in their place.
    pub fn options(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let rewritten = self.rewritten_options.as_ref();
        let (mut at, end) = match (rewritten, self.edns) {
            (None, Some(edns)) => edns.options,
            _ => (0, 0),
        };
        let came = std::iter::from_fn(move || {
            if at + 4 > end {
                return None;
            }
            let code = u16_at(&self.octets, at)?;
            let length = usize::from(u16_at(&self.octets, at + 2)?);
            let content = self.octets.get(at + 4..at + 4 + length)?;
            at += 4 + length;
            Some((code, content))
        });
        let rewritten = rewritten.into_iter().flatten();
        came.chain(rewritten.map(|(code, content)| (*code, content.as_slice())))
    }

    /// The SOA serial in the authority section: what an IXFR starts from (RFC 1995 §3).
    #[must_use]
    pub fn ixfr_serial(&self) -> Option<u32> {
        let at = HEADER_OCTETS + self.readable_question()?.wire_len();
        let place = record_at(&self.octets, at).ok()?;
        if place.rtype != Rtype::SOA || u16_at(&self.octets, 8)? == 0 {
            return None;
        }
        let (_, after_mname) = Name::read(&self.octets, place.data).ok()?;
        let (_, after_rname) = Name::read(&self.octets, after_mname).ok()?;
        super::u32_at(&self.octets, after_rname)
    }
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

fn check_options(packet: &[u8], mut at: usize, end: usize) -> Result<(), Malformed> {
    while at < end {
        let length = u16_at(packet, at + 2).ok_or(Malformed("an EDNS option is cut off"))?;
        at += 4 + usize::from(length);
    }
    if at == end {
        Ok(())
    } else {
        Err(Malformed("an EDNS option runs out of its record"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xAB, 0xCD];
        packet.extend(flags.to_be_bytes());
        packet.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        packet.extend(rest);
        packet
    }

    const QUESTION: &[u8] = b"\x03wWw\x07example\x00\x00\x1C\x00\x01";

    fn opt(size: u16, flags: u32, options: &[u8]) -> Vec<u8> {
        let mut record = b"\x00\x00\x29".to_vec();
        record.extend(size.to_be_bytes());
        record.extend(flags.to_be_bytes());
        record.extend(u16::try_from(options.len()).expect("short").to_be_bytes());
        record.extend(options);
        record
    }

    fn read(packet: &[u8]) -> (Intake, Request) {
        let mut request = Request::new();
        (request.read(packet), request)
    }

    #[test]
    fn a_plain_query_is_read_with_its_case() {
        let (intake, request) = read(&packet(0x0110, [1, 0, 0, 0], QUESTION));
        assert_eq!(intake, Intake::Query);
        assert_eq!((request.id, request.question.rtype), (0xABCD, Rtype::AAAA));
        assert_eq!(request.question.name().to_string(), "wWw.example.");
        assert_eq!(request.question.lower().to_string(), "www.example.");
        assert!(request.recursion_desired && request.checking_disabled);
        assert_eq!(request.reply_limit(), 512);
    }

    #[test]
    fn what_edns_says_is_read() {
        let options = b"\x00\x03\x00\x00\x00\x0A\x00\x02hi";
        let with_opt = [QUESTION, &opt(4096, 0x8000, options)].concat();
        let (intake, request) = read(&packet(0, [1, 0, 0, 1], &with_opt));
        assert_eq!(intake, Intake::Query);
        assert!(request.dnssec_ok());
        assert_eq!(request.reply_limit(), 4096);
        let options: Vec<_> = request.options().collect();
        assert_eq!(options, [(3, &b""[..]), (10, &b"hi"[..])]);
    }

    #[test]
    fn a_tiny_edns_size_counts_as_512() {
        let with_opt = [QUESTION, &opt(100, 0, b"")].concat();
        let (_, request) = read(&packet(0, [1, 0, 0, 1], &with_opt));
        assert_eq!(request.reply_limit(), 512);
    }

    #[test]
    fn bad_packets_get_what_they_deserve() {
        let formerr = Intake::Refuse(Rcode::FORMERR);
        let two_opts = [QUESTION, &opt(512, 0, b""), &opt(512, 0, b"")].concat();
        let owned_opt = [QUESTION, b"\x01a", &opt(512, 0, b"")].concat();
        let cut_option = [QUESTION, &opt(512, 0, b"\x00\x03\x00\x05x")].concat();
        let version_1 = [QUESTION, &opt(512, 0x0001_0000, b"")].concat();
        let cases: [(&str, Vec<u8>, Intake); 12] = [
            ("eleven octets", vec![0; 11], Intake::Silent),
            (
                "a reply",
                packet(0x8000, [1, 0, 0, 0], QUESTION),
                Intake::Silent,
            ),
            (
                "an update",
                packet(0x2800, [1, 0, 0, 0], QUESTION),
                Intake::Refuse(Rcode::NOTIMP),
            ),
            ("no question", packet(0, [0, 0, 0, 0], b""), formerr),
            (
                "two questions",
                packet(0, [2, 0, 0, 0], &QUESTION.repeat(2)),
                formerr,
            ),
            ("two answers", packet(0, [1, 2, 0, 0], QUESTION), formerr),
            ("a cut name", packet(0, [1, 0, 0, 0], b"\x05ab"), formerr),
            (
                "a pointer",
                packet(0, [1, 0, 0, 0], b"\xC0\x0C\x00\x01\x00\x01"),
                formerr,
            ),
            ("two OPT", packet(0, [1, 0, 0, 2], &two_opts), formerr),
            (
                "an OPT with an owner",
                packet(0, [1, 0, 0, 1], &owned_opt),
                formerr,
            ),
            (
                "a cut option",
                packet(0, [1, 0, 0, 1], &cut_option),
                formerr,
            ),
            (
                "EDNS 1",
                packet(0, [1, 0, 0, 1], &version_1),
                Intake::Refuse(Rcode::BADVERS),
            ),
        ];
        for (what, packet, expected) in cases {
            assert_eq!(read(&packet).0, expected, "{what}");
        }
    }

    #[test]
    fn a_long_name_and_what_follows_the_message_are_handled() {
        let long = [&b"\x3F"[..], &[b'x'; 63]].concat().repeat(4);
        let long = [&long[..], b"\x00\x00\x01\x00\x01"].concat();
        assert_eq!(
            read(&packet(0, [1, 0, 0, 0], &long)).0,
            Intake::Refuse(Rcode::FORMERR)
        );
        let trailing = [QUESTION, b"garbage"].concat();
        assert_eq!(read(&packet(0, [1, 0, 0, 0], &trailing)).0, Intake::Query);
    }
}
