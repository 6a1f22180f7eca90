//! From the kernel to what is ours in it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use switchyard_netlink::Protocol;
use switchyard_netlink::ipset::{Entry, IpPort, Ipset, IpsetError};
use switchyard_netlink::ipvs::{Ipvs as Kernel, ListedDestination, Service, ServiceKey};

use super::config::{Config, netlink_family};
use super::error::IpvsModeError;
use super::form::{Held, HeldService, Present, Wanted};
use super::sets::Set;

/// Which virtual services are ours: sets and device outlive the agent, and tell.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    /// On our device.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// VIPs with ports, as the sets have them.
    pub(super) vips: HashSet<IpPort>,
    /// Node ports, as the sets have them.
    pub(super) node_ports: HashSet<(Protocol, u16)>,
    /// Services that this run wrote under another configuration.
    pub(super) earlier: HashSet<ServiceKey>,
}

impl Ownership {
    /// From the sets and the device as they are read.
    pub(super) fn of(
        members: &BTreeMap<Set, HashSet<Entry>>,
        addresses: BTreeSet<IpAddr>,
        earlier: HashSet<ServiceKey>,
    ) -> Self {
        let mut ownership = Self {
            addresses,
            earlier,
            ..Self::default()
        };
        for (set, entries) in members {
            let protocol = match set {
                Set::NodePortTcp => Some(Protocol::Tcp),
                Set::NodePortUdp => Some(Protocol::Udp),
                _ => None,
            };
            for entry in entries {
                match (entry, protocol) {
                    (Entry::Port(port), Some(protocol)) => {
                        ownership.node_ports.insert((protocol, *port));
                    }
                    (Entry::IpPort(vip), _) => drop(ownership.vips.insert(*vip)),
                    _ => {}
                }
            }
        }
        ownership
    }

    /// Whether a service is ours: it is at a VIP of ours, or at a node port of ours and an
    /// address of the node.
    pub(super) fn includes(&self, key: &ServiceKey, config: &Config) -> bool {
        let (address, port) = (key.address.ip(), key.address.port());
        let vip = IpPort {
            address,
            protocol: key.protocol,
            port,
        };
        let at_node = config.held_elsewhere.contains(&address);
        self.addresses.contains(&address)
            || self.vips.contains(&vip)
            || (at_node && self.node_ports.contains(&(key.protocol, port)))
            || self.earlier.contains(key)
    }

    /// The services that sets and configurations name, whether they are there or not.
    fn named(&self, config: &Config) -> Vec<ServiceKey> {
        let vips = self.vips.iter().map(|vip| ServiceKey {
            protocol: vip.protocol,
            address: SocketAddr::new(vip.address, vip.port),
        });
        let node_ports = self.node_ports.iter().flat_map(|(protocol, port)| {
            let addresses = config.node_addresses.iter();
            addresses.map(|address| ServiceKey {
                protocol: *protocol,
                address: SocketAddr::new(*address, *port),
            })
        });
        let earlier = self.earlier.iter().copied();
        vips.chain(node_ports).chain(earlier).collect()
    }
}

/// The members of all our sets; of those that are not there, none.
pub(super) fn members(
    ipset: &mut Ipset,
    config: &Config,
) -> Result<BTreeMap<Set, HashSet<Entry>>, IpvsModeError> {
    let mut all = BTreeMap::new();
    for set in Set::ALL {
        let entries = match ipset.entries(&set.name(config.family)) {
            Ok(entries) => entries.into_iter().collect(),
            Err(IpsetError::Missing { .. }) => HashSet::new(),
            Err(error) => return Err(error.into()),
        };
        all.insert(set, entries);
    }
    Ok(all)
}

/// Our virtual services, and any other that `wanted` is to replace.
pub(super) fn services(
    kernel: &mut Kernel,
    config: &Config,
    ownership: &Ownership,
    wanted: &Wanted,
) -> Result<Present, IpvsModeError> {
    let family = netlink_family(config.family);
    let mut present = Present::new();
    let all = kernel.services()?.into_iter();
    for service in all.filter(|service| service.key.family() == family) {
        let key = service.key;
        let ours = ownership.includes(&key, config) && !config.is_excluded(key.address.ip());
        if ours || wanted.contains_key(&key) {
            present.insert(key, held_service(kernel, service)?);
        }
    }
    // The list may leave some out. Those that are to go are asked for by themselves: what tells that
    // they are ours goes with them.
    for key in ownership.named(config) {
        let is_settled = wanted.contains_key(&key) || present.contains_key(&key);
        if is_settled || config.is_excluded(key.address.ip()) {
            continue;
        }
        if let Some(service) = kernel.service(&key)? {
            present.insert(key, held_service(kernel, service)?);
        }
    }
    Ok(present)
}

/// A service with its destinations.
pub(super) fn held_service(
    kernel: &mut Kernel,
    service: Service,
) -> Result<HeldService, IpvsModeError> {
    let destinations = kernel.destinations(&service.key)?;
    let held = |listed: ListedDestination| {
        let connections = listed.connections;
        let held = Held {
            destination: listed.destination,
            is_busy: connections.active > 0 || connections.inactive > 0,
        };
        (listed.destination.address, held)
    };
    Ok(HeldService {
        service,
        destinations: destinations.into_iter().map(held).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use switchyard_cluster::object::{IpFamily, IpvsScheduler};

    use super::*;
    use crate::plan::LocalDetector;

    fn key(protocol: Protocol, address: &str) -> ServiceKey {
        ServiceKey {
            protocol,
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn ours_is_what_device_and_sets_say() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let config = Config {
            family: IpFamily::V4,
            masquerade_mark: 0x4000,
            masquerade_all: false,
            detector: LocalDetector::NONE,
            node_addresses: vec![ip("192.0.2.1")],
            node_ports_are_restricted: false,
            held_elsewhere: Arc::new(HashSet::from([ip("192.0.2.1"), ip("203.0.113.9")])),
            scheduler: IpvsScheduler::RoundRobin,
            available: Arc::default(),
            excluded: vec!["10.96.7.0/24".parse().unwrap()],
        };
        let vip = Entry::IpPort(IpPort {
            address: ip("203.0.113.9"),
            protocol: Protocol::Tcp,
            port: 80,
        });
        let members = BTreeMap::from([
            (Set::NodePortTcp, HashSet::from([Entry::Port(30_001)])),
            (
                Set::HealthCheckNodePort,
                HashSet::from([Entry::Port(30_002)]),
            ),
            (Set::ExternalIp, HashSet::from([vip])),
        ]);
        let earlier = HashSet::from([key(Protocol::Udp, "192.0.2.7:30001")]);
        let bound = BTreeSet::from([ip("10.96.0.1")]);
        let ownership = Ownership::of(&members, bound, earlier);
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        for (protocol, address, ours) in [
            (tcp, "10.96.0.1:80", true),
            (udp, "10.96.0.1:9999", true),
            (tcp, "10.96.0.2:80", false),
            (tcp, "192.0.2.1:30001", true),
            (udp, "192.0.2.1:30001", false),
            (tcp, "192.0.2.1:30002", false),
            (tcp, "192.0.2.9:30001", false),
            (tcp, "203.0.113.9:80", true),
            (tcp, "203.0.113.9:81", false),
            (udp, "192.0.2.7:30001", true),
        ] {
            let key = key(protocol, address);
            assert_eq!(ownership.includes(&key, &config), ours, "{key}");
        }
        assert!(config.is_excluded(ip("10.96.7.3")) && !config.is_excluded(ip("10.96.8.3")));
    }
}
