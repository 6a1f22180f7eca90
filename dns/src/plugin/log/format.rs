use std::fmt::Write;
use std::net::IpAddr;

use super::config::Class;
use crate::plugin::Exchange;
use crate::wire::{Kind, Section};

/// The format that `{common}` stands for, and the default.
pub(super) const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";
/// The format that `{combined}` stands for.
pub(super) const COMBINED: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration} \"{>opcode}\"";

/// A line with places for values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Type,
    Class,
    Name,
    Proto,
    Size,
    Remote,
    Port,
    Local,
    Id,
    Opcode,
    DnssecOk,
    BufferSize,
    Rcode,
    ReplySize,
    Duration,
    Flags,
    LogType,
    LogClass,
    /// Metadata that nobody sets.
    Nothing,
}

impl Format {
    /// What looks like a placeholder and is none is text.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        // The braces that stand closest together belong together: `{ {name} }`.
        while let Some(close) = rest.find('}') {
            let (before, after) = rest.split_at(close + 1);
            let open = before.rfind('{');
            match open.and_then(|open| Some((open, value(before.get(open..)?)?))) {
                Some((open, value)) => {
                    parts.extend(before.get(..open).map(|text| Part::Text(text.to_owned())));
                    parts.push(Part::Value(value));
                }
                None => parts.push(Part::Text(before.to_owned())),
            }
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Self { parts }
    }

    /// The line for a query and its reply.
    pub(super) fn line(&self, exchange: &Exchange, kind: Kind) -> String {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Value(value) => {
                    // Writing to a String can't fail.
                    let _written = value.write(&mut line, exchange, kind);
                }
            }
        }
        line
    }
}

fn value(placeholder: &str) -> Option<Value> {
    Some(match placeholder {
        "{type}" => Value::Type,
        "{class}" => Value::Class,
        "{name}" => Value::Name,
        "{proto}" => Value::Proto,
        "{size}" => Value::Size,
        "{remote}" => Value::Remote,
        "{port}" => Value::Port,
        "{local}" => Value::Local,
        "{>id}" => Value::Id,
        "{>opcode}" => Value::Opcode,
        "{>do}" => Value::DnssecOk,
        "{>bufsize}" => Value::BufferSize,
        "{rcode}" => Value::Rcode,
        "{rsize}" => Value::ReplySize,
        "{duration}" => Value::Duration,
        "{>rflags}" => Value::Flags,
        "{/log/type}" => Value::LogType,
        "{/log/class}" => Value::LogClass,
        metadata if metadata.starts_with("{/") => Value::Nothing,
        _ => return None,
    })
}

impl Value {
    fn write(self, line: &mut String, exchange: &Exchange, kind: Kind) -> std::fmt::Result {
        let request = &exchange.request;
        match self {
            Self::Type => write!(line, "{}", request.question.rtype),
            Self::Class => write!(line, "{}", request.question.class),
            Self::Name => write!(line, "{}", request.question.lower()),
            Self::Proto => line.write_str(request.transport.proto()),
            Self::Size => write!(line, "{}", request.octets().len()),
            Self::Remote => address(line, request.source.ip()),
            Self::Port => write!(line, "{}", request.source.port()),
            Self::Local => address(line, request.local.ip()),
            Self::Id => write!(line, "{}", request.id),
            Self::Opcode => write!(line, "{}", request.opcode.0),
            Self::DnssecOk => write!(line, "{}", request.dnssec_ok()),
            Self::BufferSize => write!(line, "{}", request.reply_limit()),
            Self::Rcode => match exchange.reply.rcode.mnemonic() {
                Some(text) => line.write_str(text),
                None => write!(line, "{}", exchange.reply.rcode.0),
            },
            Self::ReplySize => write!(line, "{}", uncompressed_octets(exchange)),
            // The shortest text that reads as the same number, as Go's 'f' and -1 give it.
            Self::Duration => write!(line, "{}s", request.received.elapsed().as_secs_f64()),
            Self::Flags => flags(line, exchange),
            Self::LogType => line.write_str(kind.name()),
            Self::LogClass => line.write_str(Class::of(kind).name()),
            Self::Nothing => line.write_char('-'),
        }
    }
}

fn address(line: &mut String, address: IpAddr) -> std::fmt::Result {
    match address {
        IpAddr::V4(address) => write!(line, "{address}"),
        IpAddr::V6(address) => write!(line, "[{address}]"),
    }
}

fn flags(line: &mut String, exchange: &Exchange) -> std::fmt::Result {
    let (request, reply) = (&exchange.request, &exchange.reply);
    line.write_str("qr")?;
    for (set, flag) in [
        (reply.authoritative, ",aa"),
        (reply.truncated, ",tc"),
        (request.recursion_desired, ",rd"),
        (reply.recursion_available, ",ra"),
        (reply.authentic_data, ",ad"),
        (request.checking_disabled, ",cd"),
    ] {
        if set {
            line.write_str(flag)?;
        }
    }
    Ok(())
}

/// What the reply would take with all names written out; as it is if it can't be read.
fn uncompressed_octets(exchange: &Exchange) -> usize {
    let reply = &exchange.reply;
    let plain = [Section::Answer, Section::Authority, Section::Additional]
        .iter()
        .all(|section| reply.count(*section) == 0);
    let records = if plain { None } else { reply.records().ok() };
    let Some(records) = records else {
        return reply.octets().len();
    };
    let all = records.answer.iter().chain(&records.authority);
    let octets = all.chain(&records.additional).map(|record| {
        let fixed = 10;
        record.owner.wire_len() + fixed + record.data.len()
    });
    reply.records_start() + octets.sum::<usize>()
}
