//! From virtual services as they are to what must be changed. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use switchyard_netlink::Protocol;
use switchyard_netlink::ipvs::{Change, ServiceKey};

use super::form::{Draining, HeldService, Present, Virtual, Wanted, drained, in_use};

/// What must be changed, and what drains afterwards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceChanges {
    /// Services and destinations that come or become others.
    pub(super) coming: Vec<Change>,
    /// Those that go, or begin to.
    pub(super) going: Vec<Change>,
    /// All destinations of these services that wait for their connections to end.
    pub(super) draining: Draining,
}

/// Compares. Of `present` only what is ours must be given: what is not in `wanted` goes.
/// `first` are to come before all others.
pub(super) fn difference(
    present: &Present,
    wanted: &Wanted,
    first: &[ServiceKey],
) -> ServiceChanges {
    let mut changes = ServiceChanges::default();
    let early = first.iter().filter_map(|key| wanted.get_key_value(key));
    let late = wanted.iter().filter(|(key, _)| !first.contains(key));
    for (key, wanted) in early.chain(late) {
        match present.get(key) {
            None => changes.make(wanted),
            Some(held) => changes.adapt(held, wanted),
        }
    }
    let gone = present.keys().filter(|key| !wanted.contains_key(key));
    changes
        .going
        .extend(gone.map(|key| Change::DeleteService(*key)));
    changes
}

impl ServiceChanges {
    fn make(&mut self, wanted: &Virtual) {
        let key = wanted.service.key;
        self.coming.push(Change::NewService(wanted.service));
        let destinations = wanted.destinations.iter();
        self.coming
            .extend(destinations.map(|address| Change::NewDestination(key, in_use(*address))));
    }

    fn adapt(&mut self, held: &HeldService, wanted: &Virtual) {
        let key = wanted.service.key;
        if held.service != wanted.service {
            self.coming.push(Change::SetService(wanted.service));
        }
        for address in &wanted.destinations {
            match held.destinations.get(address) {
                None => self
                    .coming
                    .push(Change::NewDestination(key, in_use(*address))),
                Some(held) if held.destination != in_use(*address) => self
                    .coming
                    .push(Change::SetDestination(key, in_use(*address))),
                Some(_) => {}
            }
        }
        let mut draining = BTreeSet::new();
        for (address, held) in &held.destinations {
            if wanted.destinations.contains(address) {
                continue;
            }
            let may_drain = drains(key.protocol) || wanted.serving.contains(address);
            if !held.is_busy || !may_drain {
                self.going.push(Change::DeleteDestination(key, *address));
                continue;
            }
            draining.insert(*address);
            if held.destination.weight != 0 {
                self.going
                    .push(Change::SetDestination(key, drained(*address)));
            }
        }
        if !draining.is_empty() {
            self.draining.insert(key, draining);
        }
    }
}

/// Connections of TCP have an end to wait for. What UDP and SCTP send to an endpoint that is
/// gone is lost: their clients are sent elsewhere at once, as with the reference, but for those
/// of an endpoint that still serves.
const fn drains(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp)
}

