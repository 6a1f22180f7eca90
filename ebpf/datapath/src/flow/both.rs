//! Masqueraded flows whose packets are sent on at once: one entry each way says both ends.
//!
//! Entering such a flow costs half of what four entries cost, and each packet meets one. A packet
//! that takes the stack's way after all (a neighbour is not known, it is an error of ICMP, the
//! operator has changed his mind) is translated at both hooks as ever: the entry that egress looks
//! for is added when the first such packet comes, with its counterpart: an error that the stack sends
//! about it is met at egress only.

use super::entries::{Inserted, NewFlow, new_id, turn};
use super::masquerade::Masked;
use super::{Place, Work, note};
use crate::layout::{Address, Endpoint, FlowKey, FlowValue, Hook, Reason, flow_flags};
use crate::maps::FlowRef;
use crate::{Insert, Maps};

/// A masqueraded flow whose endpoint ([`Work::to`]) is chosen, and that is not entered yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opening {
    pub(super) is_some: bool,
    pub(super) service: u32,
    pub(super) flags: u16,
}

/// Enters the flow that a packet opens, which goes out by a device now; false, with the reason
/// noted, and nothing entered, if it can't be.
#[inline(always)]
pub(super) fn open(maps: &impl Maps, work: &mut Work, out: &Place) -> bool {
    let opening = work.opening;
    let now_ns = maps.now_ns();
    let id = new_id(maps, now_ns);
    let masked = Masked {
        service: opening.service,
        id,
        now_ns,
        own: work.own,
        vip: work.old.destination,
        // What comes back passes no other entry.
        flags: flow_flags::BOTH | flow_flags::REPLY,
    };
    if !masked.take(maps, work) {
        return false;
    }
    let Work {
        key,
        other,
        value,
        to,
        from,
        new,
        ..
    } = &mut *work;
    new.source = *from;
    value.address = to.address;
    value.port = to.port;
    value.flags = flow_flags::REQUEST | flow_flags::BOTH | opening.flags;
    value.from = from.address;
    value.from_port = from.port;
    if !maps.insert_flow(key, value, Insert::Any) {
        maps.remove_flow(other);
        note(
            &mut work.noted,
            opening.service,
            Reason::FlowTableFull,
            false,
        );
        return false;
    }
    count(maps, work, out);
    true
}

/// The same for a packet that takes the stack's way.
#[inline(always)]
pub(super) fn open_split(maps: &impl Maps, work: &mut Work, place: &Place) -> bool {
    let flow = NewFlow {
        address: work.to.address,
        port: work.to.port,
        service: work.opening.service,
        masquerade: true,
        flags: work.opening.flags,
    };
    let reason = match flow.insert(maps, work, false) {
        Inserted::Yes => {
            count(maps, work, place);
            return true;
        }
        Inserted::Collides => Reason::Collision,
        Inserted::Full => Reason::FlowTableFull,
    };
    note(&mut work.noted, flow.service, reason, false);
    false
}

#[inline(always)]
fn count(maps: &impl Maps, work: &Work, place: &Place) {
    let endpoint = Endpoint::new(work.to.address, work.to.port);
    maps.count_connection(work.opening.service, &endpoint, place.bytes);
}

/// [`split`] for a packet that was met at ingress; false, with the reason noted, if it fails.
#[inline(always)]
pub(super) fn split_for(maps: &impl Maps, work: &mut Work) -> bool {
    let Work {
        key, other, value, ..
    } = &mut *work;
    let Some(flow) = maps.flow(key) else {
        return true; // it was removed meanwhile: nothing at egress will be about it
    };
    let is_split = split(maps, key, other, value, flow);
    if !is_split {
        note(&mut work.noted, 0, Reason::Collision, false);
    }
    is_split
}

/// Adds the entries at egress that a packet needs which has met `flow`, an entry that says both ends,
/// and takes the stack's way, and that an error needs which the stack has to say of it; false if
/// they can't be had.
#[inline(always)]
pub(crate) fn split(
    maps: &impl Maps,
    key: &FlowKey,
    other: &mut FlowKey,
    value: &mut FlowValue,
    flow: FlowRef,
) -> bool {
    let is_request = flow.flags() & flow_flags::REQUEST != 0;
    // What goes back has no flag of its own: it was counted when it came in.
    let (here, there) = if is_request {
        (flow_flags::MASQUERADE, 0)
    } else {
        (0, flow_flags::MASQUERADE)
    };
    (value.address, value.port) = flow.from();
    value.flags = here;
    (value.service, value.id) = flow.owner();
    value.seen_ns = maps.now_ns();
    value.from = Address::ANY;
    value.from_port = 0;
    other.source = key.source;
    other.source_port = key.source_port;
    (other.destination, other.destination_port) = flow.target();
    other.protocol = key.protocol;
    other.hook = Hook::Egress.number();
    other.reserved = 0;
    if !enter(maps, other, value) {
        return false;
    }
    turn(other);
    value.flags = there;
    value.address = key.destination;
    value.port = key.destination_port;
    enter(maps, other, value)
}

/// Adds an entry unless it is there; false if there is no room, or another flow of the same client
/// with the same endpoint, opened since, has its place.
#[inline(always)]
fn enter(maps: &impl Maps, key: &FlowKey, value: &FlowValue) -> bool {
    match maps.flow(key) {
        Some(there) => there.owner().1 == value.id,
        None => maps.insert_flow(key, value, Insert::New),
    }
}
