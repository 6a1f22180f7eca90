//! Translation of packets at devices, both ways.
//!
//! A packet that comes in may get another destination, one that goes out another source; in
//! between the kernel routes it, filters it and looks after its size, as it does with any
//! other. A flow from client C to VIP V, sent to endpoint E, has these entries:
//!
//! | entry | met at | packet as it comes | becomes |
//! |---|---|---|---|
//! | request | ingress | C → V | C → **E** |
//! | reply | egress | E → C | **V** → C |
//! | masquerade | egress | C → E | **N** → E |
//! | unmasquerade | ingress | E → N | E → **C** |
//!
//! The last two exist where policy hides the client; N, an address of the node with a port of
//! ours, is chosen when the first packet goes out, since only then is it known where.
//!
//! A masqueraded flow whose packets are sent on without the stack has two, which say both ends:
//! C → V becomes **N** → **E**, and E → N becomes **V** → **C**.
//!
//! What is refused is sent to port 0 of the node, where nobody can listen: the kernel's own RST
//! or "port unreachable" goes back by the same entries, within the kernel's own limits.

mod both;
mod entries;
mod masquerade;
mod open;
mod through;

pub(crate) use both::split;
pub use through::{Routes, Through, arrive, enter, leave};

use through::Task;

use crate::Maps;
use crate::layout::{
    Address, Endpoint, FlowKey, FlowValue, FragmentKey, FragmentPorts, Hook, Reason, TCP,
    address_flags, flow_flags,
};
use crate::maps::{FlowRef, Refusal, SEEN_RESOLUTION_NS};
use crate::parse::{Fragment, Parsed};
use crate::rewrite::{Ends, Target};
use crate::service::{Service, position};
use both::Opening;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// It goes on as it is.
    #[default]
    Pass,
    /// Its destination (at ingress) or source (at egress) becomes [`Work::to`].
    Rewrite,
    /// It is lost.
    Drop,
}

/// Where a packet is met.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The device's index.
    pub device: u32,
    /// The packet's length from the IP header on.
    pub bytes: u32,
}

/// What is worked out of one packet. It is too large for the 512 bytes of a program's stack, so
/// programs keep it in memory of their CPU. All bytes zero is a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// The packet.
    pub parsed: Parsed,
    /// What is put into it.
    pub to: Target,
    /// The ends it has.
    pub old: Ends,
    /// The ends it is to have.
    pub new: Ends,
    /// The packet an ICMP error quotes.
    pub(crate) quoted: Parsed,
    /// The entry the packet meets.
    pub(crate) key: FlowKey,
    /// Another entry of the same flow.
    pub(crate) other: FlowKey,
    /// What is written to an entry.
    pub(crate) value: FlowValue,
    /// The datagram of a fragment.
    fragment: FragmentKey,
    /// It may be sent on, as far as its header says.
    may_leave: bool,
    /// It has arrived, and no entry at egress can be about it.
    is_unmasked: bool,
    /// The entry it has met says both ends: the source becomes [`Work::from`].
    is_both: bool,
    /// What its source becomes.
    from: Target,
    /// What masquerading makes its source where it goes out.
    own: Address,
    /// The flow that it opens, which is entered once it is known where it goes.
    opening: Opening,
    /// What came out of its arrival.
    arrived: Verdict,
    /// What becomes of it.
    pub through: Through,
    /// What is to be entered for that.
    task: Task,
    /// The device it is sent out by.
    pub device: u32,
    /// The device whose other end it is handed to: that one, or a port of that bridge.
    pub near: u32,
    /// Why it is refused, if it is.
    noted: Noted,
}

/// A refusal that is still to be told of. That is done in one place only: written out at each
/// refusal, it would make the programs large and fill their stack.
#[derive(Clone, Copy, Debug)]
struct Noted {
    is_some: bool,
    told: bool,
    reason: Reason,
    service: u32,
}

