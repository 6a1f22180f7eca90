//! What a reply is worth keeping.

use std::time::{SystemTime, UNIX_EPOCH};

use super::config::Config;
use crate::wire::{Kind, Question, Record, Records, Reply, Rtype};

/// CNAMEs followed in one reply; more are a loop.
const CNAMES_MAX: usize = 32;
/// The TTL of a reply without records, and of a delegation.
const TTL_WITHOUT_RECORDS_S: u32 = 5;

/// What there is to know of a reply before it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) kind: Kind,
    /// It has what was asked for.
    pub(super) answers: bool,
    /// It may be kept at all.
    pub(super) lasting: bool,
}

impl Survey {
    /// Looks at a reply from outside, which may be anything. `dnssec` if its signatures count.
    pub(super) fn of(reply: &Reply, question: &Question, dnssec: bool) -> Self {
        let not_lasting = |kind| Self {
            kind,
            answers: false,
            lasting: false,
        };
        let kind = reply.kind(question.rtype);
        let Ok(records) = reply.records() else {
            return not_lasting(Kind::OtherError);
        };
        if dnssec && has_expired_signature(&records) {
            return not_lasting(Kind::OtherError);
        }
        let has_soa = records.authority.iter().any(|it| it.rtype == Rtype::SOA);
        let answers = kind == Kind::Success && answers(&records.answer, question);
        let elsewhere = kind == Kind::Success && !records.answer.is_empty() && !answers;
        let (kind, lasting) = match kind {
            Kind::Transfer | Kind::OtherError => (kind, false),
            // RFC 2308 §5: without an SOA nobody knows for how long.
            Kind::Nxdomain => (kind, has_soa),
            Kind::Success if elsewhere && has_soa => (Kind::Nodata, true),
            Kind::Success => (kind, !elsewhere),
            other => (other, true),
        };
        Self {
            kind,
            answers,
            lasting: lasting && !reply.truncated,
        }
    }
}

/// The TTL that all records of a reply get: the lowest they have, within the bounds of its
/// kind. `lowest` is `None` without records.
pub(super) fn ttl_s(kind: Kind, lowest: Option<u32>, config: &Config) -> u32 {
    let side = match kind {
        Kind::ServerError => return config.failure_ttl_s,
        Kind::Nxdomain | Kind::Nodata => &config.denial,
        _ => &config.success,
    };
    let own = match kind {
        Kind::Success | Kind::Nxdomain | Kind::Nodata => lowest.unwrap_or(TTL_WITHOUT_RECORDS_S),
        _ => TTL_WITHOUT_RECORDS_S,
    };
    own.max(side.min_ttl_s).min(side.max_ttl_s)
}

/// Whether the records have the type asked for at the end of the chain of CNAMEs.
fn answers(records: &[Record], question: &Question) -> bool {
    let mut name = question.lower().clone();
    for _ in 0..CNAMES_MAX {
        let mut targets = records
            .iter()
            .filter(|record| record.rtype == Rtype::CNAME && record.owner.eq_ignore_case(&name))
            .filter_map(Record::target);
        let target = targets.next();
        if let Some(first) = &target
            && targets.any(|other| !other.eq_ignore_case(first))
        {
            // RFC 2181 §10.1: a name has one canonical name.
            return false;
        }
        let followed = !matches!(question.rtype, Rtype::CNAME | Rtype::ANY);
        match target {
            Some(target) if followed => name = target,
            _ => {
                return records.iter().any(|record| {
                    let wanted = record.rtype == question.rtype || question.rtype == Rtype::ANY;
                    wanted && record.owner.eq_ignore_case(&name)
                });
            }
        }
    }
    false
}

/// Whether a signature is not valid now (RFC 4034 §3.1.5, serial number arithmetic).
fn has_expired_signature(records: &Records) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs() & u64::from(u32::MAX));
    let now = u32::try_from(now).unwrap_or_default();
    let all = records.answer.iter().chain(&records.authority);
    let mut all = all.chain(&records.additional);
    let number = |data: &[u8], at: usize| {
        let octets = data.get(at..at + 4)?;
        octets.try_into().ok().map(u32::from_be_bytes)
    };
    let before = |one: u32, other: u32| other.wrapping_sub(one).cast_signed() > 0;
    all.any(|record| {
        let times = number(&record.data, 8).zip(number(&record.data, 12));
        record.rtype == Rtype::RRSIG
            && times.is_none_or(|(expires, begins)| before(expires, now) || before(now, begins))
    })
}
