//! Translation at the socket: a program's VIP becomes an endpoint once, and its packets need no
//! further work.
//!
//! Nothing is masqueraded here: the answer goes straight back to the socket's own address.

use crate::Maps;
use crate::layout::{
    Address, AffinityKey, Connected, Endpoint, Frontend, Kind, Reason, SCTP, Settings, SocketEntry,
    SocketRecord, TCP, UDP, address_flags, header_flags, settings_flags,
};
use crate::maps::Refusal;
use crate::policy::{Choice, Client, Refused, Sender, choose, has_ranges};
use crate::select::select;
use crate::service::{Service, frontend_at, position, settings};

/// The socket that makes a call.
pub trait Socket {
    /// The cookie of its network namespace.
    fn namespace(&self) -> u64;
    /// Whether its network namespace is to be left alone.
    fn is_opted_out(&self, namespace: u64) -> bool;
    /// What is remembered of it; made if it is not there. `None` if there is no memory.
    fn record(&mut self) -> Option<&mut SocketRecord>;
    /// What is remembered of it; `None` if nothing was before.
    fn known_record(&mut self) -> Option<&mut SocketRecord>;
    /// Remembers what it is connected to; `None` where that is something of its own choice.
    fn connected(&self, to: Option<&Connected>);
}

/// A call that names a destination: connect, or sendmsg on an unconnected socket.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The destination.
    pub address: Address,
    /// Its port, in network byte order.
    pub port: u16,
    /// The number of the protocol.
    pub protocol: u8,
    /// It only sends: the socket stays unconnected, and may be asked again.
    pub is_send: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// None of ours.
    Untouched,
    /// The destination becomes this.
    To(Endpoint),
    /// Refused: ECONNREFUSED.
    Refuse,
    /// Not permitted (EPERM), where a packet would be dropped.
    Deny,
}

/// What a call hits.
struct Hit<'a> {
    frontend: Frontend,
    settings: &'a Settings,
    /// The socket is one of the node's own.
    is_host: bool,
    namespace: u64,
}

/// To be called where [`translate`] leaves a call alone: a socket that connects to something of
/// its own choice may have been connected to a VIP before.
///
/// It is not part of `translate`: beside these writes the compiler carries the endpoint that an
/// outcome does not have, which the verifier takes for reading what was never written.
#[inline(always)]
pub fn left_alone(socket: &mut impl Socket, call: &Call) {
    if call.is_send {
        return;
    }
    socket.connected(None);
    forget_sends(socket, call);
}

/// Decides on a call.
#[inline(always)]
pub fn translate(maps: &impl Maps, socket: &mut impl Socket, call: &Call) -> Outcome {
    let hit = match find(maps, socket, call) {
        Ok(Some(hit)) => hit,
        Ok(None) => return Outcome::Untouched,
        Err(refused) => return refuse(maps, call, 0, refused),
    };
    let index = hit.frontend.service;
    let Some(service) = Service::load(maps, index) else {
        return Outcome::Untouched;
    };
    let kind = Kind::from_number(hit.frontend.kind);
    let is_host = hit.is_host;
    if !is_host && is_for_the_device(&service, kind, hit.settings) {
        return Outcome::Untouched;
    }
    if is_host && has_ranges(&service, kind) && !service.has(header_flags::RANGES_INCLUDE_NODE) {
        return refuse(maps, call, index, Refused::Drop(Reason::SourceRange));
    }
    if call.is_send
        && let Some(endpoint) = used_before(maps, socket, call, &service)
    {
        return Outcome::To(endpoint);
    }
    let pods = settings_flags::PODS_BY_CIDR | settings_flags::PODS_BY_DEVICE;
    let client = Client {
        sender: if is_host {
            Sender::Node
        } else {
            Sender::LocalPod
        },
        detects_pods: hit.settings.flags & pods != 0,
        masquerade_all: false,
    };
    let choice = match choose(&service, kind, &client) {
        Ok(choice) => choice,
        Err(refused) => return refuse(maps, call, index, refused),
    };
    send_to_one(maps, socket, call, &service, &choice, hit.namespace)
}

#[inline(always)]
fn send_to_one(
    maps: &impl Maps,
    socket: &mut impl Socket,
    call: &Call,
    service: &Service,
    choice: &Choice,
    namespace: u64,
) -> Outcome {
    let index = service.header.service;
    let client = AffinityKey::by_namespace(namespace, index);
    let Some(endpoint) = select(maps, service, choice, &client, maps.random(), false) else {
        return Outcome::Untouched;
    };
    maps.count_connection(index, &endpoint, 0);
    if !call.is_send {
        forget_sends(socket, call);
        socket.connected(Some(&Connected {
            vip: call.address,
            endpoint: endpoint.address,
            vip_port: call.port,
            endpoint_port: endpoint.port,
            service: index,
            protocol: call.protocol,
            reserved: [0; 7],
        }));
    } else if let Some(record) = socket.record() {
        note(
            record,
            SocketEntry {
                vip: call.address,
                endpoint: endpoint.address,
                vip_port: call.port,
                endpoint_port: endpoint.port,
                service: index,
            },
        );
    }
    Outcome::To(endpoint)
}