impl Work {
    /// Works out the ends that a packet has, and those that it gets where its hook said
    /// [`Verdict::Rewrite`].
    #[inline(always)]
    pub const fn set_ends(&mut self, hook: Hook) {
        self.old.set(&self.parsed);
        self.new.set(&self.parsed);
        match hook {
            Hook::Ingress => self.new.destination = self.to,
            Hook::Egress => self.new.source = self.to,
        }
    }
}

impl Default for Noted {
    /// Nothing is refused.
    fn default() -> Self {
        Self {
            is_some: false,
            told: false,
            reason: Reason::NoLocalEndpoint,
            service: 0,
        }
    }
}

/// A packet that comes in from a device.
#[inline(always)]
fn ingress(maps: &impl Maps, work: &mut Work, place: &Place) -> Verdict {
    work.noted = Noted::default();
    work.is_unmasked = false;
    work.is_both = false;
    work.opening.is_some = false;
    let verdict = come_in(maps, work, place);
    tell(maps, work);
    verdict
}

#[inline(always)]
fn come_in(maps: &impl Maps, work: &mut Work, place: &Place) -> Verdict {
    if !maps.may_know(&work.parsed.destination) || !work.parsed.has_ports() {
        return Verdict::Pass;
    }
    if !find_ports(maps, work, Hook::Ingress) {
        // The node's own traffic may come in any order; what is only ours would go astray.
        return match maps.address(&work.parsed.destination) {
            Some(flags) if flags & address_flags::LOCAL == 0 => {
                drop(&mut work.noted, 0, Reason::UnknownFragment)
            }
            _ => Verdict::Pass,
        };
    }
    set_key(work, Hook::Ingress);
    if let Some(flow) = maps.flow(&work.key) {
        // The parts of a refused datagram stay together: the whole is what is answered.
        let is_start = work.parsed.fragment != Fragment::Later;
        let again = (flow.flags() & flow_flags::REFUSED != 0 && is_start)
            || (work.parsed.is_syn() && entries::is_over(maps, work, flow));
        if !again {
            touch(maps, flow, &work.parsed, place);
            let known = flow.flags();
            work.is_unmasked = known & flow_flags::UNMASKED != 0;
            if known & flow_flags::BOTH != 0 {
                work.is_both = true;
                (work.from.address, work.from.port) = flow.from();
            }
            let (address, port) = flow.target();
            return rewrite(&mut work.to, &address, port);
        }
        entries::forget(maps, work, flow);
    }
    match maps.address(&work.parsed.destination) {
        Some(flags) => open::open(maps, work, flags, place),
        None => Verdict::Pass,
    }
}

/// A packet that goes out to a device.
#[inline(always)]
pub fn egress(maps: &impl Maps, work: &mut Work, place: &Place) -> Verdict {
    work.noted = Noted::default();
    let verdict = go_out(maps, work, place);
    tell(maps, work);
    verdict
}

#[inline(always)]
fn go_out(maps: &impl Maps, work: &mut Work, place: &Place) -> Verdict {
    if !work.parsed.has_ports() || !find_ports(maps, work, Hook::Egress) {
        return Verdict::Pass;
    }
    set_key(work, Hook::Egress);
    match maps.flow(&work.key) {
        Some(flow) => change_source(maps, work, flow, place),
        None => Verdict::Pass,
    }
}

/// A packet that goes out and is part of a flow.
#[inline(always)]
fn change_source(maps: &impl Maps, work: &mut Work, flow: FlowRef, place: &Place) -> Verdict {
    touch(maps, flow, &work.parsed, place);
    if flow.flags() & flow_flags::PENDING != 0 {
        return masquerade::masquerade(maps, work, flow, place);
    }
    let (address, port) = flow.target();
    rewrite(&mut work.to, &address, port)
}

/// Works out which entry the packet meets.
#[inline(always)]
fn set_key(work: &mut Work, hook: Hook) {
    let (key, parsed) = (&mut work.key, &work.parsed);
    key.source = parsed.source;
    key.destination = parsed.destination;
    key.source_port = parsed.source_port;
    key.destination_port = parsed.destination_port;
    key.protocol = parsed.protocol;
    key.hook = hook.number();
    key.reserved = 0;
}

