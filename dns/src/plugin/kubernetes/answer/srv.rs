use std::net::IpAddr;

use super::{Below, fixed, pointer};
use crate::plugin::kubernetes::index::{Answers, Endpoints, Group, PortFilter, Selection, Target};
use crate::wire::{Reply, Rtype, Section};

/// Priority, weight and port.
const NUMBERS_OCTETS: usize = 6;
/// Owner (a pointer), type, class, TTL, length, and those.
const BEFORE_TARGET_OCTETS: usize = 12 + NUMBERS_OCTETS;

/// What an answer to an SRV question is made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::plugin::kubernetes) struct Srv<'a> {
    /// Names of targets end so.
    pub(in crate::plugin::kubernetes) below: Below<'a>,
    /// Ports that are meant.
    pub(in crate::plugin::kubernetes) filter: PortFilter<'a>,
    /// Seconds.
    pub(in crate::plugin::kubernetes) ttl: u32,
    /// Octets that the reply may have: what would be cut off anyway is not written.
    pub(in crate::plugin::kubernetes) limit: usize,
}

/// The ports of a Service with its own addresses; says whether any is meant.
pub(in crate::plugin::kubernetes) fn push_cluster_srv(
    reply: &mut Reply,
    answers: &Answers,
    srv: Srv<'_>,
) -> bool {
    let Some(service) = &answers.service else {
        return false;
    };
    let meant = |name: &str, protocol| srv.filter.matches(name, protocol);
    let ports = service.ports.iter();
    let count = ports
        .filter(|port| meant(&port.name, port.protocol))
        .count();
    if count == 0 {
        return service.ports.is_empty() && srv.filter.is_any();
    }
    let ips = &service.cluster_ips;
    if ips.is_empty() {
        return true;
    }
    let weight = weight(count * ips.len());
    let first_target = reply.octets().len() + BEFORE_TARGET_OCTETS;
    for (at, port) in service.ports.iter().enumerate() {
        if !meant(&port.name, port.protocol) {
            continue;
        }
        let mut earlier = service.ports.iter().take(at);
        let seen =
            earlier.any(|other| other.port == port.port && meant(&other.name, other.protocol));
        if !seen {
            push_srv(reply, srv, &[], weight, port.port);
        }
    }
    for (at, address) in ips.iter().enumerate() {
        if !ips.iter().take(at).any(|earlier| earlier == address) {
            push_glue(reply, srv, &[], pointer(first_target), *address);
        }
    }
    true
}

/// The ports of endpoints; says whether any endpoint is meant.
pub(in crate::plugin::kubernetes) fn push_endpoint_srv(
    reply: &mut Reply,
    endpoints: &Endpoints,
    selection: Selection<'_>,
    srv: Srv<'_>,
) -> bool {
    let pairs = endpoints
        .groups()
        .iter()
        .map(|group| group.matching_ports(srv.filter) * group.len(selection));
    let pairs: usize = pairs.sum();
    if pairs == 0 {
        return false;
    }
    let weight = weight(pairs);
    let first = reply.octets().len();
    for (at, group) in meant(endpoints, srv.filter) {
        for target in group.targets(selection) {
            let label = target.label();
            for port in new_ports(endpoints, at, &target, srv.filter) {
                push_srv(reply, srv, label.as_bytes(), weight, port);
            }
        }
        if is_full(reply, srv) {
            return true;
        }
    }
    let mut record = first;
    for (at, group) in with_numbers(endpoints, srv.filter) {
        for target in group.targets(selection) {
            let label = target.label();
            let own = new_ports(endpoints, at, &target, srv.filter).count();
            let owner = pointer(record + BEFORE_TARGET_OCTETS).filter(|_| own > 0);
            for _ in 0..own {
                let octets = srv.below.octets(label.as_bytes()).unwrap_or_default();
                record += BEFORE_TARGET_OCTETS + octets;
            }
            for address in target.addresses() {
                if !is_earlier(endpoints, at, label.as_bytes(), address, srv.filter) {
                    push_glue(reply, srv, label.as_bytes(), owner, address);
                }
            }
            if is_full(reply, srv) {
                return true;
            }
        }
    }
    true
}

