//! Programs at devices, for packets that come in and go out; with and without an Ethernet
//! header.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use switchyard_datapath::Packet;
use switchyard_datapath::flow::{Place, Verdict, egress, ingress};
use switchyard_datapath::icmp;
use switchyard_datapath::layout::Hook;
use switchyard_datapath::parse::parse;
use switchyard_datapath::rewrite::rewrite;

#[cfg(feature = "log")]
use crate::maps::Done;
use crate::maps::{KernelMaps, WORK};
use crate::skb::Skb;

/// The next program of the device, or the stack.
const NEXT: i32 = -1;
const SHOT: i32 = 2;
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
    // SAFETY: fields of the kernel's context.
    let (protocol, device) = unsafe { ((*context.skb.skb).protocol, (*context.skb.skb).ifindex) };
    let mut packet = Skb(context);
    let ethertype = u16::from_be(protocol as u16);
    // SAFETY: packets are met with bottom halves off, one at a time on each CPU, and all bytes
    // zero, as the memory starts, is a value.
    let Some(work) = WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work }) else {
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
    let place = Place {
        device,
        bytes: packet.len().saturating_sub(ip),
    };
    let verdict = match hook {
        Hook::Ingress => ingress(&maps, work, &place),
        Hook::Egress => egress(&maps, work, &place),
    };
    #[cfg(feature = "log")]
    match (hook, maps.done.get()) {
        (Hook::Ingress, Done::Opened) => crate::log::opened(work),
        (Hook::Egress, Done::Masqueraded) => crate::log::masqueraded(work),
        _ => {}
    }
    match verdict {
        Verdict::Pass => NEXT,
        Verdict::Drop => SHOT,
        Verdict::Rewrite => {
            let to = &work.to;
            if rewrite(&mut packet, &work.parsed, hook, &to.address, to.port) {
                NEXT
            } else {
                SHOT
            }
        }
    }
}
