//! From the kernel to what is ours in it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

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
