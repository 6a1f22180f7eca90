//! New flows: which Service, which endpoint, and the entries that remember it.

use super::masquerade::own_address;
use super::{Place, Verdict, Work, drop, is_offered, note, rewrite};
use crate::layout::{
    Address, AffinityKey, Endpoint, FlowKey, Frontend, Hook, Kind, RangeKey, Reason, SCTP,
    Settings, TCP, address_flags, device_flags, flow_flags, header_flags, settings_flags,
};
use crate::maps::{FlowRef, SEEN_RESOLUTION_NS};
use crate::parse::{Fragment, Parsed};
use crate::policy::{Choice, Client, Refused, Sender, choose, has_ranges};
use crate::select::{flow_hash, pick_another, select};
use crate::service::{Service, frontend_at, settings};
use crate::{Insert, Maps};

/// Endpoints that are tried where the first ones collide with another flow of the client.
const TRIES_MAX: u32 = 3;

/// Opens a flow for a packet to one of our addresses.
#[inline(always)]
pub(super) fn open(maps: &impl Maps, work: &mut Work, flags: u32, place: &Place) -> Verdict {
    let Some(settings) = settings(maps, work.parsed.is_v4()) else {
        return Verdict::Pass;
    };
    if settings.flags & settings_flags::HANDOVER != 0 && is_under_way(&work.parsed) {
        return Verdict::Pass;
    }
    let sender = sender(maps, &work.parsed, settings, place);
    let (to, port) = (&work.parsed.destination, work.parsed.destination_port);
    let Some(frontend) = frontend_at(maps, to, port, work.parsed.protocol, flags) else {
        return unknown_port(maps, work, flags, sender, place);
    };
    if work.parsed.is_rst() || work.parsed.fragment == Fragment::Later {
        return Verdict::Drop; // the end of something that nobody here remembers
    }
    let Some(service) = Service::load(maps, frontend.service) else {
        return Verdict::Pass;
    };
    let has = |flag| settings.flags & flag != 0;
    let client = Client {
        sender,
        detects_pods: has(settings_flags::PODS_BY_CIDR) || has(settings_flags::PODS_BY_DEVICE),
        masquerade_all: has(settings_flags::MASQUERADE_ALL),
    };
    let kind = Kind::from_number(frontend.kind);
    if !may_enter(maps, &work.parsed, &service, kind) {
        return drop(&mut work.noted, frontend.service, Reason::SourceRange);
    }
    match choose(&service, kind, &client) {
        Ok(choice) => send(maps, work, &service, &choice, frontend, sender, place),
        Err(Refused::Reject(reason)) => refuse(maps, work, frontend.service, reason, place),
        Err(Refused::Drop(reason)) => drop(&mut work.noted, frontend.service, reason),
    }
}

/// A segment of a TCP connection that has begun before.
#[inline(always)]
fn is_under_way(parsed: &Parsed) -> bool {
    parsed.protocol == TCP && !parsed.is_syn()
}

/// Who sent a packet that came in by a device.
#[inline(always)]
fn sender(maps: &impl Maps, parsed: &Parsed, settings: &Settings, place: &Place) -> Sender {
    let by_cidr = settings.flags & settings_flags::PODS_BY_CIDR != 0
        && parsed.source.is_within(&settings.pods, settings.pods_bits);
    let by_device = settings.flags & settings_flags::PODS_BY_DEVICE != 0
        && maps
            .device(place.device)
            .is_some_and(|device| device.flags & device_flags::PODS != 0);
    if by_cidr || by_device {
        Sender::LocalPod
    } else {
        Sender::Other
    }
}

/// A ClusterIP refuses ports it does not have. So does an external address that nobody here
/// has: sent on, the packet would come back from the next router, and again, until its TTL ends.
#[inline(always)]
fn unknown_port(
    maps: &impl Maps,
    work: &mut Work,
    flags: u32,
    sender: Sender,
    place: &Place,
) -> Verdict {
    let would_loop = flags & address_flags::EXTERNAL != 0
        && flags & address_flags::LOCAL == 0
        && sender != Sender::LocalPod;
    if flags & address_flags::CLUSTER_IP != 0 || would_loop {
        return refuse(maps, work, 0, Reason::UnknownPort, place);
    }
    Verdict::Pass
}

/// Has the node itself refuse a packet; where that can't be, it is lost.
#[inline(always)]
fn refuse(
    maps: &impl Maps,
    work: &mut Work,
    service: u32,
    reason: Reason,
    place: &Place,
) -> Verdict {
    let parsed = &work.parsed;
    let is_answered = parsed.protocol != SCTP && !parsed.is_rst();
    let address = own_address(maps, parsed, place);
    if address == Address::ANY || !is_answered {
        return drop(&mut work.noted, service, reason);
    }
    let nobody = NewFlow {
        address,
        port: 0,
        service,
        masquerade: false,
        flags: flow_flags::REFUSED,
    };
    if !matches!(nobody.insert(maps, work), Inserted::Yes) {
        return drop(&mut work.noted, service, reason);
    }
    note(&mut work.noted, service, reason, true);
    rewrite(&mut work.to, &address, 0)
}

