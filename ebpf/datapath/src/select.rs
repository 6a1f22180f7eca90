//! Which endpoint of a list: the one the client had, the one every node would choose, or any.

use crate::Maps;
use crate::layout::{Address, AffinityKey, AffinityValue, Endpoint};
use crate::policy::Choice;
use crate::service::{List, Service, position, scale};

const NANOSECONDS: u64 = 1_000_000_000;

/// Chooses an endpoint for a client, and remembers it where the Service has affinity. `hash` is
/// even bits: random ones, or where every node must choose alike a hash of what all nodes see of
/// the packet.
#[inline(always)]
pub fn select(
    maps: &impl Maps,
    service: &Service<'_>,
    choice: &Choice,
    client: &AffinityKey,
    hash: u32,
    use_maglev: bool,
) -> Option<Endpoint> {
    let timeout_s = service.header.affinity_s;
    if timeout_s == 0 {
        return pick(maps, service, choice, hash, use_maglev);
    }
    let now_ns = maps.now_ns();
    let endpoint = match kept(maps, choice.list, client, timeout_s, now_ns) {
        Some(kept) => kept,
        None => pick(maps, service, choice, hash, use_maglev)?,
    };
    remember(maps, client, &endpoint, now_ns);
    Some(endpoint)
}

/// An endpoint of the list by even bits alone.
#[inline(always)]
fn pick(
    maps: &impl Maps,
    service: &Service<'_>,
    choice: &Choice,
    hash: u32,
    use_maglev: bool,
) -> Option<Endpoint> {
    let at = if use_maglev && choice.is_cluster {
        service.maglev(maps, hash)
    } else {
        None
    };
    let at = match at {
        Some(at) if at < choice.list.count => at,
        _ => scale(hash, choice.list.count),
    };
    maps.endpoint(choice.list.first + at).copied()
}

/// Another endpoint of the list than the one by even bits alone, and than at other attempts, as long
/// as there is one. The first attempt is number 1.
#[inline(always)]
pub fn pick_another(
    maps: &impl Maps,
    choice: &Choice,
    hash: u32,
    attempt: u32,
) -> Option<Endpoint> {
    let count = choice.list.count;
    let at = scale(hash, count) + attempt;
    let at = if at < count { at } else { at - count };
    // There may be fewer endpoints than attempts.
    let at = if at < count { at } else { 0 };
    maps.endpoint(choice.list.first + at).copied()
}

/// The endpoint the client had, if that is not too long ago and it may still be used.
#[inline(always)]
fn kept(
    maps: &impl Maps,
    list: List,
    client: &AffinityKey,
    timeout_s: u32,
    now_ns: u64,
) -> Option<Endpoint> {
    let value = maps.affinity(client)?;
    let age_ns = now_ns.saturating_sub(value.used_ns);
    if age_ns > u64::from(timeout_s) * NANOSECONDS {
        return None;
    }
    let endpoint = Endpoint::new(value.address, value.port);
    position(maps, list, &endpoint).map(|_| endpoint)
}

#[inline(always)]
fn remember(maps: &impl Maps, client: &AffinityKey, endpoint: &Endpoint, now_ns: u64) {
    let value = AffinityValue {
        address: endpoint.address,
        port: endpoint.port,
        reserved: [0; 3],
        used_ns: now_ns,
    };
    maps.remember(client, &value);
}

/// Even bits from what every node sees of a flow's first packet. Without the port for clients
/// with affinity, so that all of a client's flows go one way.
#[inline(always)]
#[must_use]
pub fn flow_hash(client: &Address, client_port: u16, vip: &Address, vip_port: u16) -> u32 {
    // Written out: the verifier does not follow pointers that run through two arrays.
    let [a, b, c, d] = client.0;
    let hash = mix(mix(mix(mix(0x9e37_79b9, a), b), c), d);
    let [a, b, c, d] = vip.0;
    let hash = mix(mix(mix(mix(hash, a), b), c), d);
    let ports = (u32::from(client_port) << 16) | u32::from(vip_port);
    avalanche(mix(hash, ports))
}

#[inline(always)]
const fn mix(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15);
    let hash = (hash ^ word.wrapping_mul(0x1b87_3593)).rotate_left(13);
    hash.wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[inline(always)]
const fn avalanche(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
