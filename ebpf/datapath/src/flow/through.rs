//! Packets that need not go through the stack: both hooks at once.
//!
//! Where the operator says so, a packet of ours that would only be forwarded is translated as at
//! both hooks and sent out by the device the kernel's routes name. The entries are those of the
//! other way, so either way can go on with what the other began. What the stack has to look at
//! (the node's own, parts of datagrams, options, a TTL that ends, a packet too large for the way,
//! a neighbour that is not known yet) goes its usual way.

use super::masquerade::{address_of, masquerade};
use super::{Place, Verdict, Work, both, ingress, set_key, tell, touch};
use crate::Maps;
use crate::layout::{Address, Hook, device_flags, flow_flags};
use crate::parse::{Fragment, Parsed};

/// What the kernel's routing says.
pub trait Routes {
    /// The index of the device by which the kernel would forward this packet now; `None` where
    /// it would not, or where only the stack can.
    fn route(&mut self, parsed: &Parsed) -> Option<u32>;
    /// The port of a bridge, which was the answer of [`Routes::route`], behind which the next hop is;
    /// `None` where it is not known, or is not in another network namespace.
    fn port(&mut self, bridge: u32) -> Option<u32>;
}

/// What becomes of a packet that comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Through {
    /// It goes on to the stack as it is.
    #[default]
    Pass,
    /// It goes on to the stack with the ends [`Work::new`].
    Rewrite,
    /// It is lost.
    Drop,
    /// It goes out by [`Work::device`] with the ends [`Work::new`], one hop further.
    Send,
    /// The same, and it can be handed to the other end of [`Work::near`], which is in another network
    /// namespace.
    HandOver,
}

/// What is to be entered into the table of flows once it is known where a packet goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Task {
    /// Nothing.
    #[default]
    Nothing,
    /// The port that its entry waits for.
    Masquerade,
    /// The flow it opens, by entries that say both ends.
    Open,
    /// The flow it opens, by entries of the stack's way.
    OpenSplit,
    /// The entry that egress will look for, beside one that says both ends.
    Split,
}

/// A packet that comes in from a device, and may go out at once: the first part. What the others
/// need of it is in [`Work`]: so the verifier, which follows each way through one part, does not
/// follow each of them through the next as well. `forwards`: the second part is given routes.
#[inline(always)]
pub fn arrive(maps: &impl Maps, work: &mut Work, place: &Place, forwards: bool) {
    work.may_leave = forwards && may_leave(&work.parsed);
    work.arrived = ingress(maps, work, place);
    if work.arrived == Verdict::Pass {
        work.to.address = work.parsed.destination;
        work.to.port = work.parsed.destination_port;
    }
}

/// The second part: where it goes, [`Work::through`]. Without routes that is the stack. It has few
/// branches, for the verifier's sake.
#[inline(always)]
pub fn leave(maps: &impl Maps, routes: Option<&mut impl Routes>, work: &mut Work, place: &Place) {
    work.task = Task::Nothing;
    work.through = way(maps, routes, work, place);
}

#[inline(always)]
fn way(
    maps: &impl Maps,
    routes: Option<&mut impl Routes>,
    work: &mut Work,
    place: &Place,
) -> Through {
    let Some(routes) = routes else {
        // Most packets are none of ours: nothing is worked out for them.
        if work.arrived == Verdict::Rewrite {
            work.set_ends(Hook::Ingress);
        }
        return stay(work);
    };
    work.old.set(&work.parsed);
    work.parsed.destination = work.to.address;
    work.parsed.destination_port = work.to.port;
    work.new.set(&work.parsed);
    // Port 0 is that of refusals: the node's own.
    if work.arrived == Verdict::Drop || !work.may_leave || work.to.port == 0 {
        return stay(work);
    }
    let flow = if work.is_unmasked || work.is_both || work.opening.is_some {
        None
    } else {
        set_key(work, Hook::Egress);
        let flow = maps.flow(&work.key);
        if flow.is_none() && work.arrived == Verdict::Pass {
            return Through::Pass; // none of ours
        }
        flow
    };
    let Some(device) = routes.route(&work.parsed) else {
        return stay(work);
    };
    work.device = device;
    let out = maps.device(device);
    let flags = out.map_or(0, |out| out.flags);
    // It may be an answer that connection tracking has turned to the client before (behind a bridge),
    // and will give another source than the flow's, whose answers look the same here. Where the
    // stack sends it out they do not.
    if flow.is_some() && flags & device_flags::RULES != 0 {
        return stay(work);
    }
    if work.is_both {
        work.new.source = work.from;
    } else if work.opening.is_some {
        work.task = Task::Open;
        work.own = match out {
            Some(out) => address_of(out, &work.parsed),
            None => Address::ANY,
        };
    } else if let Some(flow) = flow {
        touch(maps, flow, &work.parsed, place);
        if flow.flags() & flow_flags::PENDING == 0 {
            (work.new.source.address, work.new.source.port) = flow.target();
        } else {
            work.task = Task::Masquerade;
        }
    }
    work.near = if flags & device_flags::PEER != 0 {
        device
    } else if flags & device_flags::BRIDGE != 0
        && let Some(port) = routes.port(device)
    {
        port
    } else {
        return Through::Send;
    };
    Through::HandOver
}

/// The packet takes the stack's way, where each hook has to find an entry of its own.
#[inline(always)]
fn stay(work: &mut Work) -> Through {
    match work.arrived {
        Verdict::Pass => Through::Pass,
        Verdict::Drop => Through::Drop,
        Verdict::Rewrite => {
            if work.opening.is_some {
                work.task = Task::OpenSplit;
            } else if work.is_both {
                work.task = Task::Split;
            }
            Through::Rewrite
        }
    }
}

/// The third part: enters into the table of flows what has come out so far. Few packets need it.
#[inline(always)]
pub fn enter(maps: &impl Maps, work: &mut Work, place: &Place) {
    let out = Place {
        device: work.device,
        bytes: place.bytes,
    };
    let is_done = match work.task {
        Task::Nothing => return,
        Task::Split => both::split_for(maps, work),
        _ if !maps.forwards() => true, // does not come to pass, but the verifier can't know
        Task::OpenSplit => both::open_split(maps, work, place),
        Task::Open => both::open(maps, work, &out),
        Task::Masquerade => match maps.flow(&work.key) {
            Some(flow) => {
                let is_masqueraded = masquerade(maps, work, flow, &out) == Verdict::Rewrite;
                work.new.source = work.to;
                is_masqueraded
            }
            None => false, // it was removed meanwhile
        },
    };
    if !is_done {
        work.through = Through::Drop;
        tell(maps, work);
    }
}

/// What the stack need not look at.
#[inline(always)]
fn may_leave(parsed: &Parsed) -> bool {
    parsed.has_ports() && parsed.fragment == Fragment::Whole && parsed.is_plain() && parsed.hops > 1
}
