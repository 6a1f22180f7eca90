//! Node ports on localhost where no rule can do it.
//!
//! The kernel does not translate packets from `::1` to another machine, so a process that
//! connects to `[::1]:nodePort` would find nobody. The relay listens there for every IPv6
//! node port and passes on what it gets, TCP and UDP, to the endpoints that traffic of the
//! node itself would reach: the cluster's, whatever `externalTrafficPolicy` says. Without
//! any endpoint it does not listen, so the kernel refuses, as everywhere else.
//!
//! Only processes of this node can reach a loopback address. Everything here is bounded all
//! the same: see the constants.

mod pick;
mod tcp;
mod udp;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use switchyard_cluster::object::{IpFamily, Protocol};
use tokio::runtime::Handle;

use crate::metrics::Metrics;
use crate::plan::{PlanId, ServicePlan};

pub use tcp::CONNECT_TIMEOUT_S;
pub use udp::UDP_IDLE_TIMEOUT_S;

use pick::Picker;
use tcp::TcpPort;
use udp::UdpPort;

/// Node ports the relay listens on; further ones are logged and left out. Twice what the
/// default range of node ports has, once for each protocol. Each needs a file descriptor.
pub const MAX_PORTS: usize = 8192;

/// TCP connections by default.
pub const MAX_TCP_CONNECTIONS: usize = 1024;
/// UDP clients by default.
pub const MAX_UDP_CLIENTS: usize = 1024;

/// Listens on node ports of one loopback address.
#[derive(Debug)]
pub struct Relay {
    runtime: Handle,
    address: IpAddr,
    metrics: Arc<Metrics>,
    tcp_slots: tcp::Slots,
    udp_slots: udp::Slots,
    ports: HashMap<Key, Port>,
    /// Said already that there are more than [`MAX_PORTS`].
    said_too_many: bool,
}

/// How much the relay carries at a time, over all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections; a further one is reset at once and counted. Each needs two file
    /// descriptors.
    pub tcp_connections: usize,
    /// UDP clients remembered; a datagram of a further one is dropped and counted. Each
    /// needs a file descriptor.
    pub udp_clients: usize,
}

/// [`MAX_TCP_CONNECTIONS`] and [`MAX_UDP_CLIENTS`].
impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connections: MAX_TCP_CONNECTIONS,
            udp_clients: MAX_UDP_CLIENTS,
        }
    }
}

/// What a port is listened on for; two Services can't hold the same.
type Key = (Protocol, u16);

#[derive(Debug)]
struct Port {
    picker: Picker,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp {
        _port: TcpPort,
    },
    Udp(UdpPort),
    /// Could not listen; this was said in the log, for this Service.
    Failed(PlanId, String),
}

impl Relay {
    /// A relay at this address (`::1`; other loopback addresses for tests), whose tasks run
    /// on this runtime. It listens on nothing yet.
    #[must_use]
    pub fn new(runtime: Handle, address: IpAddr, metrics: Arc<Metrics>, limits: Limits) -> Self {
        Self {
            runtime,
            address,
            tcp_slots: tcp::Slots::new(limits.tcp_connections, Arc::clone(&metrics)),
            udp_slots: udp::Slots::new(limits.udp_clients, Arc::clone(&metrics)),
            metrics,
            ports: HashMap::new(),
            said_too_many: false,
        }
    }

    /// Makes the ports listened on those of `plans`: the node ports of TCP and UDP plans of
    /// the relay's family that have an endpoint. Connections that are open live on, also
    /// those of a port that is closed; UDP flows end with their port, or when their endpoint
    /// no longer serves. A port that can't be listened on is logged once, and tried again at
    /// each call. May be called from any thread; costs a look at every plan.
    pub fn reconcile<'a>(&mut self, plans: impl IntoIterator<Item = &'a Arc<ServicePlan>>) {
        let wanted = self.wanted(plans);
        self.ports.retain(|key, _| {
            let keep = wanted.contains_key(key);
            if !keep {
                tracing::debug!(protocol = %key.0, port = key.1, "relay stops listening");
            }
            keep
        });
        for (key, plan) in wanted {
            self.update(key, plan);
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let failed = self.not_listening().filter(|(_, key)| key.0 == protocol);
            let failed = failed.count();
            self.metrics.relay_not_listening.set(protocol, failed);
        }
    }

    /// The Service ports whose node port could not be listened on at the last call.
    pub fn not_listening(&self) -> impl Iterator<Item = (&PlanId, (Protocol, u16))> {
        self.ports
            .iter()
            .filter_map(|(key, port)| match &port.listener {
                Listener::Failed(id, _) => Some((id, *key)),
                Listener::Tcp { .. } | Listener::Udp(_) => None,
            })
    }

    fn wanted<'a>(
        &mut self,
        plans: impl IntoIterator<Item = &'a Arc<ServicePlan>>,
    ) -> HashMap<Key, &'a Arc<ServicePlan>> {
        let family = IpFamily::of(self.address);
        let mut wanted = HashMap::new();
        let mut left_out = 0_usize;
        for plan in plans {
            let is_relayed = matches!(plan.id.protocol, Protocol::Tcp | Protocol::Udp);
            if !is_relayed || plan.id.family != family || plan.cluster.is_empty() {
                continue;
            }
            let Some(node_port) = plan.node_port() else {
                continue;
            };
            if wanted.len() < MAX_PORTS {
                wanted.insert((plan.id.protocol, node_port), plan);
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 && !self.said_too_many {
            tracing::error!(
                left_out,
                "more than {MAX_PORTS} node ports: localhost does not reach the others"
            );
        }
        self.said_too_many = left_out > 0;
        wanted
    }

    fn update(&mut self, key: Key, plan: &Arc<ServicePlan>) {
        let said = match self.ports.get(&key) {
            Some(port) => match &port.listener {
                Listener::Tcp { .. } => return port.picker.set_plan(plan),
                Listener::Udp(udp) => {
                    port.picker.set_plan(plan);
                    return udp.end_stale_flows(plan);
                }
                Listener::Failed(id, error) => Some((id, error)),
            },
            None => None,
        };
        let address = SocketAddr::new(self.address, key.1);
        let picker = Picker::new(plan);
        let _runtime = self.runtime.enter();
        let opened = match key.0 {
            Protocol::Tcp => TcpPort::open(address, picker.clone(), &self.tcp_slots)
                .map(|port| Listener::Tcp { _port: port }),
            _ => UdpPort::open(address, picker.clone(), &self.udp_slots).map(Listener::Udp),
        };
        let listener = opened.unwrap_or_else(|error| {
            let error = error.to_string();
            if said != Some((&plan.id, &error)) {
                tracing::error!(
                    service = %plan.id, protocol = %key.0, %address, error,
                    "node port can't be listened on for localhost; trying again at each sync"
                );
            }
            Listener::Failed(plan.id.clone(), error)
        });
        self.ports.insert(key, Port { picker, listener });
    }
}
