//! Replies, decoded by the `domain` crate into text that can be compared.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use domain::base::iana::{Class, OptRcode};
use domain::base::message::RecordSection;
use domain::base::name::ToLabelIter;
use domain::base::opt::{OptRecord, UnknownOptData};
use domain::base::record::ParsedRecord;
use domain::base::{Message, ParsedName, Rtype};
use domain::rdata::{A, Aaaa, AllRecordData, Cname, Hinfo, Mx, Ns, Ptr, Soa, Srv, Txt};

/// A record as `dig` would show it, the class left out where it is IN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The owner, its case kept, with the final dot.
    pub owner: String,
    /// Time to live in seconds.
    pub ttl: u32,
    /// `""` for IN, else the class and a blank.
    pub class: String,
    /// `A`, `SRV`, `TYPE65`, …
    pub rtype: String,
    /// The data in presentation form, names with their final dot.
    pub data: String,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            owner,
            ttl,
            class,
            rtype,
            data,
        } = self;
        write!(f, "{owner} {ttl} {class}{rtype} {data}")
    }
}

/// The OPT record of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opt {
    /// The sender's UDP payload size, in octets.
    pub size: u16,
    /// The EDNS version.
    pub version: u8,
    /// The DO bit.
    pub dnssec_ok: bool,
    /// Options: code and data.
    pub options: Vec<(u16, Vec<u8>)>,
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The message as it came.
    pub bytes: Vec<u8>,
    /// The message's id.
    pub id: u16,
    /// The operation code.
    pub opcode: u8,
    /// The flags that are set, in this order: `QR AA TC RD RA Z AD CD`.
    pub flags: String,
    /// The response code, the upper bits of OPT's included: `NOERROR`, `BADVERS`.
    pub rcode: String,
    /// The question, name and type: `a.example. A`; a class other than IN stands before the type.
    pub question: Option<String>,
    /// The answer section in the order in which it came.
    pub answer: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section without OPT.
    pub additional: Vec<Record>,
    /// The OPT record.
    pub opt: Option<Opt>,
}

impl Reply {
    /// Reads a message to its last octet.
    ///
    /// # Errors
    /// It is no DNS message, has more than one question or OPT, or octets after its last record.
    pub fn decode(bytes: Vec<u8>) -> Result<Self> {
        let message = Message::from_octets(bytes.as_slice()).context("the header is cut short")?;
        let (mut question, answer, authority, additional) =
            message.sections().context("the sections are broken")?;
        let asked = question.next().transpose().context("broken question")?;
        ensure!(
            question.next().is_none(),
            "the reply has more than one question"
        );
        let asked = asked.map(|asked| {
            let class = class_text(asked.qclass());
            format!("{} {class}{}", name_text(asked.qname()), asked.qtype())
        });
        let (answer, _, _) = read_section(answer).context("answer section")?;
        let (authority, _, _) = read_section(authority).context("authority section")?;
        let (additional, mut opts, end) = read_section(additional).context("additional section")?;
        ensure!(
            end == bytes.len(),
            "{} octets follow the last record",
            bytes.len() - end
        );
        ensure!(opts.len() <= 1, "the reply has {} OPT records", opts.len());
        let header = message.header();
        let opt = opts.pop();
        let rcode = match &opt {
            Some((_, upper)) => OptRcode::from_parts(header.rcode(), *upper).to_string(),
            None => header.rcode().to_string(),
        };
        Ok(Self {
            id: header.id(),
            opcode: header.opcode().to_int(),
            flags: flags_text(message.header()),
            rcode,
            question: asked,
            answer,
            authority,
            additional,
            opt: opt.map(|(opt, _)| opt),
            bytes,
        })
    }

    /// Whether `flag` (`AA`, `TC`, …) is set.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|set| set == flag)
    }

    /// The data of all answers of one type, sorted.
    pub fn data(&self, rtype: &str) -> Vec<String> {
        let mut data: Vec<String> = self
            .answer
            .iter()
            .filter(|record| record.rtype == rtype)
            .map(|record| record.data.clone())
            .collect();
        data.sort();
        data
    }

    /// The extended DNS errors (RFC 8914): code and text.
    pub fn extended_errors(&self) -> Vec<(u16, String)> {
        const EXTENDED_ERROR: u16 = 15;
        let options = self.opt.iter().flat_map(|opt| &opt.options);
        options
            .filter(|(code, _)| *code == EXTENDED_ERROR)
            .filter_map(|(_, data)| {
                let (code, text) = data.split_first_chunk::<2>()?;
                let text = String::from_utf8_lossy(text).into_owned();
                Some((u16::from_be_bytes(*code), text))
            })
            .collect()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let asked = self.question.as_deref().unwrap_or("no question");
        writeln!(f, "{} [{}] to {asked}", self.rcode, self.flags)?;
        for (name, section) in [
            ("answer", &self.answer),
            ("authority", &self.authority),
            ("additional", &self.additional),
        ] {
            for record in section {
                writeln!(f, "  {name:10} {record}")?;
            }
        }
        if let Some(opt) = &self.opt {
            writeln!(f, "  {opt:?}")?;
        }
        Ok(())
    }
}

type Section<'a> = RecordSection<'a, &'a [u8]>;

/// An OPT record, and the upper bits of the response code it carries.
type OptWithCode = (Opt, u8);

