use super::zone::{Node, Zone, ancestors, negative_ttl};
use crate::wire::{Name, Question, Rcode, Record, Records, Rtype};

/// CNAMEs followed within one zone for one question.
const CNAMES_MAX: usize = 8;

/// What a zone says to a question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) rcode: Rcode,
    /// Not set for a referral: somebody else is the authority.
    pub(super) authoritative: bool,
    pub(super) records: Records,
    /// The answer ends in an alias of this name, which is not in the zone.
    pub(super) alias_of: Option<Name>,
}

/// What there is at one name.
enum Found<'a> {
    Node(&'a Node),
    /// The name is below a zone cut: its NS records.
    Cut(&'a Node),
    /// A DNAME above the name makes it an alias.
    Renamed(&'a Record, Box<Name>),
    Nothing,
}

/// Answers a question about a name in the zone (RFC 1034 §4.3.2, RFC 4592).
pub(super) fn lookup(zone: &Zone, question: &Question) -> Answer {
    let mut answer = Answer {
        rcode: Rcode::NOERROR,
        authoritative: true,
        records: Records::default(),
        alias_of: None,
    };
    let mut owner = question.name().clone();
    for _ in 0..CNAMES_MAX {
        let lower = owner.to_lower();
        if !lower.is_within(&zone.origin) {
            answer.alias_of = Some(owner);
            return answer;
        }
        match find(zone, &lower, question.rtype) {
            Found::Node(node) => match at_node(node, &owner, question.rtype, &mut answer.records) {
                Some(target) => owner = target,
                None => {
                    conclude(zone, question.rtype, &mut answer.records);
                    return answer;
                }
            },
            Found::Cut(node) => {
                refer(zone, node, &mut answer);
                return answer;
            }
            Found::Renamed(dname, target) => {
                answer.records.answer.push(dname.clone());
                let cname = Record::cname(owner, dname.ttl, &target);
                answer.records.answer.push(cname);
                owner = *target;
            }
            Found::Nothing => {
                // The code is that of the last name in the chain (RFC 6604 §3).
                answer.rcode = Rcode::NXDOMAIN;
                answer.records.authority.push(negative_soa(zone));
                return answer;
            }
        }
    }
    answer.rcode = Rcode::SERVFAIL;
    answer
}

fn find<'a>(zone: &'a Zone, name: &Name, rtype: Rtype) -> Found<'a> {
    // From the apex down: the first cut decides.
    let mut above: Vec<Name> = ancestors(name, &zone.origin).collect();
    above.reverse();
    for name_above in &above {
        let Some(node) = zone.node(name_above) else {
            break;
        };
        if node.has(Rtype::NS) {
            return Found::Cut(node);
        }
        if let Some(dname) = node.of(Rtype::DNAME).next()
            && let Some(target) = renamed(name, name_above, dname)
        {
            return Found::Renamed(dname, Box::new(target));
        }
    }
    if let Some(node) = zone.node(name) {
        let cut = node.has(Rtype::NS) && *name != zone.origin;
        // The parent side of a cut has the DS (RFC 4035 §3.1.4.1).
        return if cut && rtype != Rtype::DS {
            Found::Cut(node)
        } else {
            Found::Node(node)
        };
    }
    // The closest name above that exists may have a wildcard (RFC 4592 §3.3.1).
    let encloser = above.iter().rev().find(|name| zone.node(name).is_some());
    let encloser = encloser.unwrap_or(&zone.origin);
    let wildcard = Name::from_labels([&b"*"[..]]).and_then(|star| star.followed_by(encloser));
    match wildcard.ok().and_then(|wildcard| zone.node(&wildcard)) {
        Some(node) => Found::Node(node),
        None => Found::Nothing,
    }
}

/// `name` with `above` at its end replaced by the target of `dname` (RFC 6672 §2.2).
fn renamed(name: &Name, above: &Name, dname: &Record) -> Option<Name> {
    let at = name.suffix_at(above)?;
    let front = name.as_wire().get(..at)?;
    let front = Name::copied(&[front, &[0]].concat()).ok()?;
    front.followed_by(&dname.target()?).ok()
}

/// Takes what was asked for; gives the next name to look at where there is an alias instead.
fn at_node(node: &Node, owner: &Name, rtype: Rtype, records: &mut Records) -> Option<Name> {
    let mut take = |record: &Record| {
        records.answer.push(Record {
            owner: owner.clone(),
            ..record.clone()
        });
    };
    if rtype == Rtype::ANY {
        node.all().iter().for_each(take);
        return None;
    }
    if let Some(cname) = node.of(Rtype::CNAME).next()
        && rtype != Rtype::CNAME
    {
        take(cname);
        return cname.target();
    }
    node.of(rtype).for_each(take);
    None
}

/// Adds what belongs to an answer: the SOA if it is empty, else the zone's NS records and
/// addresses of the names in it.
fn conclude(zone: &Zone, rtype: Rtype, records: &mut Records) {
    let last = records.answer.last().map(|record| record.rtype);
    if last.is_none_or(|last| last != rtype && rtype != Rtype::ANY) {
        records.authority.push(negative_soa(zone));
        return;
    }
    if let Some(apex) = zone.node(&zone.origin)
        && !records
            .answer
            .iter()
            .any(|record| record.rtype == Rtype::NS)
    {
        records.authority.extend(apex.of(Rtype::NS).cloned());
    }
    let glue = glue(zone, &records.answer);
    records.additional.extend(glue);
}

fn refer(zone: &Zone, cut: &Node, answer: &mut Answer) {
    answer.authoritative = !answer.records.answer.is_empty();
    answer.records.authority.extend(cut.of(Rtype::NS).cloned());
    answer.records.authority.extend(cut.of(Rtype::DS).cloned());
    let glue = glue(zone, &answer.records.authority);
    answer.records.additional.extend(glue);
}

/// Addresses of the names that NS, MX and SRV records point to, as far as they are here.
fn glue(zone: &Zone, records: &[Record]) -> Vec<Record> {
    let mut glue: Vec<Record> = Vec::new();
    for record in records {
        if !matches!(record.rtype, Rtype::NS | Rtype::MX | Rtype::SRV) {
            continue;
        }
        let node = record
            .target()
            .and_then(|target| zone.node(&target.to_lower()));
        for address in node.into_iter().flat_map(Node::all) {
            let wanted = matches!(address.rtype, Rtype::A | Rtype::AAAA);
            if wanted && !glue.contains(address) {
                glue.push(address.clone());
            }
        }
    }
    glue
}

fn negative_soa(zone: &Zone) -> Record {
    Record {
        ttl: negative_ttl(&zone.soa),
        ..zone.soa.clone()
    }
}
