use regex::Regex;

use super::matcher::Matcher;
use crate::wire::{Name, Rcode, Record, Records, Rtype};

/// What a rule wants done to the reply.
#[derive(Clone, Debug)]
pub(super) enum ResponseRule {
    /// Owners of records.
    Names(Rewriter),
    /// Names in the data of records.
    Values(Rewriter),
    /// TTLs into a range.
    Ttl {
        least: u32,
        most: u32,
    },
    Rcode {
        from: Rcode,
        to: Rcode,
    },
    /// The target of a CNAME, and what follows it.
    Cname(CnameRule),
}

/// How a name in the reply is changed.
#[derive(Clone, Debug)]
pub(super) enum Rewriter {
    /// This name, and names below it.
    Remap(Box<Remap>),
    /// The end of the text.
    Suffix {
        from: String,
        to: String,
    },
    Regex {
        pattern: Regex,
        to: String,
    },
}

/// Two names, boxed because a name is long.
#[derive(Clone, Debug)]
pub(super) struct Remap {
    /// In lower case.
    pub(super) from: Name,
    pub(super) to: Name,
}

/// `rewrite cname`
#[derive(Clone, Debug)]
pub(super) struct CnameRule {
    pub(super) from: Matcher,
    pub(super) to: String,
}

impl Rewriter {
    /// The other name; `None` to leave it as it is, also where it would be none.
    fn rewrite(&self, name: &Name) -> Option<Name> {
        match self {
            Self::Remap(remap) => {
                let Remap { from, to } = &**remap;
                let lower = name.to_lower();
                let below = lower.suffix_at(from)?;
                let labels = name.label_count() - from.label_count();
                if below == 0 {
                    return Some(to.clone());
                }
                Name::from_labels(name.labels().take(labels))
                    .ok()?
                    .followed_by(to)
                    .ok()
            }
            Self::Suffix { from, to } => {
                let text = name.to_string();
                let at = text.len().checked_sub(from.len())?;
                let same = text.get(at..)?.eq_ignore_ascii_case(from);
                Name::from_text(&format!("{}{to}", text.get(..at)?))
                    .ok()
                    .filter(|_| same)
            }
            Self::Regex { pattern, to } => {
                let replaced = Matcher::Regex(pattern.clone()).replace(&name.to_string(), to)?;
                Name::from_text(&replaced).ok()
            }
        }
    }
}

impl CnameRule {
    /// What the target becomes.
    pub(super) fn new_target(&self, target: &Name) -> Option<Name> {
        let text = match self.from {
            Matcher::Regex(_) => target.to_string(),
            _ => target.to_lower().to_string(),
        };
        Name::from_text(&self.from.replace(&text, &self.to)?).ok()
    }
}

impl ResponseRule {
    /// Does it to all records; codes and CNAMEs are not its matter.
    pub(super) fn apply(&self, records: &mut Records) {
        let sections = [
            &mut records.authority,
            &mut records.answer,
            &mut records.additional,
        ];
        for record in sections.into_iter().flatten() {
            match self {
                Self::Names(rewriter) => {
                    if let Some(owner) = rewriter.rewrite(&record.owner) {
                        record.owner = owner;
                    }
                }
                Self::Values(rewriter) => rewrite_value(record, rewriter),
                Self::Ttl { least, most } => record.ttl = record.ttl.clamp(*least, *most),
                Self::Rcode { .. } | Self::Cname(_) => {}
            }
        }
    }
}

/// Changes the name that a record leads to: of a SOA the first, as the reference does it.
fn rewrite_value(record: &mut Record, rewriter: &Rewriter) {
    let Some(at) = value_at(record) else { return };
    let Ok((value, end)) = Name::read_plain(&record.data, at) else {
        return;
    };
    if let Some(new) = rewriter.rewrite(&value) {
        record.data.splice(at..end, new.as_wire().iter().copied());
    }
}

/// Where in the data the name is.
fn value_at(record: &Record) -> Option<usize> {
    match record.rtype {
        Rtype::CNAME | Rtype::DNAME | Rtype::NS | Rtype::PTR | Rtype::SOA => Some(0),
        Rtype::MX => Some(2),
        Rtype::SRV => Some(6),
        // Order, preference, three texts (RFC 3403 §4.1).
        Rtype::NAPTR => (0..3).try_fold(4, |at: usize, _| {
            Some(at + 1 + usize::from(*record.data.get(at)?))
        }),
        _ => None,
    }
}