/// The records of a section, the OPT records apart, and the position after it.
fn read_section(mut section: Section<'_>) -> Result<(Vec<Record>, Vec<OptWithCode>, usize)> {
    let (mut records, mut opts) = (Vec::new(), Vec::new());
    for record in section.by_ref() {
        let record = record.context("broken record")?;
        if record.rtype() == Rtype::OPT {
            opts.push(read_opt(&record)?);
        } else {
            records.push(read_record(&record)?);
        }
    }
    Ok((records, opts, section.pos()))
}

fn read_record(record: &ParsedRecord<'_, &[u8]>) -> Result<Record> {
    Ok(Record {
        owner: name_text(&record.owner()),
        ttl: record.ttl().as_secs(),
        class: class_text(record.class()),
        rtype: record.rtype().to_string(),
        data: data_text(record).with_context(|| format!("data of a {}", record.rtype()))?,
    })
}

fn read_opt(record: &ParsedRecord<'_, &[u8]>) -> Result<OptWithCode> {
    let opt = record
        .to_record::<domain::base::opt::Opt<&[u8]>>()
        .context("broken OPT")?
        .context("an OPT that is none")?;
    ensure!(
        name_text(&record.owner()) == ".",
        "the owner of OPT is not the root"
    );
    let upper = record.ttl().as_secs().to_be_bytes()[0];
    let opt = OptRecord::from_record(opt);
    let mut options = Vec::new();
    for option in opt.opt().iter::<UnknownOptData<&[u8]>>() {
        let option = option.context("broken EDNS option")?;
        options.push((option.code().to_int(), option.as_slice().to_vec()));
    }
    let read = Opt {
        size: opt.udp_payload_size(),
        version: opt.version(),
        dnssec_ok: opt.dnssec_ok(),
        options,
    };
    Ok((read, upper))
}

fn data_text(record: &ParsedRecord<'_, &[u8]>) -> Result<String> {
    macro_rules! data {
        ($kind:ty) => {
            record
                .to_record::<$kind>()?
                .context("is of another type")?
                .into_data()
        };
    }
    Ok(match record.rtype() {
        Rtype::A => Ipv4Addr::from(data!(A).addr().octets()).to_string(),
        Rtype::AAAA => Ipv6Addr::from(data!(Aaaa).addr().octets()).to_string(),
        Rtype::CNAME => name_text(data!(Cname<_>).cname()),
        Rtype::PTR => name_text(data!(Ptr<_>).ptrdname()),
        Rtype::NS => name_text(data!(Ns<_>).nsdname()),
        Rtype::MX => {
            let mx = data!(Mx<_>);
            format!("{} {}", mx.preference(), name_text(mx.exchange()))
        }
        Rtype::SRV => {
            let srv = data!(Srv<_>);
            let target = name_text(srv.target());
            format!(
                "{} {} {} {target}",
                srv.priority(),
                srv.weight(),
                srv.port()
            )
        }
        Rtype::SOA => {
            let soa = data!(Soa<_>);
            format!(
                "{} {} {} {} {} {} {}",
                name_text(soa.mname()),
                name_text(soa.rname()),
                soa.serial().into_int(),
                soa.refresh().as_secs(),
                soa.retry().as_secs(),
                soa.expire().as_secs(),
                soa.minimum().as_secs()
            )
        }
        Rtype::TXT => {
            let txt = data!(Txt<_>);
            let strings = txt.iter().map(quoted);
            strings.collect::<Vec<_>>().join(" ")
        }
        Rtype::HINFO => {
            let hinfo = data!(Hinfo<_>);
            format!(
                "{} {}",
                quoted(hinfo.cpu().as_slice()),
                quoted(hinfo.os().as_slice())
            )
        }
        _ => {
            let any = record.to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>()?;
            any.data().to_string()
        }
    })
}

/// A character string as zone files write it.
fn quoted(string: &[u8]) -> String {
    let mut text = String::from("\"");
    for &octet in string {
        match octet {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(octet));
            }
            b' '..=b'~' => text.push(char::from(octet)),
            _ => {
                let _ = write!(text, "\\{octet:03}");
            }
        }
    }
    text.push('"');
    text
}

/// A name in presentation form with its final dot.
fn name_text<Octs: AsRef<[u8]> + domain::dep::octseq::Octets>(name: &ParsedName<Octs>) -> String {
    let mut text = String::new();
    for label in name.iter_labels() {
        for &octet in label.as_slice() {
            match octet {
                b'.' | b'\\' => {
                    text.push('\\');
                    text.push(char::from(octet));
                }
                b'!'..=b'~' => text.push(char::from(octet)),
                _ => {
                    let _ = write!(text, "\\{octet:03}");
                }
            }
        }
        if !label.is_root() || text.is_empty() {
            text.push('.');
        }
    }
    text
}

fn class_text(class: Class) -> String {
    if class == Class::IN {
        String::new()
    } else {
        format!("{class} ")
    }
}

fn flags_text(header: domain::base::Header) -> String {
    let flags = [
        ("QR", header.qr()),
        ("AA", header.aa()),
        ("TC", header.tc()),
        ("RD", header.rd()),
        ("RA", header.ra()),
        ("Z", header.z()),
        ("AD", header.ad()),
        ("CD", header.cd()),
    ];
    let set = flags.iter().filter(|(_, on)| *on).map(|(name, _)| *name);
    set.collect::<Vec<_>>().join(" ")
}
