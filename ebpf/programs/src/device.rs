//! Programs at devices, for packets that come in and go out; with and without an Ethernet
//! header.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use switchyard_datapath::flow::{Place, Through, Verdict, Work, arrive, egress, enter, leave};
use switchyard_datapath::icmp;
use switchyard_datapath::layout::Hook;
use switchyard_datapath::parse::parse;
use switchyard_datapath::rewrite::rewrite;

use crate::globals::forwards;
#[cfg(feature = "log")]
use crate::maps::Done;
use crate::maps::{KernelMaps, WORK};
use crate::route::Road;
use crate::skb::Skb;

/// The next program of the device, or the stack.
const NEXT: i32 = -1;
pub(crate) const SHOT: i32 = 2;
/// The packet is for this machine, by its link layer's address.
const PACKET_HOST: u32 = 0;
const ETHERNET: u32 = 14;

#[classifier]
#[cfg_attr(feature = "log", inline(always))]
fn in_ethernet(context: TcContext) -> i32 {
    meet(&context, Hook::Ingress, ETHERNET)
}

#[classifier]
#[cfg_attr(feature = "log", inline(always))]
fn out_ethernet(context: TcContext) -> i32 {
    meet(&context, Hook::Egress, ETHERNET)
}

#[classifier]
#[cfg_attr(feature = "log", inline(always))]
fn in_plain(context: TcContext) -> i32 {
    meet(&context, Hook::Ingress, 0)
}

#[classifier]
#[cfg_attr(feature = "log", inline(always))]
fn out_plain(context: TcContext) -> i32 {
    meet(&context, Hook::Egress, 0)
}

/// Translates a packet; what is malformed or none of ours goes on untouched.
#[inline(always)]
fn meet(context: &TcContext, hook: Hook, ip: u32) -> i32 {
    if hook == Hook::Egress && was_sent(context) {
        return NEXT;
    }
    // SAFETY: fields of the kernel's context.
    let (protocol, device) = unsafe { ((*context.skb.skb).protocol, (*context.skb.skb).ifindex) };
    let mut packet = Skb(context);
    let ethertype = u16::from_be(protocol as u16);
    let Some(work) = work_of_this_cpu() else {
        return NEXT;
    };
    if parse(&packet, ip, ethertype, &mut work.parsed).is_none() {
        return NEXT;
    }
    let maps = KernelMaps::at(device);
    if work.parsed.is_icmp() {
        return match icmp::translate(&maps, &mut packet, work, hook) {
            icmp::Outcome::Pass => NEXT,
            icmp::Outcome::Drop => SHOT,
        };
    }
    match hook {
        Hook::Ingress => {
            arrive(&maps, work, &place(context, ip), may_forward(context, ip));
            #[cfg(feature = "log")]
            if maps.done.get() == Done::Opened {
                crate::log::opened(work);
            }
            leave_or_stay(context, ip)
        }
        Hook::Egress => {
            let verdict = egress(&maps, work, &place(context, ip));
            #[cfg(feature = "log")]
            if maps.done.get() == Done::Masqueraded {
                crate::log::masqueraded(work);
            }
            match verdict {
                Verdict::Pass => NEXT,
                Verdict::Drop => SHOT,
                Verdict::Rewrite => {
                    work.set_ends(hook);
                    let is_done = rewrite(&mut packet, &work.parsed, &work.old, &work.new, false);
                    if is_done { NEXT } else { SHOT }
                }
            }
        }
    }
}

/// Sends a packet that has arrived where it is to go. Everything is looked up anew: so it is to
/// the verifier whatever it was before.
#[inline(always)]
fn leave_or_stay(context: &TcContext, ip: u32) -> i32 {
    let Some(work) = work_of_this_cpu() else {
        return SHOT;
    };
    let place = place(context, ip);
    let maps = KernelMaps::at(place.device);
    let mut road = Road {
        context,
        device: place.device,
    };
    let routes = may_forward(context, ip).then_some(&mut road);
    leave(&maps, routes, work, &place);
    enter_flow(place.device, place.bytes);
    finish(context, &road)
}

/// Enters what has come out so far. With lines for the log there is no stack left for it in its
/// caller, nor for a line of its own: what it refuses is counted only.
#[cfg_attr(feature = "log", inline(never))]
#[cfg_attr(not(feature = "log"), inline(always))]
fn enter_flow(device: u32, bytes: u32) {
    if let Some(work) = work_of_this_cpu() {
        enter(&KernelMaps::quiet(device), work, &Place { device, bytes });
    }
}

/// Whether packets may be sent on at once. Only what has a link layer's header can be sent out by
/// another device that has one. Programs that log have no stack left for it: with them packets
/// go through the node's own.
#[inline(always)]
fn may_forward(context: &TcContext, ip: u32) -> bool {
    let has_room = !cfg!(feature = "log");
    has_room && ip == ETHERNET && forwards() && is_for_us(context)
}

/// Changes and sends a packet as it was decided. The work is looked up anew here, too.
#[inline(always)]
fn finish(context: &TcContext, road: &Road<'_>) -> i32 {
    let Some(work) = work_of_this_cpu() else {
        return SHOT;
    };
    let is_sent = match work.through {
        Through::Pass => return NEXT,
        Through::Drop => return SHOT,
        Through::Rewrite => false,
        Through::Send | Through::HandOver => true,
    };
    let mut packet = Skb(context);
    if !rewrite(&mut packet, &work.parsed, &work.old, &work.new, is_sent) {
        return SHOT;
    }
    match work.through {
        Through::Send => {
            mark_sent(context, SENT);
            road.send(work.device)
        }
        Through::HandOver => road.hand_over(work.near),
        _ => NEXT,
    }
}

#[inline(always)]
fn place(context: &TcContext, ip: u32) -> Place {
    // SAFETY: fields of the kernel's context.
    let (device, bytes) = unsafe { ((*context.skb.skb).ifindex, (*context.skb.skb).len) };
    Place {
        device,
        bytes: bytes.saturating_sub(ip),
    }
}

#[inline(always)]
fn work_of_this_cpu<'a>() -> Option<&'a mut Work> {
    // SAFETY: packets are met with bottom halves off, one at a time on each CPU, and all bytes
    // zero, as the memory starts, is a value.
    WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// What was sent on by the program where it came in is done with. It is told by a field of the
/// packet that classful queues set and read, which packets come to only behind this hook.
const SENT: u32 = 0x5379;

#[inline(always)]
fn mark_sent(context: &TcContext, value: u32) {
    // SAFETY: a field of the kernel's context that programs here may write.
    unsafe { (*context.skb.skb).tc_index = value };
}

#[inline(always)]
fn was_sent(context: &TcContext) -> bool {
    if !forwards() {
        return false;
    }
    // SAFETY: a field of the kernel's context.
    let was_sent = unsafe { (*context.skb.skb).tc_index } == SENT;
    if was_sent {
        mark_sent(context, 0);
    }
    was_sent
}

#[inline(always)]
fn is_for_us(context: &TcContext) -> bool {
    // SAFETY: a field of the kernel's context.
    unsafe { (*context.skb.skb).pkt_type == PACKET_HOST }
}
