//! Which endpoints of a Service port may be used, by whom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use switchyard_cluster::object::{Endpoint, EndpointSlice, IpFamily, Protocol};

use super::{NodeContext, Target};

/// The endpoints of one Service port, sorted into the lists a plan carries.
#[derive(Default)]
pub(super) struct Endpoints {
    pub(super) cluster: Box<[Target]>,
    pub(super) local: Box<[Target]>,
    pub(super) any: bool,
    pub(super) serving: Box<[Target]>,
}

/// Which lists the policies of a Service port make use of.
#[derive(Clone, Copy)]
pub(super) struct Uses {
    pub(super) cluster: bool,
    pub(super) local: bool,
    pub(super) serving: bool,
}

/// Every endpoint of one port over all slices of its family, one for each address and port.
pub(super) struct Candidates<'a> {
    by_socket: BTreeMap<(IpAddr, u16), &'a Endpoint>,
}

impl<'a> Candidates<'a> {
    /// Collects from `slices`, taken in order: where an address and port comes more than
    /// once, one that is not terminating wins, else the last.
    pub(super) fn collect(
        slices: &[&'a EndpointSlice],
        port_name: &str,
        protocol: Protocol,
        family: IpFamily,
    ) -> Self {
        let mut by_socket: BTreeMap<(IpAddr, u16), &Endpoint> = BTreeMap::new();
        for slice in slices
            .iter()
            .filter(|slice| slice.family == Some(family) && !slice.headless)
        {
            let ports = slice.ports.iter();
            for port in ports.filter(|port| *port.name == *port_name && port.protocol == protocol) {
                for endpoint in &slice.endpoints {
                    let kept = by_socket
                        .entry((endpoint.address, port.port))
                        .or_insert(endpoint);
                    if kept.conditions.terminating || !endpoint.conditions.terminating {
                        *kept = endpoint;
                    }
                }
            }
        }
        Self { by_socket }
    }

    /// Addresses of ready endpoints on this node.
    pub(super) fn ready_local_addresses(&self, node: &NodeContext) -> impl Iterator<Item = IpAddr> {
        self.by_socket
            .iter()
            .filter(|(_, endpoint)| endpoint.conditions.ready && is_local(endpoint, node))
            .map(|((address, _), _)| *address)
    }

    /// Sorts them into lists: ready ones, or where there are none those that still serve on
    /// their way out; the cluster list after topology hints.
    pub(super) fn categorize(&self, uses: Uses, node: &NodeContext) -> Endpoints {
        let topology = self.topology(node);
        let cluster = if uses.cluster {
            let ready = self.select(node, |endpoint| {
                endpoint.conditions.ready && topology.allows(endpoint, node)
            });
            or_else_if_empty(ready, || self.select(node, is_draining))
        } else {
            Box::default()
        };
        let local = if uses.local {
            let ready = self.select(node, |endpoint| {
                endpoint.conditions.ready && is_local(endpoint, node)
            });
            or_else_if_empty(ready, || {
                self.select(node, |endpoint| {
                    is_draining(endpoint) && is_local(endpoint, node)
                })
            })
        } else {
            Box::default()
        };
        let serving = if uses.serving {
            self.select(node, |endpoint| endpoint.conditions.serving)
        } else {
            Box::default()
        };
        let any = self
            .by_socket
            .values()
            .any(|endpoint| endpoint.conditions.ready || is_draining(endpoint));
        Endpoints {
            cluster,
            local,
            any,
            serving,
        }
    }

    fn select(&self, node: &NodeContext, keep: impl Fn(&Endpoint) -> bool) -> Box<[Target]> {
        self.by_socket
            .iter()
            .filter(|(_, endpoint)| keep(endpoint))
            .map(|((address, port), endpoint)| Target {
                address: *address,
                port: *port,
                is_local: is_local(endpoint, node),
            })
            .collect()
    }

    /// Hints count only when every ready endpoint carries them and at least one names us:
    /// else following them would leave somebody without endpoints (KEP-2433, KEP-3015).
    fn topology(&self, node: &NodeContext) -> Topology {
        let hints = || {
            let ready = self
                .by_socket
                .values()
                .filter(|endpoint| endpoint.conditions.ready);
            ready.map(|endpoint| endpoint.hints.as_deref())
        };
        let all_by_node = hints().all(|hints| hints.is_some_and(|hints| !hints.nodes.is_empty()));
        if all_by_node
            && hints()
                .flatten()
                .any(|hints| hints.nodes.contains(&node.name))
        {
            return Topology::SameNode;
        }
        let Some(zone) = &node.zone else {
            return Topology::Anywhere;
        };
        let all_by_zone = hints().all(|hints| hints.is_some_and(|hints| !hints.zones.is_empty()));
        if all_by_zone && hints().flatten().any(|hints| hints.zones.contains(zone)) {
            return Topology::SameZone;
        }
        Topology::Anywhere
    }
}

#[derive(Clone, Copy)]
enum Topology {
    SameNode,
    SameZone,
    Anywhere,
}

impl Topology {
    fn allows(self, endpoint: &Endpoint, node: &NodeContext) -> bool {
        let hints = endpoint.hints.as_deref();
        match self {
            Self::Anywhere => true,
            Self::SameNode => hints.is_some_and(|hints| hints.nodes.contains(&node.name)),
            Self::SameZone => {
                let Some(zone) = &node.zone else { return true };
                hints.is_some_and(|hints| hints.zones.contains(zone))
            }
        }
    }
}

fn is_local(endpoint: &Endpoint, node: &NodeContext) -> bool {
    endpoint.node() == Some(&node.name)
}

const fn is_draining(endpoint: &Endpoint) -> bool {
    endpoint.conditions.serving && endpoint.conditions.terminating
}

fn or_else_if_empty(first: Box<[Target]>, second: impl FnOnce() -> Box<[Target]>) -> Box<[Target]> {
    if first.is_empty() { second() } else { first }
}
