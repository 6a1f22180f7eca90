//! Writing answers into a reply, without allocating.

mod addresses;
mod ptr;
mod soa;
mod srv;

pub(super) use self::addresses::{push_address, push_own_records, push_selected};
pub(super) use self::ptr::push_ptr;
pub(super) use self::soa::push_soa;
pub(super) use self::srv::{Srv, push_cluster_srv, push_endpoint_srv};

use crate::wire::{HEADER_OCTETS, NAME_OCTETS_MAX, Reply, Rtype, Section};

/// A pointer has 14 bits (RFC 1035 §4.1.4).
const POINTER_MAX: usize = 0x3FFF;

/// Names below a Service, as SRV and PTR records write them.
#[derive(Clone, Copy, Debug)]
pub(in crate::plugin::kubernetes) struct Below<'a> {
    /// `service.namespace` as labels in lower case.
    pub(super) key: &'a [u8],
    /// The zone in the case it was asked in.
    pub(super) zone: &'a [u8],
}

impl Below<'_> {
    /// Octets of `label.service.namespace.svc.zone`, of the Service itself with an empty
    /// label; `None` if that is no name any more.
    fn octets(self, label: &[u8]) -> Option<usize> {
        let label = if label.is_empty() { 0 } else { label.len() + 1 };
        let length = label + self.key.len() + SVC.len() + self.zone.len();
        (length <= NAME_OCTETS_MAX).then_some(length)
    }

    /// Writes that name in full.
    fn push(self, reply: &mut Reply, section: Section, label: &[u8]) {
        if let Ok(length @ 1..) = u8::try_from(label.len()) {
            reply.push_wire(section, 0, &[length]);
            reply.push_wire(section, 0, label);
        }
        reply.push_wire(section, 0, self.key);
        reply.push_wire(section, 0, SVC);
        reply.push_wire(section, 0, self.zone);
    }
}

/// The label between a namespace and the zone.
const SVC: &[u8] = b"\x03svc";

/// The pointer to this place of the message, if there can be one.
pub(super) fn pointer(at: usize) -> Option<[u8; 2]> {
    let at = u16::try_from(at).ok().filter(|_| at <= POINTER_MAX)?;
    Some((0xC000 | at).to_be_bytes())
}

/// The pointer to octet `at` of the question's name.
fn pointer_into_question(at: usize) -> [u8; 2] {
    // A name has 255 octets: the pointer always fits.
    pointer(HEADER_OCTETS + at).unwrap_or([0xC0, 0x0C])
}

/// Type, class IN, TTL and length: what stands between an owner and RDATA.
pub(super) fn fixed(rtype: Rtype, ttl: u32, length: usize) -> [u8; 10] {
    let ([t0, t1], [s0, s1, s2, s3]) = (rtype.0.to_be_bytes(), ttl.to_be_bytes());
    let [l0, l1] = u16::try_from(length).unwrap_or_default().to_be_bytes();
    [t0, t1, 0, 1, s0, s1, s2, s3, l0, l1]
}
