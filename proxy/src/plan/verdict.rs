//! What one packet may do: the oracle every backend is tested against.

use std::net::IpAddr;
use std::sync::Arc;

use switchyard_cluster::object::{IpFamily, Protocol, TrafficPolicy};

use super::{Frontend, LocalDetector, NodeContext, ServicePlan, Target};

/// The first packet of a new flow, as it reaches the node or leaves one of its sockets.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// The interface it came in by; `None` when a process of the node sent it.
    pub in_interface: Option<String>,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent to any one of these; `true` where its source becomes the node's address.
    To(Vec<(Target, bool)>),
    /// Refused at once.
    Reject,
    /// Lost without a word.
    Drop,
    /// Nothing of ours touches it.
    NotOurs,
}

/// Decides on `packet` with every plan of the node, `local_addresses` being the addresses
/// its interfaces have.
#[must_use]
pub fn verdict<'a>(
    plans: impl Iterator<Item = &'a Arc<ServicePlan>>,
    node: &NodeContext,
    local_addresses: &[IpAddr],
    packet: &Packet,
) -> Verdict {
    let family = IpFamily::of(packet.destination);
    let sender = Sender {
        is_local_pod: is_local_pod(packet, node),
        is_node: local_addresses.contains(&packet.source),
        detects_pods: node.detector.is_implemented(family),
        address: packet.source,
    };
    let at_node_port = local_addresses.contains(&packet.destination)
        && accepts_node_ports(packet.destination, node);
    let mut is_cluster_ip = false;
    let mut node_port_plan = None;
    for plan in plans.filter(|plan| plan.id.family == family) {
        for frontend in &plan.frontends {
            let hit = plan.id.protocol == packet.protocol && plan.port == packet.port;
            match *frontend {
                Frontend::ClusterIp(address) if address == packet.destination => {
                    if hit {
                        return cluster_ip(plan, node, &sender);
                    }
                    is_cluster_ip = true;
                }
                Frontend::ExternalIp(address) if hit && address == packet.destination => {
                    return external(plan, &sender);
                }
                Frontend::LoadBalancerIp(address) if hit && address == packet.destination => {
                    return load_balancer(plan, &sender);
                }
                Frontend::NodePort(port)
                    if at_node_port
                        && port == packet.port
                        && plan.id.protocol == packet.protocol =>
                {
                    node_port_plan = Some(plan);
                }
                _ => {}
            }
        }
    }
    match node_port_plan {
        Some(plan) => external(plan, &sender),
        None if is_cluster_ip => Verdict::Reject,
        None => Verdict::NotOurs,
    }
}

struct Sender {
    address: IpAddr,
    is_local_pod: bool,
    is_node: bool,
    detects_pods: bool,
}

fn is_local_pod(packet: &Packet, node: &NodeContext) -> bool {
    let from = packet.in_interface.as_deref();
    match &node.detector {
        LocalDetector::Cidrs { .. } => node
            .detector
            .cidr(IpFamily::of(packet.source))
            .is_some_and(|pods| pods.contains(&packet.source)),
        LocalDetector::Bridge(bridge) => from == Some(bridge),
        LocalDetector::InterfacePrefix(prefix) => {
            from.is_some_and(|name| name.starts_with(prefix.as_str()))
        }
    }
}

fn accepts_node_ports(address: IpAddr, node: &NodeContext) -> bool {
    (!address.is_loopback() || node.localhost_node_ports)
        && node.node_port_addresses.accepts(address, &node.ips)
}

fn cluster_ip(plan: &ServicePlan, node: &NodeContext, sender: &Sender) -> Verdict {
    let from_elsewhere = sender.detects_pods && !sender.is_local_pod;
    let masquerade = node.masquerade_all || from_elsewhere;
    send(plan, plan.internal_policy, masquerade, sender)
}

fn load_balancer(plan: &ServicePlan, sender: &Sender) -> Verdict {
    if let Some(ranges) = plan.source_ranges.as_deref().filter(|_| plan.any_endpoint) {
        // A node that connects to a LoadBalancer IP it holds itself does so from that IP.
        let from_own_vip = plan.source_ranges_include_node
            && plan
                .load_balancer_ips()
                .any(|address| address == sender.address);
        if !from_own_vip && !ranges.iter().any(|range| range.contains(&sender.address)) {
            return Verdict::Drop;
        }
    }
    external(plan, sender)
}

fn external(plan: &ServicePlan, sender: &Sender) -> Verdict {
    match plan.external_policy {
        TrafficPolicy::Cluster => send(plan, TrafficPolicy::Cluster, true, sender),
        TrafficPolicy::Local if sender.detects_pods && sender.is_local_pod => {
            send(plan, TrafficPolicy::Cluster, false, sender)
        }
        TrafficPolicy::Local if sender.is_node => send(plan, TrafficPolicy::Cluster, true, sender),
        TrafficPolicy::Local => send(plan, TrafficPolicy::Local, false, sender),
    }
}

/// A packet that comes back to its own sender is always masqueraded: answered directly, it
/// would bypass the translation.
fn send(plan: &ServicePlan, policy: TrafficPolicy, masquerade: bool, sender: &Sender) -> Verdict {
    if !plan.any_endpoint {
        return Verdict::Reject;
    }
    let targets = plan.targets(policy);
    if targets.is_empty() {
        return Verdict::Drop;
    }
    let to = targets
        .iter()
        .map(|target| (*target, masquerade || target.address == sender.address));
    Verdict::To(to.collect())
}
