//! Services that are other names, followed within the zone and outside.

use super::Kubernetes;
use super::find::{Asked, Verdict};
use super::shape::Labels;
use crate::plugin::{Exchange, Position, Step};
use crate::wire::{EdeCode, HEADER_OCTETS, Name, Question, Rcode, Record, Reply, Rtype, Section};

/// CNAME records one after the other, as in CoreDNS.
const ALIASES_CAPACITY: usize = 11;

/// Where aliases lead.
#[derive(Debug)]
pub(super) enum End {
    /// To addresses of the zone: all is in the reply.
    Answered,
    /// To nothing; the reply is empty.
    Nowhere,
    /// To a name that is not ours, the last of these.
    Outside(Vec<Name>),
}

impl Kubernetes {
    /// Answers with the alias `first`, and what it leads to if that is in the same zone.
    pub(super) fn follow(
        &self,
        reply: &mut Reply,
        asked: &Asked<'_>,
        first: Name,
        question: &Question,
    ) -> End {
        let mut names = vec![first];
        loop {
            let Some(last) = names.last().map(Name::to_lower) else {
                return End::Nowhere;
            };
            let mut earlier = names.iter().rev().skip(1).map(Name::to_lower);
            let loops = last == *asked.lower || earlier.any(|earlier| earlier == last);
            if loops || names.len() > ALIASES_CAPACITY {
                reply.begin(question);
                return End::Nowhere;
            }
            let labels = Labels::new(&last);
            let Some((zone, count)) = self.zone_of(&last, &labels) else {
                return End::Outside(names);
            };
            if !std::ptr::eq(zone, asked.zone) {
                return End::Outside(names);
            }
            reply.begin(question);
            let owner = push_aliases(reply, &names, self.ttl);
            let target = Asked {
                lower: &last,
                written: &last,
                labels: &labels,
                zone,
                count,
                owner,
                ..*asked
            };
            match self.find(reply, &target) {
                Verdict::Found => return End::Answered,
                Verdict::Alias(next) => names.push(*next),
                Verdict::Empty | Verdict::Missing => {
                    reply.begin(question);
                    return End::Nowhere;
                }
            }
        }
    }

    /// Asks the whole server for the name outside that aliases lead to.
    pub(super) async fn look_outside(
        &self,
        exchange: &mut Exchange,
        at: Position<'_>,
        names: Vec<Name>,
    ) -> Step {
        let Some(last) = names.last() else {
            return Step::Fail(Rcode::SERVFAIL);
        };
        let question = Question::new(last.clone(), exchange.question.rtype);
        let resolved = at.resolve(&question, exchange).await;
        let rtype = exchange.question.rtype;
        let reply = exchange.answer();
        reply.authoritative = true;
        push_aliases(reply, &names, self.ttl);
        let Some(resolved) = resolved else {
            reply.rcode = passed_on(Rcode::SERVFAIL, rtype);
            exchange.explain(
                EdeCode::OTHER,
                "the Service's external name can't be looked up",
            );
            return Step::Answered;
        };
        let Ok(records) = resolved.reply.records() else {
            reply.rcode = passed_on(Rcode::SERVFAIL, rtype);
            return Step::Answered;
        };
        reply.rcode = passed_on(resolved.reply.rcode, rtype);
        reply.truncated = resolved.reply.truncated;
        reply.ede.clone_from(&resolved.reply.ede);
        for record in &records.answer {
            reply.push(Section::Answer, record);
        }
        // RFC 2308 §2: what isn't there may be remembered for as long as the SOA says.
        let soa = |record: &&Record| record.rtype == Rtype::SOA;
        if !records.answer.iter().any(|record| record.rtype == rtype) {
            for record in records.authority.iter().filter(soa) {
                reply.push(Section::Authority, record);
            }
        }
        Step::Answered
    }
}

/// The code of the last name counts for the whole chain (RFC 6604 §3). But a failure to find
/// IPv6 addresses is not passed on: musl would give up the IPv4 addresses, too.
fn passed_on(rcode: Rcode, rtype: Rtype) -> Rcode {
    match rcode {
        Rcode::NOERROR | Rcode::NXDOMAIN => rcode,
        _ if rtype == Rtype::AAAA => Rcode::NOERROR,
        _ => Rcode::SERVFAIL,
    }
}

/// Pushes a CNAME record for each of `names`; returns the pointer to the last.
pub(super) fn push_aliases(reply: &mut Reply, names: &[Name], ttl: u32) -> [u8; 2] {
    let mut owner = super::answer::pointer(HEADER_OCTETS).unwrap_or_default();
    for name in names {
        let fixed = super::answer::fixed(Rtype::CNAME, ttl, name.wire_len());
        reply.push_wire(Section::Answer, 0, &owner);
        reply.push_wire(Section::Answer, 0, &fixed);
        let at = reply.octets().len();
        reply.push_wire(Section::Answer, 1, name.as_wire());
        // That many names are far from the end of what pointers reach.
        owner = super::answer::pointer(at).unwrap_or(owner);
    }
    owner
}
