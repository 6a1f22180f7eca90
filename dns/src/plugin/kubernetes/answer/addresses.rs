use std::net::IpAddr;

use super::fixed;
use crate::plugin::kubernetes::index::{Answers, Endpoints, PortFilter, Selection};
use crate::wire::{Reply, Rtype, Section};

/// What every record ready to be copied has as owner: a pointer to the question's name.
const QUESTION: [u8; 2] = [0xC0, 0x0C];

/// An address record, if the address is of this type. Says how many it pushed.
pub(in crate::plugin::kubernetes) fn push_address(
    reply: &mut Reply,
    section: Section,
    owner: &[u8],
    rtype: Rtype,
    ttl: u32,
    address: IpAddr,
) -> u16 {
    let (v4, v6);
    let octets: &[u8] = match (address, rtype) {
        (IpAddr::V4(address), Rtype::A) => {
            v4 = address.octets();
            &v4
        }
        (IpAddr::V6(address), Rtype::AAAA) => {
            v6 = address.octets();
            &v6
        }
        _ => return 0,
    };
    reply.push_wire(section, 0, owner);
    reply.push_wire(section, 0, &fixed(rtype, ttl, octets.len()));
    reply.push_wire(section, 1, octets);
    1
}

/// The Service's own records of this type, owned by what `owner` points to. Of more than fit
/// into `limit` octets as many as do, from a random one on and cut off by TC, so that all of
/// them are seen by somebody.
pub(in crate::plugin::kubernetes) fn push_own_records(
    reply: &mut Reply,
    answers: &Answers,
    rtype: Rtype,
    owner: [u8; 2],
    limit: usize,
) -> u16 {
    let (wire, count) = answers.records(rtype);
    let Some(each) = wire.len().checked_div(count) else {
        return 0;
    };
    let start = reply.octets().len();
    let room = limit.saturating_sub(start) / each;
    if count <= room {
        let records = u16::try_from(count).unwrap_or(u16::MAX);
        reply.push_wire(Section::Answer, records, wire);
        own(reply, start, each, owner);
        return records;
    }
    reply.truncated = true;
    let first = fastrand::usize(..count);
    let (before, after) = wire.split_at_checked(first * each).unwrap_or((wire, &[]));
    let after = after
        .get(..after.len().min(room * each))
        .unwrap_or_default();
    let left = room * each - after.len();
    let before = before.get(..before.len().min(left)).unwrap_or_default();
    reply.push_wire(Section::Answer, 0, after);
    reply.push_wire(
        Section::Answer,
        u16::try_from(room).unwrap_or(u16::MAX),
        before,
    );
    own(reply, start, each, owner);
    // None at all is an answer, too, with TC.
    u16::try_from(room).unwrap_or(u16::MAX).max(1)
}

/// Changes the owners of the records of `each` octets from `start` on.
fn own(reply: &mut Reply, start: usize, each: usize, owner: [u8; 2]) {
    if owner == QUESTION {
        return;
    }
    let records = reply.octets_mut().get_mut(start..).unwrap_or_default();
    for record in records.chunks_exact_mut(each) {
        if let Some(place) = record.first_chunk_mut() {
            *place = owner;
        }
    }
}

/// Address records of some endpoints. Says whether any endpoint was meant, and how many
/// records it pushed.
pub(in crate::plugin::kubernetes) fn push_selected(
    reply: &mut Reply,
    endpoints: &Endpoints,
    meant: (Selection<'_>, PortFilter<'_>),
    rtype: Rtype,
    owner: [u8; 2],
    ttl: u32,
) -> (bool, u16) {
    let (selection, filter) = meant;
    let (mut exists, mut pushed) = (false, 0);
    for (at, group) in endpoints.groups().iter().enumerate() {
        if group.matching_ports(filter) == 0 {
            continue;
        }
        for address in group
            .targets(selection)
            .flat_map(|target| target.addresses())
        {
            exists = true;
            let earlier = endpoints.groups().iter().take(at);
            let mut earlier = earlier.filter(|other| other.matching_ports(filter) > 0);
            if !earlier.any(|other| other.has(selection, address)) {
                pushed += push_address(reply, Section::Answer, &owner, rtype, ttl, address);
            }
        }
    }
    (exists, pushed)
}
