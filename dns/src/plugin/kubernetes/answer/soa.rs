use super::{fixed, pointer_into_question};
use crate::wire::{Reply, Rtype, Section};

/// Seconds that a negative answer may be kept at most, whatever the TTL.
const NEGATIVE_TTL_MAX_S: u32 = 300;
/// Refresh, retry and expire, as CoreDNS has them; nobody transfers by them.
const TIMES_S: [u32; 3] = [7200, 1800, 86400];
/// `ns.dns` and `hostmaster`, each followed by a pointer to the zone.
const MNAME: &[u8] = b"\x02ns\x03dns";
const RNAME: &[u8] = b"\x0Ahostmaster";
/// Two names and five numbers.
const DATA_OCTETS: usize = MNAME.len() + 2 + RNAME.len() + 2 + 20;
const RECORD_OCTETS: usize = 12 + DATA_OCTETS;

/// The SOA of the zone that begins at `zone_at` of the question's name.
pub(in crate::plugin::kubernetes) fn push_soa(
    reply: &mut Reply,
    section: Section,
    zone_at: usize,
    ttl: u32,
    serial: u32,
) {
    let zone = pointer_into_question(zone_at);
    let [refresh, retry, expire] = TIMES_S;
    let numbers = [serial, refresh, retry, expire, ttl].map(u32::to_be_bytes);
    let parts: [&[u8]; 7] = [
        &zone,
        &fixed(Rtype::SOA, ttl.min(NEGATIVE_TTL_MAX_S), DATA_OCTETS),
        MNAME,
        &zone,
        RNAME,
        &zone,
        numbers.as_flattened(),
    ];
    let mut record = [0; RECORD_OCTETS];
    let mut rest = record.as_mut_slice();
    for part in parts {
        let Some((place, after)) = rest.split_at_mut_checked(part.len()) else {
            return;
        };
        place.copy_from_slice(part);
        rest = after;
    }
    reply.push_wire(section, 1, &record);
}
