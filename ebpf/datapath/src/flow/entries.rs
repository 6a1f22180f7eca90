//! The entries of a flow: all of them are added or none, and they are removed together.

use super::{Work, is_offered};
use crate::layout::{Address, FlowKey, Hook, flow_flags};
use crate::maps::{FlowRef, SEEN_RESOLUTION_NS};
use crate::service::Service;
use crate::{Insert, Maps};

/// Where the packet whose key is in [`Work`] is to go.
pub(super) struct NewFlow {
    pub(super) address: Address,
    pub(super) port: u16,
    pub(super) service: u32,
    pub(super) masquerade: bool,
    pub(super) flags: u16,
}

pub(super) enum Inserted {
    Yes,
    /// Another flow of the client with the endpoint is in the way.
    Collides,
    Full,
}

impl NewFlow {
    /// Adds the flow's entries, in the place of another that is over where that is in the way; none
    /// stays if one can't be added. `forgets`: the other's entries go with it; else, for the sake of
    /// programs' size, those that are not written over are left to their time-outs.
    #[inline(always)]
    pub(super) fn insert(&self, maps: &impl Maps, work: &mut Work, forgets: bool) -> Inserted {
        let mut is_there = self.insert_reply(maps, work);
        if !is_there {
            let Work {
                key, other, value, ..
            } = &mut *work;
            let Some(old) = maps.flow(other) else {
                return Inserted::Full;
            };
            if !is_free(old, &value.address, value.port, value.seen_ns) {
                return Inserted::Collides;
            }
            if forgets {
                let (_, id) = old.owner();
                let (vip, vip_port) = old.target();
                forget_masquerade(maps, other, id);
                forget_request(maps, other, key, &vip, vip_port, id);
                set_reply(other, key, &self.address, self.port);
            }
            is_there = maps.insert_flow(other, value, Insert::Any);
        }
        if self.insert_rest(maps, work, is_there) {
            Inserted::Yes
        } else {
            Inserted::Full
        }
    }

    #[inline(always)]
    fn insert_reply(&self, maps: &impl Maps, work: &mut Work) -> bool {
        let Work {
            key, other, value, ..
        } = work;
        let now_ns = maps.now_ns();
        value.address = key.destination;
        value.port = key.destination_port;
        value.flags = flow_flags::REPLY | self.flags;
        value.service = self.service;
        value.seen_ns = now_ns;
        value.id = new_id(maps, now_ns);
        value.from = Address::ANY;
        value.from_port = 0;
        set_reply(other, key, &self.address, self.port);
        maps.insert_flow(other, value, Insert::New)
    }

    /// Adds the entries behind that of the replies; where one can't be added, or that of the replies
    /// could not be (`complete`), none stays, and false.
    #[inline(always)]
    fn insert_rest(&self, maps: &impl Maps, work: &mut Work, mut complete: bool) -> bool {
        let Work {
            key, other, value, ..
        } = work;
        if self.masquerade {
            value.flags = flow_flags::MASQUERADE | flow_flags::PENDING;
            turn(other);
            complete &= maps.insert_flow(other, value, Insert::Any);
            turn(other);
        }
        value.address = self.address;
        value.port = self.port;
        value.flags = flow_flags::REQUEST | self.flags;
        if !self.masquerade {
            value.flags |= flow_flags::UNMASKED;
        }
        if complete && maps.insert_flow(key, value, Insert::Any) {
            return true;
        }
        maps.remove_flow(other);
        if self.masquerade {
            turn(other);
            maps.remove_flow(other);
        }
        false
    }
}

/// What ties the entries of a flow that is opened now.
#[inline(always)]
pub(super) fn new_id(maps: &impl Maps, now_ns: u64) -> u64 {
    now_ns.rotate_left(20) ^ u64::from(maps.random())
}

