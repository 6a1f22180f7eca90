//! Queries, written byte by byte: the server's own wire code has no part in it.

use std::str::FromStr;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};
use domain::base::Rtype;

/// Recursion desired, in the third byte of the header.
const RD: u8 = 0x01;
/// Authenticated data and checking disabled, in the fourth.
const AD: u8 = 0x20;
const CD: u8 = 0x10;
/// The class Internet.
const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;
/// A label's limit in octets (RFC 1035 2.3.4).
const LABEL_LIMIT: usize = 63;

static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// What a query says about EDNS (RFC 6891).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edns {
    /// The UDP payload size the client can take, in octets.
    pub size: u16,
    /// The EDNS version.
    pub version: u8,
    /// DNSSEC records are wanted.
    pub dnssec_ok: bool,
    /// Options: code and data.
    pub options: Vec<(u16, Vec<u8>)>,
}

/// One query. [`Query::new`] makes what a stub resolver sends; the fields change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The message's id; each new query has another.
    pub id: u16,
    /// The name asked for, in presentation form.
    pub name: String,
    /// The type asked for.
    pub rtype: u16,
    /// The class asked for.
    pub class: u16,
    /// The operation code.
    pub opcode: u8,
    /// Recursion desired.
    pub rd: bool,
    /// Authenticated data.
    pub ad: bool,
    /// Checking disabled.
    pub cd: bool,
    /// EDNS, if any.
    pub edns: Option<Edns>,
}

impl Query {
    /// A query for `name` and the type called `rtype` (`A`, `TYPE65`), class IN, RD set, without EDNS.
    ///
    /// # Errors
    /// There is no such type.
    pub fn new(name: &str, rtype: &str) -> Result<Self> {
        let rtype = Rtype::from_str(rtype)
            .ok()
            .with_context(|| format!("`{rtype}` is no record type"))?;
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: name.to_owned(),
            rtype: rtype.to_int(),
            class: CLASS_IN,
            opcode: 0,
            rd: true,
            ad: false,
            cd: false,
            edns: None,
        })
    }

    /// The same with EDNS version 0 and this UDP payload size.
    #[must_use]
    pub fn with_edns(mut self, size: u16) -> Self {
        self.edns = Some(Edns {
            size,
            version: 0,
            dnssec_ok: false,
            options: Vec::new(),
        });
        self
    }

    /// The message.
    ///
    /// # Errors
    /// The name, or an option, is too long to be written at all.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut message = Vec::with_capacity(64);
        message.extend(self.id.to_be_bytes());
        message.push((self.opcode << 3) | if self.rd { RD } else { 0 });
        message.push(if self.ad { AD } else { 0 } | if self.cd { CD } else { 0 });
        let additional = u16::from(self.edns.is_some());
        for count in [1, 0, 0, additional] {
            message.extend(count.to_be_bytes());
        }
        message.extend(encode_name(&self.name)?);
        message.extend(self.rtype.to_be_bytes());
        message.extend(self.class.to_be_bytes());
        if let Some(edns) = &self.edns {
            message.extend(edns.encode()?);
        }
        Ok(message)
    }
}

impl Edns {
    /// The OPT record.
    ///
    /// # Errors
    /// The options are longer than a record can be.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut options = Vec::new();
        for (code, data) in &self.options {
            options.extend(code.to_be_bytes());
            options.extend(u16::try_from(data.len())?.to_be_bytes());
            options.extend(data);
        }
        let mut record = vec![0];
        record.extend(TYPE_OPT.to_be_bytes());
        record.extend(self.size.to_be_bytes());
        record.extend([0, self.version, if self.dnssec_ok { 0x80 } else { 0 }, 0]);
        record.extend(u16::try_from(options.len())?.to_be_bytes());
        record.extend(options);
        Ok(record)
    }
}

/// A name in wire form, uncompressed. The final dot may be missing; `\.` is a dot inside a label.
///
/// # Errors
/// A label is empty or longer than 63 octets. Names longer than 255 octets are written.
pub fn encode_name(name: &str) -> Result<Vec<u8>> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    let inner = name.strip_suffix('.').unwrap_or(name);
    if !inner.is_empty() {
        for label in inner.replace("\\.", "\0").split('.') {
            let label = label.replace('\0', ".");
            ensure!(
                (1..=LABEL_LIMIT).contains(&label.len()),
                "a label of {name} has {} octets",
                label.len()
            );
            wire.push(u8::try_from(label.len())?);
            wire.extend(label.as_bytes());
        }
    }
    wire.push(0);
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_what_rfc_1035_says() {
        let mut query = Query::new("a.Bc.", "AAAA").unwrap().with_edns(1232);
        query.id = 0x1234;
        query.cd = true;
        let expected = [
            0x12, 0x34, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 1, 1, b'a', 2, b'B', b'c', 0, 0, 28, 0, 1, 0,
            0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(query.encode().unwrap(), expected);
    }

    #[test]
    fn the_root_is_one_octet_and_an_empty_label_is_refused() {
        assert_eq!(encode_name(".").unwrap(), [0]);
        assert!(encode_name("a..b.").is_err());
    }
}