/// The frontend a call names; an error where it names a port that a ClusterIP does not have.
#[inline(always)]
fn find<'a>(
    maps: &'a impl Maps,
    socket: &impl Socket,
    call: &Call,
) -> Result<Option<Hit<'a>>, Refused> {
    if !matches!(call.protocol, TCP | UDP | SCTP) {
        return Ok(None); // a ping socket: there is no port that could be unknown
    }
    let to_self = call.address.is_loopback() || call.address.is_unspecified();
    let flags = if to_self {
        address_flags::NODE_PORTS
    } else {
        if !maps.may_know(&call.address) {
            return Ok(None);
        }
        match maps.address(&call.address) {
            Some(flags) => flags,
            None => return Ok(None),
        }
    };
    let Some(settings) = settings(maps, call.address.is_v4()) else {
        return Ok(None);
    };
    // Most calls to the node's own addresses are for no Service: the rest is not asked for them.
    let frontend = frontend_at(maps, &call.address, call.port, call.protocol, flags);
    let is_refused = flags & address_flags::CLUSTER_IP != 0;
    if frontend.is_none() && !is_refused {
        return Ok(None);
    }
    let namespace = socket.namespace();
    let is_host = settings.host_cookie != 0 && settings.host_cookie == namespace;
    let left_alone = settings.flags & settings_flags::HOST_NAMESPACE_ONLY != 0 && !is_host;
    if left_alone || socket.is_opted_out(namespace) {
        return Ok(None);
    }
    if to_self && (!is_host || settings.flags & settings_flags::LOCALHOST_NODE_PORTS == 0) {
        return Ok(None);
    }
    match frontend {
        Some(frontend) => Ok(Some(Hit {
            frontend,
            settings,
            is_host,
            namespace,
        })),
        None => Err(Refused::Reject(Reason::UnknownPort)),
    }
}

/// What depends on the packet itself (its source address, the device it comes by), or on
/// masquerading, is left to the device programs.
#[inline(always)]
fn is_for_the_device(service: &Service, kind: Kind, settings: &Settings) -> bool {
    let has = |flag| settings.flags & flag != 0;
    if has(settings_flags::MASQUERADE_ALL) {
        return true;
    }
    match kind {
        Kind::ClusterIp => false,
        Kind::External | Kind::LoadBalancer => {
            has_ranges(service, kind)
                || (has(settings_flags::PODS_BY_DEVICE)
                    && service.has(header_flags::EXTERNAL_LOCAL))
        }
    }
}

/// The endpoint an unconnected UDP socket was given for this VIP, as long as that serves: to
/// its peer, datagrams from one socket are one flow.
#[inline(always)]
fn used_before(
    maps: &impl Maps,
    socket: &mut impl Socket,
    call: &Call,
    service: &Service,
) -> Option<Endpoint> {
    if call.protocol != UDP {
        return None;
    }
    let record = socket.record()?;
    for entry in &record.entries {
        if entry.service == service.header.service
            && entry.vip_port == call.port
            && entry.vip == call.address
        {
            let endpoint = Endpoint::new(entry.endpoint, entry.endpoint_port);
            return position(maps, service.serving(), &endpoint).map(|_| endpoint);
        }
    }
    None
}

#[inline(always)]
fn refuse(maps: &impl Maps, call: &Call, service: u32, refused: Refused) -> Outcome {
    let (reason, told) = match refused {
        Refused::Reject(reason) => (reason, true),
        Refused::Drop(reason) => (reason, false),
    };
    maps.refused(&Refusal {
        reason,
        told,
        source: Address::ANY,
        destination: call.address,
        source_port: 0,
        destination_port: call.port,
        protocol: call.protocol,
        service,
    });
    if told { Outcome::Refuse } else { Outcome::Deny }
}

/// Remembers a destination: over an older one for the same VIP, else over the oldest.
#[inline(always)]
pub fn note(record: &mut SocketRecord, entry: SocketEntry) {
    for old in &mut record.entries {
        if old.vip_port == entry.vip_port && old.vip == entry.vip && old.service != 0 {
            *old = entry;
            return;
        }
    }
    let at = usize::try_from(record.next % 8).unwrap_or(0);
    if let Some(oldest) = record.entries.get_mut(at) {
        *oldest = entry;
    }
    record.next = record.next.wrapping_add(1);
}

/// Forgets what a socket sent to that connects now: it has one peer, and that is another. Only
/// sockets of UDP send without being connected.
#[inline(always)]
fn forget_sends(socket: &mut impl Socket, call: &Call) {
    if call.protocol == UDP
        && let Some(record) = socket.known_record()
    {
        for entry in &mut record.entries {
            entry.service = 0;
        }
    }
}

/// The VIP behind the peer of a connected socket, as the program knows it.
#[inline(always)]
#[must_use]
pub fn restore_connected(to: &Connected, peer: &Address, port: u16) -> Option<(Address, u16)> {
    (to.endpoint_port == port && to.endpoint == *peer).then_some((to.vip, to.vip_port))
}

/// The VIP behind a peer of a socket that sends without being connected.
#[inline(always)]
#[must_use]
pub fn restore(record: &SocketRecord, peer: &Address, port: u16) -> Option<(Address, u16)> {
    for entry in &record.entries {
        if entry.service != 0 && entry.endpoint_port == port && entry.endpoint == *peer {
            return Some((entry.vip, entry.vip_port));
        }
    }
    None
}
