use std::net::IpAddr;

use super::{Below, fixed, pointer};
use crate::plugin::kubernetes::index::Index;
use crate::wire::{Reply, Rtype, Section};

/// PTR records for an address: the Service whose own it is, or else every name that an
/// endpoint with it has. Says how many it pushed.
pub(in crate::plugin::kubernetes) fn push_ptr(
    reply: &mut Reply,
    index: &Index,
    address: IpAddr,
    zone: &[u8],
    ttl: u32,
) -> u16 {
    let before = reply.count(Section::Answer);
    // Where an earlier record has `svc.zone`.
    let mut tail = None;
    index.service_with(address, |slot| {
        let below = Below {
            key: slot.key(),
            zone,
        };
        push(reply, below, &[], ttl, &mut tail);
    });
    if reply.count(Section::Answer) > before {
        return 1;
    }
    index.services_behind(address, |slot| {
        let below = Below {
            key: slot.key(),
            zone,
        };
        let answers = slot.answers();
        let groups = answers.endpoints.groups();
        for (at, group) in groups.iter().enumerate() {
            for label in group.labels_of(address) {
                let mut earlier = groups.iter().take(at);
                let seen = earlier.any(|other| {
                    let mut labels = other.labels_of(address);
                    labels.any(|other| other.as_bytes() == label.as_bytes())
                });
                if !seen {
                    push(reply, below, label.as_bytes(), ttl, &mut tail);
                }
            }
        }
    });
    reply.count(Section::Answer) - before
}

fn push(reply: &mut Reply, below: Below<'_>, label: &[u8], ttl: u32, tail: &mut Option<[u8; 2]>) {
    let Some(octets) = below.octets(label) else {
        return;
    };
    let before_tail = octets - super::SVC.len() - below.zone.len();
    let length = if tail.is_some() {
        before_tail + 2
    } else {
        octets
    };
    reply.push_wire(Section::Answer, 0, &[0xC0, 0x0C]);
    reply.push_wire(Section::Answer, 1, &fixed(Rtype::PTR, ttl, length));
    let Some(pointer_to_tail) = tail else {
        *tail = pointer(reply.octets().len() + before_tail);
        below.push(reply, Section::Answer, label);
        return;
    };
    if let Ok(length @ 1..) = u8::try_from(label.len()) {
        reply.push_wire(Section::Answer, 0, &[length]);
        reply.push_wire(Section::Answer, 0, label);
    }
    reply.push_wire(Section::Answer, 0, below.key);
    reply.push_wire(Section::Answer, 0, &*pointer_to_tail);
}