/// Random bits of a flow: those of its id when it is opened, others at any other time.
#[inline(always)]
pub(super) fn random_of(id: u64, now_ns: u64) -> u32 {
    let [.., a, b, c, d] = (id ^ now_ns.rotate_left(20)).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Whether a reply's entry, left by an earlier flow of the same client, can be taken over: it
/// is for the same VIP, its connection has ended, it was for a refusal, which comes at once, or
/// it was no more than a question with its answer, some time ago.
#[inline(always)]
fn is_free(old: FlowRef, vip: &Address, port: u16, now_ns: u64) -> bool {
    let (address, old_port) = old.target();
    let flags = old.flags();
    let ended = flow_flags::FIN | flow_flags::RST | flow_flags::REFUSED;
    let is_idle = flags & flow_flags::STREAM == 0 && old.age_ns(now_ns) > SEEN_RESOLUTION_NS;
    flags & ended != 0 || is_idle || (address == *vip && old_port == port)
}

/// Removes the request's entry of a flow whose replies are another's from now on.
#[inline(always)]
fn forget_request(
    maps: &impl Maps,
    other: &mut FlowKey,
    key: &FlowKey,
    vip: &Address,
    vip_port: u16,
    id: u64,
) {
    other.source = key.source;
    other.destination = *vip;
    other.source_port = key.source_port;
    other.destination_port = vip_port;
    other.hook = Hook::Ingress.number();
    let is_its = maps.flow(other).is_some_and(|flow| flow.owner().1 == id);
    if is_its {
        maps.remove_flow(other);
    }
}

/// Makes `other` the key of the replies to `key` from an endpoint, as they go out.
#[inline(always)]
fn set_reply(other: &mut FlowKey, key: &FlowKey, endpoint: &Address, port: u16) {
    other.source = *endpoint;
    other.destination = key.source;
    other.source_port = port;
    other.destination_port = key.source_port;
    other.protocol = key.protocol;
    other.hook = Hook::Egress.number();
    other.reserved = 0;
}

/// Makes `other` the key of the answers, as they come in, to a flow whose entry says both ends.
#[inline(always)]
fn set_answer(other: &mut FlowKey, key: &FlowKey, flow: FlowRef) {
    (other.source, other.source_port) = flow.target();
    (other.destination, other.destination_port) = flow.from();
    other.protocol = key.protocol;
    other.hook = Hook::Ingress.number();
    other.reserved = 0;
}

/// Whether an entry says both ends. Where nothing is sent on (any more) that is not asked, for the
/// sake of programs' size: such a flow then counts as over when its client opens it anew.
#[inline(always)]
fn is_both(maps: &impl Maps, flags: u16) -> bool {
    maps.forwards() && flags & flow_flags::BOTH != 0
}

/// Swaps source and destination.
#[inline(always)]
pub(super) fn turn(key: &mut FlowKey) {
    core::mem::swap(&mut key.source, &mut key.destination);
    core::mem::swap(&mut key.source_port, &mut key.destination_port);
}

/// Whether a SYN that meets this entry opens a new connection: the old one was closed by either
/// side (its replies may be another flow's since), or its endpoint takes no new ones any more.
#[inline(always)]
pub(super) fn is_over(maps: &impl Maps, work: &mut Work, flow: FlowRef) -> bool {
    let flags = flow.flags();
    if flags & flow_flags::REQUEST == 0 {
        return false;
    }
    let ended = flow_flags::FIN | flow_flags::RST;
    let (address, port) = flow.target();
    if is_both(maps, flags) {
        set_answer(&mut work.other, &work.key, flow);
    } else {
        set_reply(&mut work.other, &work.key, &address, port);
    }
    let (service, id) = flow.owner();
    let reply_ended = maps
        .flow(&work.other)
        .is_none_or(|reply| reply.owner().1 != id || reply.flags() & ended != 0);
    if flags & ended != 0 || reply_ended {
        return true;
    }
    match Service::load(maps, service) {
        Some(service) => {
            let is_local = flags & flow_flags::LOCAL != 0;
            !is_offered(maps, &service, &address, port, is_local)
        }
        None => true,
    }
}

/// Removes what a request's entry leads to, so that the port can be used anew; not what another
/// flow has taken over since.
#[inline(always)]
pub(super) fn forget(maps: &impl Maps, work: &mut Work, flow: FlowRef) {
    let Work { key, other, .. } = work;
    let (_, id) = flow.owner();
    let (address, port) = flow.target();
    set_reply(other, key, &address, port);
    remove_own(maps, other, id);
    forget_masquerade(maps, other, id);
    if is_both(maps, flow.flags()) {
        set_answer(other, key, flow);
        remove_own(maps, other, id);
    }
    maps.remove_flow(key);
}

/// Removes the masquerade of a flow, the key of whose replies is given; it is another after.
#[inline(always)]
fn forget_masquerade(maps: &impl Maps, key: &mut FlowKey, id: u64) {
    turn(key);
    let Some(masquerade) = maps.flow(key) else {
        return;
    };
    if masquerade.owner().1 != id {
        return;
    }
    let (hidden, hidden_port) = masquerade.target();
    maps.remove_flow(key);
    // From the endpoint to the node.
    turn(key);
    key.destination = hidden;
    key.destination_port = hidden_port;
    key.hook = Hook::Ingress.number();
    remove_own(maps, key, id);
}

/// Removes an entry if it is of this flow.
#[inline(always)]
fn remove_own(maps: &impl Maps, key: &FlowKey, id: u64) {
    if maps.flow(key).is_some_and(|flow| flow.owner().1 == id) {
        maps.remove_flow(key);
    }
}
