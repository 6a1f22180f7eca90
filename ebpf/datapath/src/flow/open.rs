//! New flows: which Service, and which endpoint.

use super::entries::{Inserted, NewFlow};
use super::masquerade::own_address;
use super::{Place, Verdict, Work, drop, note, rewrite};
use crate::Maps;
use crate::layout::{
    Address, AffinityKey, Endpoint, Frontend, Kind, RangeKey, Reason, SCTP, Settings, TCP,
    address_flags, device_flags, flow_flags, header_flags, settings_flags,
};
use crate::parse::{Fragment, Parsed};
use crate::policy::{Choice, Client, Refused, Sender, choose, has_ranges};
use crate::select::{flow_hash, pick_another, select};
use crate::service::{Service, frontend_at, settings};

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
    if !matches!(nobody.insert(maps, work, true), Inserted::Yes) {
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
        && waits(work, choice, frontend.service, &endpoint)
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
        match flow.insert(maps, work, true) {
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
/// which device it goes: it is masqueraded. Whether its client has another flow with the endpoint,
/// from the same port, is not looked for: sent on at once, each has a port of its own.
#[inline(always)]
fn waits(work: &mut Work, choice: &Choice, service: u32, endpoint: &Endpoint) -> bool {
    if !is_masqueraded(choice, endpoint, &work.parsed)
        || (work.parsed.protocol == SCTP && endpoint.port != work.parsed.destination_port)
    {
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
