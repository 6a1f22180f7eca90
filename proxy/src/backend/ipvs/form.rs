//! What the kernel is to hold, or holds: virtual services with their destinations, members of
//! sets, addresses. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use switchyard_netlink::ipset::Entry;
use switchyard_netlink::ipvs::{Destination, Service, ServiceKey};

use super::sets::Set;

/// What share a destination gets: all get the same.
pub(super) const WEIGHT: u32 = 1;

/// A virtual service as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Virtual {
    pub(super) service: Service,
    pub(super) destinations: BTreeSet<SocketAddr>,
    /// Of UDP, endpoints that get no new clients and still serve those they have. They stay, with
    /// weight 0, where they are destinations already.
    pub(super) serving: BTreeSet<SocketAddr>,
}

/// What one plan wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) services: Vec<Virtual>,
    pub(super) members: Vec<(Set, Entry)>,
    /// VIPs on our device.
    pub(super) addresses: Vec<IpAddr>,
    /// VIPs that another interface has.
    pub(super) elsewhere: Vec<IpAddr>,
}

/// A destination as the kernel has it, or is believed to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) destination: Destination,
    /// It has connections, or may have some.
    pub(super) is_busy: bool,
}

/// A virtual service as the kernel has it, or is believed to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldService {
    pub(super) service: Service,
    pub(super) destinations: BTreeMap<SocketAddr, Held>,
}

/// Virtual services as they should be. Of two that want the same key the first stays.
pub(super) type Wanted = BTreeMap<ServiceKey, Virtual>;
/// Virtual services as they are.
pub(super) type Present = BTreeMap<ServiceKey, HeldService>;
/// Destinations that only wait for their connections to end.
pub(super) type Draining = BTreeMap<ServiceKey, BTreeSet<SocketAddr>>;

/// A destination that is chosen like all others.
pub(super) const fn in_use(address: SocketAddr) -> Destination {
    Destination::masqueraded(address, WEIGHT)
}

/// A destination that is not chosen any more.
pub(super) const fn drained(address: SocketAddr) -> Destination {
    Destination::masqueraded(address, 0)
}

/// A service that was written as it should be, with what still drains there.
pub(super) fn as_written(wanted: &Virtual, draining: &Draining) -> HeldService {
    let held = |destination| Held {
        destination,
        is_busy: true, // as far as is known without asking
    };
    let mut destinations: BTreeMap<SocketAddr, Held> = draining
        .get(&wanted.service.key)
        .into_iter()
        .flatten()
        .map(|address| (*address, held(drained(*address))))
        .collect();
    for address in &wanted.destinations {
        destinations.insert(*address, held(in_use(*address)));
    }
    HeldService {
        service: wanted.service,
        destinations,
    }
}
