//! The node's address and a port of ours in place of the client's.

use super::entries::random_of;
use super::{Place, Verdict, Work, note, rewrite};
use crate::layout::{Address, Device, Hook, PortRange, Reason, SCTP, SettingsPorts, flow_flags};
use crate::maps::FlowRef;
use crate::parse::Parsed;
use crate::rewrite::Target;
use crate::service::{scale, settings_ports};
use crate::{Insert, Maps};

/// Ports that are tried before a packet is given up.
const TRIES_MAX: u32 = 32;
/// How far one try is from the next; a prime greater than any count of ports, so that it shares
/// no factor with one, and each try is another port.
const STEP: u32 = 1_000_003;

/// Chooses address and port for a flow whose first packet goes out now.
#[inline(always)]
pub(super) fn masquerade(
    maps: &impl Maps,
    work: &mut Work,
    flow: FlowRef,
    place: &Place,
) -> Verdict {
    let (service, id) = flow.owner();
    let masked = Masked {
        service,
        id,
        now_ns: maps.now_ns(),
        own: own_address(maps, &work.parsed, place),
        vip: Target::default(),
        flags: 0,
    };
    if !masked.take(maps, work) {
        return Verdict::Drop;
    }
    let flags = flow.flags() & !flow_flags::PENDING;
    flow.settle(work.from.address, work.from.port, flags);
    rewrite(&mut work.to, &work.from.address, work.from.port)
}

/// A flow whose client is hidden: what its answers are known by.
pub(super) struct Masked {
    pub(super) service: u32,
    pub(super) id: u64,
    pub(super) now_ns: u64,
    /// What the client's address becomes; [`Address::ANY`] where that is not known.
    pub(super) own: Address,
    /// What the source of answers becomes, where `flags` have [`flow_flags::BOTH`].
    pub(super) vip: Target,
    pub(super) flags: u16,
}

impl Masked {
    /// Chooses what the client becomes ([`Work::from`]) and enters it for the answers; false, with
    /// the reason noted, where nothing is left to choose.
    #[inline(always)]
    pub(super) fn take(&self, maps: &impl Maps, work: &mut Work) -> bool {
        let Work {
            parsed,
            other,
            value,
            noted,
            from,
            ..
        } = work;
        let address = self.own;
        let ports = match settings_ports(maps) {
            Some(ports) if address != Address::ANY => ports,
            // Unmasked, the client would get its answers past us.
            _ => {
                note(noted, self.service, Reason::NoMasqueradePort, false);
                return false;
            }
        };
        value.address = parsed.source;
        value.port = parsed.source_port;
        value.flags = flow_flags::UNMASQUERADE | self.flags;
        value.service = self.service;
        value.seen_ns = self.now_ns;
        value.id = self.id;
        value.from = self.vip.address;
        value.from_port = self.vip.port;
        other.source = parsed.destination;
        other.destination = address;
        other.source_port = parsed.destination_port;
        other.protocol = parsed.protocol;
        other.hook = Hook::Ingress.number();
        other.reserved = 0;
        let start = random_of(self.id, self.now_ns);
        for attempt in 0..TRIES_MAX {
            let Some(port) = candidate(ports, parsed, start, attempt) else {
                break;
            };
            other.destination_port = port.to_be();
            if maps.insert_flow(other, value, Insert::New) {
                from.address = address;
                from.port = port.to_be();
                return true;
            }
        }
        note(noted, self.service, Reason::NoMasqueradePort, false);
        false
    }
}

/// The node's address for packets that go by a device, in the packet's family;
/// [`Address::ANY`] where there is none.
#[inline(always)]
pub(super) fn own_address(maps: &impl Maps, parsed: &Parsed, place: &Place) -> Address {
    match maps.device(place.device) {
        Some(device) => address_of(device, parsed),
        None => Address::ANY,
    }
}

/// The same of a device that is known.
#[inline(always)]
pub(super) fn address_of(device: &Device, parsed: &Parsed) -> Address {
    if parsed.is_v4() {
        device.masquerade_v4
    } else {
        device.masquerade_v6
    }
}

/// The port of the n-th try, in host byte order: the client's own if it is in our ranges, then
/// one after the other from a random start. SCTP has only its own to try, since its checksum
/// can't follow another.
#[inline(always)]
fn candidate(ports: &SettingsPorts, parsed: &Parsed, start: u32, attempt: u32) -> Option<u16> {
    let [low, high] = ports.ranges;
    let own = u16::from_be(parsed.source_port);
    if parsed.protocol == SCTP {
        return (attempt == 0).then_some(own);
    }
    if attempt == 0 && (contains(&low, own) || contains(&high, own)) {
        return Some(own);
    }
    nth(&low, &high, start, attempt)
}

/// A port of two ranges taken as one.
#[inline(always)]
fn nth(low: &PortRange, high: &PortRange, start: u32, attempt: u32) -> Option<u16> {
    let count = low.len() + high.len();
    if count == 0 {
        return None;
    }
    let at = (scale(start, count) + attempt * STEP) % count;
    let port = if at < low.len() {
        u32::from(low.first) + at
    } else {
        u32::from(high.first) + at - low.len()
    };
    u16::try_from(port).ok()
}

#[inline(always)]
const fn contains(range: &PortRange, port: u16) -> bool {
    range.first <= port && port <= range.last
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every port of small ranges is reached, and none beside them.
    #[test]
    fn tries_stay_in_the_ranges_and_reach_all_of_them() {
        for (low, high) in [
            ((10, 19), (100, 104)),
            ((1, 0), (65_535, 65_535)),
            ((5, 5), (1, 0)),
        ] {
            let range = |(first, last)| PortRange { first, last };
            let (low, high) = (range(low), range(high));
            let mut seen = std::collections::BTreeSet::new();
            for start in (0..=u32::MAX).step_by(1 << 24) {
                for attempt in 0..TRIES_MAX {
                    seen.insert(nth(&low, &high, start, attempt).unwrap());
                }
            }
            let all: std::collections::BTreeSet<u16> = (1..=u16::MAX)
                .filter(|port| contains(&low, *port) || contains(&high, *port))
                .collect();
            assert_eq!(seen, all);
        }
        let none = PortRange { first: 1, last: 0 };
        assert_eq!(nth(&none, &none, 7, 0), None);
    }
}