#[inline(always)]
fn touch(maps: &impl Maps, flow: FlowRef, parsed: &Parsed, place: &Place) {
    // Each packet passes one of these two entries, whatever others it passes.
    let known = flow.flags();
    let (service, _) = flow.owner();
    if known & flow_flags::REQUEST != 0 {
        let (address, port) = flow.target();
        maps.count_packet(service, &address, port, place.bytes);
    } else if known & flow_flags::REPLY != 0 {
        maps.count_packet(service, &parsed.source, parsed.source_port, place.bytes);
    }
    let mut flags = 0;
    let now_ns = maps.now_ns();
    // One question and its answer are no stream: where a flow is nothing but that, it may be
    // forgotten soon.
    let is_stream = if parsed.protocol == TCP {
        !parsed.is_syn()
    } else {
        flow.age_ns(now_ns) > SEEN_RESOLUTION_NS
    };
    if is_stream {
        flags |= flow_flags::STREAM;
    }
    if parsed.is_fin() {
        flags |= flow_flags::FIN;
    }
    if parsed.is_rst() {
        flags |= flow_flags::RST;
    }
    flow.touch(flags, now_ns);
}

/// Sees that the packet has its datagram's ports, which a later fragment does not carry itself;
/// false if the first fragment was not seen.
#[inline(always)]
fn find_ports(maps: &impl Maps, work: &mut Work, hook: Hook) -> bool {
    let parsed = &mut work.parsed;
    if parsed.fragment == Fragment::Whole {
        return true;
    }
    work.fragment = FragmentKey {
        source: parsed.source,
        destination: parsed.destination,
        id: parsed.id,
        protocol: parsed.protocol,
        hook: hook.number(),
        reserved: 0,
    };
    if parsed.fragment == Fragment::First {
        let ports = FragmentPorts {
            source: parsed.source_port,
            destination: parsed.destination_port,
        };
        maps.remember_fragment(&work.fragment, &ports);
        return true;
    }
    let Some(ports) = maps.fragment(&work.fragment) else {
        return false;
    };
    parsed.source_port = ports.source;
    parsed.destination_port = ports.destination;
    true
}

/// Whether an endpoint may still be given to new connections of a Service, from the list it was
/// chosen from.
#[inline(always)]
fn is_offered(
    maps: &impl Maps,
    service: &Service<'_>,
    address: &Address,
    port: u16,
    is_local: bool,
) -> bool {
    let endpoint = Endpoint::new(*address, port);
    let list = if is_local {
        service.local()
    } else {
        service.cluster()
    };
    position(maps, list, &endpoint).is_some()
}

/// Has a packet changed.
#[inline(always)]
fn rewrite(to: &mut Target, address: &Address, port: u16) -> Verdict {
    to.address = *address;
    to.port = port;
    Verdict::Rewrite
}

/// Loses a packet, and notes why.
#[inline(always)]
fn drop(noted: &mut Noted, service: u32, reason: Reason) -> Verdict {
    note(noted, service, reason, false);
    Verdict::Drop
}

#[inline(always)]
fn note(noted: &mut Noted, service: u32, reason: Reason, told: bool) {
    noted.is_some = true;
    noted.told = told;
    noted.reason = reason;
    noted.service = service;
}

/// Tells of a refusal that was noted.
#[inline(always)]
fn tell(maps: &impl Maps, work: &Work) {
    let Work { parsed, noted, .. } = work;
    if !noted.is_some {
        return;
    }
    maps.refused(&Refusal {
        reason: noted.reason,
        told: noted.told,
        source: parsed.source,
        destination: parsed.destination,
        source_port: parsed.source_port,
        destination_port: parsed.destination_port,
        protocol: parsed.protocol,
        service: noted.service,
    });
}