fn is_full(reply: &mut Reply, srv: Srv<'_>) -> bool {
    let full = reply.octets().len() > srv.limit;
    // What is left out here, finishing the reply would cut off.
    reply.truncated |= full;
    full
}

/// The groups that have ports that are meant, numbered. Endpoints without ports have no
/// records, though they count for the weight.
fn meant<'a>(
    endpoints: &'a Endpoints,
    filter: PortFilter<'a>,
) -> impl Iterator<Item = (usize, &'a Group)> {
    let groups = endpoints.groups().iter().enumerate();
    groups.filter(move |(_, group)| group.port_numbers(filter).next().is_some())
}

/// Those of them that have numbers: endpoints without ports are meant by a Service's own name,
/// but there is nothing to say of them, and so no address to add.
fn with_numbers<'a>(
    endpoints: &'a Endpoints,
    filter: PortFilter<'a>,
) -> impl Iterator<Item = (usize, &'a Group)> {
    let groups = meant(endpoints, filter);
    groups.filter(move |(_, group)| group.port_numbers(filter).next().is_some())
}

/// The numbers of a target's ports in group `at` that no group before has for it.
fn new_ports<'a>(
    endpoints: &'a Endpoints,
    at: usize,
    target: &Target<'a>,
    filter: PortFilter<'a>,
) -> impl Iterator<Item = u16> {
    let target = *target;
    let group = endpoints.groups().get(at);
    let numbers = group
        .into_iter()
        .flat_map(move |group| group.port_numbers(filter));
    numbers.filter(move |number| {
        let mut earlier = endpoints.groups().iter().take(at);
        !earlier.any(|other| {
            let label = target.label();
            let selection = Selection::called(label.as_bytes());
            other.port_numbers(filter).any(|port| port == *number) && other.len(selection) > 0
        })
    })
}

/// Whether a group before has told of this address of this name already.
fn is_earlier(
    endpoints: &Endpoints,
    at: usize,
    label: &[u8],
    address: IpAddr,
    filter: PortFilter<'_>,
) -> bool {
    let mut earlier = with_numbers(endpoints, filter).take_while(|(index, _)| *index < at);
    earlier.any(|(_, other)| other.has(Selection::called(label), address))
}

/// Each of `count` targets gets the same part of 100, at least 1.
fn weight(count: usize) -> u16 {
    let weight = 100_usize.checked_div(count).unwrap_or(100).max(1);
    u16::try_from(weight).unwrap_or(1)
}

/// The target is written in full: RFC 2782 forbids compression, and some clients read none.
fn push_srv(reply: &mut Reply, srv: Srv<'_>, label: &[u8], weight: u16, port: u16) {
    let Some(octets) = srv.below.octets(label) else {
        return;
    };
    let fixed = fixed(Rtype::SRV, srv.ttl, NUMBERS_OCTETS + octets);
    let ([w0, w1], [p0, p1]) = (weight.to_be_bytes(), port.to_be_bytes());
    let mut head = [0; BEFORE_TARGET_OCTETS];
    head[..2].copy_from_slice(&[0xC0, 0x0C]);
    head[2..12].copy_from_slice(&fixed);
    head[12..].copy_from_slice(&[0, 0, w0, w1, p0, p1]);
    reply.push_wire(Section::Answer, 1, &head);
    srv.below.push(reply, Section::Answer, label);
}

/// The address of a target, owned by the target where that lies near enough for a pointer.
fn push_glue(
    reply: &mut Reply,
    srv: Srv<'_>,
    label: &[u8],
    owner: Option<[u8; 2]>,
    address: IpAddr,
) {
    if srv.below.octets(label).is_none() {
        return;
    }
    let rtype = match address {
        IpAddr::V4(_) => Rtype::A,
        IpAddr::V6(_) => Rtype::AAAA,
    };
    match owner {
        Some(owner) => {
            super::push_address(reply, Section::Additional, &owner, rtype, srv.ttl, address);
        }
        None => {
            srv.below.push(reply, Section::Additional, label);
            super::push_address(reply, Section::Additional, &[], rtype, srv.ttl, address);
        }
    }
}