/// Whether a client is within the Service's source ranges. A node that connects to a
/// LoadBalancer IP it holds itself does so from that IP.
#[inline(always)]
fn may_enter(maps: &impl Maps, parsed: &Parsed, service: &Service, kind: Kind) -> bool {
    if !has_ranges(service, kind) {
        return true;
    }
    let key = RangeKey {
        set: service.header.ranges.to_be(),
        address: parsed.source,
    };
    let from_own_vip =
        service.has(header_flags::RANGES_INCLUDE_NODE) && parsed.source == parsed.destination;
    from_own_vip || maps.in_range(&key)
}

#[inline(always)]
fn send(
    maps: &impl Maps,
    work: &mut Work,
    service: &Service,
    choice: &Choice,
    frontend: Frontend,
    sender: Sender,
    place: &Place,
) -> Verdict {
    let client = AffinityKey::by_address(work.parsed.source, frontend.service);
    let from_outside = sender == Sender::Other;
    let hash = if from_outside {
        outside_hash(&work.parsed, service)
    } else {
        maps.random()
    };
    let mut chosen = select(maps, service, choice, &client, hash, from_outside);
    if maps.forwards()
        && work.may_leave
        && let Some(endpoint) = chosen
        && waits(maps, work, choice, frontend.service, &endpoint)
    {
        return rewrite(&mut work.to, &endpoint.address, endpoint.port);
    }
    for attempt in 1..=TRIES_MAX {
        let Some(endpoint) = chosen else {
            return Verdict::Pass;
        };
        if work.parsed.protocol == SCTP && endpoint.port != work.parsed.destination_port {
            return drop(&mut work.noted, frontend.service, Reason::NotRewritable);
        }
        let flow = NewFlow {
            address: endpoint.address,
            port: endpoint.port,
            service: frontend.service,
            masquerade: is_masqueraded(choice, &endpoint, &work.parsed),
            flags: list_flag(choice),
        };
        match flow.insert(maps, work) {
            Inserted::Yes => {
                maps.count_connection(frontend.service, &endpoint, place.bytes);
                return rewrite(&mut work.to, &endpoint.address, endpoint.port);
            }
            Inserted::Collides => {
                chosen = pick_another(maps, choice, hash, attempt);
            }
            Inserted::Full => {
                return drop(&mut work.noted, frontend.service, Reason::FlowTableFull);
            }
        }
    }
    drop(&mut work.noted, frontend.service, Reason::Collision)
}

/// Whether the entries of a flow, whose packet may be sent on at once, wait until it is known by
/// which device it goes: it is masqueraded. Not where its client has another flow with the endpoint,
/// from the same port.
#[inline(always)]
fn waits(
    maps: &impl Maps,
    work: &mut Work,
    choice: &Choice,
    service: u32,
    endpoint: &Endpoint,
) -> bool {
    if !is_masqueraded(choice, endpoint, &work.parsed)
        || (work.parsed.protocol == SCTP && endpoint.port != work.parsed.destination_port)
    {
        return false;
    }
    set_reply(&mut work.other, &work.key, &endpoint.address, endpoint.port);
    if maps.flow(&work.other).is_some() {
        return false;
    }
    work.opening.is_some = true;
    work.opening.service = service;
    work.opening.flags = list_flag(choice);
    true
}

#[inline(always)]
fn is_masqueraded(choice: &Choice, endpoint: &Endpoint, parsed: &Parsed) -> bool {
    choice.masquerade || endpoint.address == parsed.source
}

/// From which list of endpoints a flow has its own.
#[inline(always)]
const fn list_flag(choice: &Choice) -> u16 {
    if choice.is_cluster {
        0
    } else {
        flow_flags::LOCAL
    }
}

/// What every node sees of a packet; for clients with affinity without their port, so that all
/// of a client's flows go one way.
#[inline(always)]
fn outside_hash(parsed: &Parsed, service: &Service) -> u32 {
    let port = if service.header.affinity_s == 0 {
        parsed.source_port
    } else {
        0
    };
    flow_hash(
        &parsed.source,
        port,
        &parsed.destination,
        parsed.destination_port,
    )
}

/// Where the packet whose key is in [`Work`] is to go.
pub(super) struct NewFlow {
    pub(super) address: Address,
    pub(super) port: u16,
    pub(super) service: u32,
    pub(super) masquerade: bool,
    pub(super) flags: u16,
}

enum Inserted {
    Yes,
    Collides,
    Full,
}

impl NewFlow {
    /// Adds the flow's entries, in the place of those of another that is over where that is in the
    /// way; none stays if one can't be added.
    #[inline(always)]
    fn insert(&self, maps: &impl Maps, work: &mut Work) -> Inserted {
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
            let (_, id) = old.owner();
            let (vip, vip_port) = old.target();
            forget_masquerade(maps, other, id);
            forget_request(maps, other, key, &vip, vip_port, id);
            set_reply(other, key, &self.address, self.port);
            is_there = maps.insert_flow(other, value, Insert::Any);
        }
        if self.insert_rest(maps, work, is_there) {
            Inserted::Yes
        } else {
            Inserted::Full
        }
    }

    /// Adds the flow's entries where no other is in the way; none stays, and false, if one can't be
    /// added.
    #[inline(always)]
    pub(super) fn insert_new(&self, maps: &impl Maps, work: &mut Work) -> bool {
        self.insert_reply(maps, work) && self.insert_rest(maps, work, true)
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
