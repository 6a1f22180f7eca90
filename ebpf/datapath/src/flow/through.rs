//! Packets that need not go through the stack: both hooks at once.
//!
//! Where the operator says so, a packet of ours that would only be forwarded is translated as at
//! both hooks and sent out by the device the kernel's routes name. The entries are those of the
//! other way, so either way can go on with what the other began. What the stack has to look at
//! (the node's own, parts of datagrams, options, a TTL that ends, a packet too large for the way,
//! a neighbour that is not known yet) goes its usual way.

use super::{Place, Verdict, Work, change_source, ingress, set_key, tell};
use crate::Maps;
use crate::layout::{Hook, device_flags};
use crate::parse::{Fragment, Parsed};

/// What the kernel's routing says.
pub trait Routes {
    /// The index of the device by which the kernel would forward this packet now; `None` where
    /// it would not, or where only the stack can.
    fn route(&mut self, parsed: &Parsed) -> Option<u32>;
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
    /// The same, and it can be handed to the device at the other end, which is in another network
    /// namespace.
    HandOver,
}

/// A packet that comes in from a device, and may go out at once: the first half. What the second
/// needs of it is in [`Work`]: so the verifier, which follows each way through the first, does not
/// follow each of them through the second as well.
#[inline(always)]
pub fn arrive(maps: &impl Maps, work: &mut Work, place: &Place) {
    work.arrived = ingress(maps, work, place);
    if work.arrived == Verdict::Pass {
        work.to.address = work.parsed.destination;
        work.to.port = work.parsed.destination_port;
    }
}

/// The second half: where it goes, [`Work::through`]. Without routes that is the stack. It has few
/// branches, for the verifier's sake.
#[inline(always)]
pub fn leave(maps: &impl Maps, routes: Option<&mut impl Routes>, work: &mut Work, place: &Place) {
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
    if work.arrived == Verdict::Drop || !may_leave(&work.parsed) {
        return stay(work);
    }
    let flow = if work.is_unmasked {
        None
    } else {
        set_key(work, Hook::Egress);
        maps.flow(&work.key)
    };
    if flow.is_none() && work.arrived == Verdict::Pass {
        return Through::Pass; // none of ours
    }
    let Some(device) = routes.route(&work.parsed) else {
        return stay(work);
    };
    if let Some(flow) = flow {
        let out = Place {
            device,
            bytes: place.bytes,
        };
        let verdict = change_source(maps, work, flow, &out);
        tell(maps, work);
        match verdict {
            Verdict::Drop => return Through::Drop,
            Verdict::Rewrite => work.new.source = work.to,
            Verdict::Pass => {}
        }
    }
    work.device = device;
    match maps.device(device) {
        Some(device) if device.flags & device_flags::PEER != 0 => Through::HandOver,
        _ => Through::Send,
    }
}

/// What the stack need not look at. Port 0 is that of refusals: the node's own.
#[inline(always)]
fn may_leave(parsed: &Parsed) -> bool {
    parsed.has_ports()
        && parsed.fragment == Fragment::Whole
        && parsed.is_plain()
        && parsed.hops > 1
        && parsed.destination_port != 0
}

#[inline(always)]
fn stay(work: &Work) -> Through {
    match work.arrived {
        Verdict::Pass => Through::Pass,
        Verdict::Rewrite => Through::Rewrite,
        Verdict::Drop => Through::Drop,
    }
}