/// The destinations among `draining` that have no connections any more.
pub(super) fn ended(
    key: ServiceKey,
    draining: &BTreeSet<SocketAddr>,
    held: &HeldService,
) -> Vec<Change> {
    let idle = draining.iter().filter(|address| {
        held.destinations
            .get(address)
            .is_some_and(|held| !held.is_busy)
    });
    idle.map(|address| Change::DeleteDestination(key, *address))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use switchyard_netlink::ipvs::{SchedulerName, Service, ServiceFlags};

    use super::super::form::{Held, as_written};
    use super::*;

    fn key(protocol: Protocol, address: &str) -> ServiceKey {
        ServiceKey {
            protocol,
            address: address.parse().unwrap(),
        }
    }

    fn wanted(key: ServiceKey, destinations: &[&str]) -> Virtual {
        Virtual {
            service: Service {
                key,
                scheduler: SchedulerName::ROUND_ROBIN,
                persistence: None,
                flags: ServiceFlags::NONE,
            },
            destinations: destinations
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            serving: BTreeSet::new(),
        }
    }

    fn all(services: &[Virtual]) -> Wanted {
        let keyed = services.iter();
        keyed
            .map(|service| (service.service.key, service.clone()))
            .collect()
    }

    fn written(services: &[Virtual], draining: &Draining) -> Present {
        let keyed = services.iter();
        keyed
            .map(|service| (service.service.key, as_written(service, draining)))
            .collect()
    }

    fn words(changes: &[Change]) -> Vec<String> {
        let word = |change: &Change| match change {
            Change::SetDestination(_, to) => format!("{change}: weight {}", to.weight),
            other => other.to_string(),
        };
        changes.iter().map(word).collect()
    }

    const A: &str = "10.96.0.1:80";

    #[test]
    fn one_endpoint_is_one_change() {
        let key = key(Protocol::Tcp, A);
        let old = wanted(key, &["10.1.0.1:80", "10.1.0.2:80"]);
        let new = wanted(key, &["10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"]);
        let none = Draining::new();
        let more = difference(
            &written(std::slice::from_ref(&old), &none),
            &all(std::slice::from_ref(&new)),
            &[],
        );
        assert_eq!(
            words(&more.coming),
            ["add the destination 10.1.0.3:80 to the virtual service tcp 10.96.0.1:80"]
        );
        assert_eq!(more.going, []);
        let less = difference(&written(&[new], &none), &all(&[old]), &[]);
        assert_eq!(
            words(&less.going),
            [
                "change the destination 10.1.0.3:80 of the virtual service tcp 10.96.0.1:80: weight 0"
            ]
        );
        assert_eq!(less.draining[&key].len(), 1);
    }

    #[test]
    fn udp_and_idle_destinations_go_at_once() {
        let udp = key(Protocol::Udp, A);
        let old = written(&[wanted(udp, &["10.1.0.1:53"])], &Draining::new());
        let gone = difference(&old, &all(&[wanted(udp, &[])]), &[]);
        assert!(matches!(gone.going[..], [Change::DeleteDestination(..)]));
        let tcp = key(Protocol::Tcp, A);
        let mut old = written(&[wanted(tcp, &["10.1.0.1:80"])], &Draining::new());
        for service in old.values_mut() {
            for held in service.destinations.values_mut() {
                held.is_busy = false;
            }
        }
        let gone = difference(&old, &all(&[wanted(tcp, &[])]), &[]);
        assert!(matches!(gone.going[..], [Change::DeleteDestination(..)]));
        assert!(gone.draining.is_empty());
    }

    #[test]
    fn udp_clients_stay_with_an_endpoint_while_it_serves() {
        let udp = key(Protocol::Udp, A);
        let endpoint: SocketAddr = "10.1.0.1:53".parse().unwrap();
        let none = Draining::new();
        let old = written(&[wanted(udp, &["10.1.0.1:53"])], &none);
        let mut terminating = wanted(udp, &["10.1.0.2:53"]);
        terminating.serving.insert(endpoint);
        let changes = difference(&old, &all(std::slice::from_ref(&terminating)), &[]);
        assert_eq!(
            words(&changes.going),
            [
                "change the destination 10.1.0.1:53 of the virtual service udp 10.96.0.1:80: weight 0"
            ]
        );
        let old = written(std::slice::from_ref(&terminating), &changes.draining);
        let gone = difference(&old, &all(&[wanted(udp, &["10.1.0.2:53"])]), &[]);
        assert_eq!(gone.going, [Change::DeleteDestination(udp, endpoint)]);
        // Where it is no destination it does not become one.
        let new = difference(
            &written(&[wanted(udp, &[])], &none),
            &all(&[terminating]),
            &[],
        );
        assert_eq!(new.coming.len(), 1);
    }

    #[test]
    fn a_draining_destination_that_comes_back_gets_its_weight_back() {
        let key = key(Protocol::Tcp, A);
        let empty = wanted(key, &[]);
        let back: SocketAddr = "10.1.0.1:80".parse().unwrap();
        let draining = Draining::from([(key, BTreeSet::from([back]))]);
        let old = written(std::slice::from_ref(&empty), &draining);
        let changes = difference(&old, &all(&[wanted(key, &["10.1.0.1:80"])]), &[]);
        assert_eq!(
            words(&changes.coming),
            [
                "change the destination 10.1.0.1:80 of the virtual service tcp 10.96.0.1:80: weight 1"
            ]
        );
        let still = difference(&old, &all(&[empty]), &[]);
        assert_eq!((still.coming, still.going), (vec![], vec![]));
        assert_eq!(still.draining, draining);
    }

    #[test]
    fn some_services_come_first_and_others_go_last() {
        let (a, b, c) = (
            key(Protocol::Tcp, "10.96.0.1:80"),
            key(Protocol::Tcp, "10.96.0.2:80"),
            key(Protocol::Tcp, "10.96.0.3:80"),
        );
        let old = written(&[wanted(c, &["10.1.0.1:80"])], &Draining::new());
        let new = all(&[wanted(a, &[]), wanted(b, &["10.1.0.1:80"])]);
        let changes = difference(&old, &new, &[b]);
        let order: Vec<ServiceKey> = changes.coming.iter().map(Change::service).collect();
        assert_eq!(order, [b, b, a]);
        assert_eq!(changes.going, [Change::DeleteService(c)]);
    }

    #[test]
    fn only_those_whose_connections_ended_are_deleted() {
        let key = key(Protocol::Tcp, A);
        let (idle, busy) = (
            "10.1.0.1:80".parse().unwrap(),
            "10.1.0.2:80".parse().unwrap(),
        );
        let held = |address, is_busy| {
            let destination = drained(address);
            (
                address,
                Held {
                    destination,
                    is_busy,
                },
            )
        };
        let service = HeldService {
            service: wanted(key, &[]).service,
            destinations: BTreeMap::from([held(idle, false), held(busy, true)]),
        };
        let gone = ended(key, &BTreeSet::from([idle, busy]), &service);
        assert_eq!(gone, [Change::DeleteDestination(key, idle)]);
    }
}
