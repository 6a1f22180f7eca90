//! Where the eBPF backend departs from the oracle, by design: each with its reason. The same
//! list, as operators' tests have it, is `tests/cases/differences-ebpf.yaml`.

use std::net::IpAddr;

use switchyard_cluster::object::{IpFamily, Protocol, TrafficPolicy};

use super::world::World;
use crate::plan::{Frontend, LocalDetector, Packet, ServicePlan};

/// Something that may be otherwise than the oracle says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Difference {
    /// No packet of a socket that was translated ever carries the VIP: the answer comes straight
    /// back to the address it leaves with, hairpin included. There is nothing to masquerade.
    SourceAtTheSocket,
    /// An external address that the node does not have, at a port that no Service has: sent on,
    /// the packet of somebody else would come back from the next router, and again.
    UnknownPortOutside,
}

impl Difference {
    pub(super) const ALL: [Self; 2] = [Self::SourceAtTheSocket, Self::UnknownPortOutside];
}

/// Why a pod's socket is left alone, and its packets translated at the pod's device. What comes
/// out of it in the end is what the oracle says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// The agent was told to leave pods' sockets alone.
    HostOnly,
    /// The operator asks for masquerading, which is not done at sockets.
    MasqueradeAll,
    /// Source ranges are about the packet's source address, which a socket may not have yet.
    SourceRanges,
    /// Whether the pod is one of this node is told by its device, and the policy depends on it.
    PodsByDevice,
}

impl Left {
    pub(super) const ALL: [Self; 4] = [
        Self::HostOnly,
        Self::MasqueradeAll,
        Self::SourceRanges,
        Self::PodsByDevice,
    ];

    /// Why the socket that sends this packet is left alone, if it is.
    pub(super) fn of(world: &World, packet: &Packet) -> Option<Self> {
        packet.in_interface.as_deref()?;
        if world.host_only {
            return Some(Self::HostOnly);
        }
        let (plan, frontend) = plan_of(world, packet)?;
        if world.node.masquerade_all {
            return Some(Self::MasqueradeAll);
        }
        let is_balancer = matches!(frontend, Frontend::LoadBalancerIp(_));
        if is_balancer && plan.source_ranges.is_some() && plan.any_endpoint {
            return Some(Self::SourceRanges);
        }
        let by_device = !matches!(world.node.detector, LocalDetector::Cidrs { .. });
        let is_external = !matches!(frontend, Frontend::ClusterIp(_));
        let is_local = plan.external_policy == TrafficPolicy::Local;
        (by_device && is_external && is_local).then_some(Self::PodsByDevice)
    }
}

/// The plan that a packet hits, and where.
pub(super) fn plan_of<'a>(
    world: &'a World,
    packet: &Packet,
) -> Option<(&'a ServicePlan, Frontend)> {
    let of = |address: IpAddr, protocol: Protocol, port: u16| {
        let family = IpFamily::of(address);
        let plans = world.plans.plans();
        let mut plans =
            plans.filter(move |plan| plan.id.family == family && plan.id.protocol == protocol);
        let at_address = |plan: &&ServicePlan| {
            plan.frontends
                .iter()
                .copied()
                .find(|frontend| match frontend {
                    Frontend::ClusterIp(at)
                    | Frontend::ExternalIp(at)
                    | Frontend::LoadBalancerIp(at) => plan.port == port && *at == address,
                    Frontend::NodePort(_) => false,
                })
        };
        plans.find_map(|plan| Some((&**plan, at_address(&&**plan)?)))
    };
    of(packet.destination, packet.protocol, packet.port).or_else(|| {
        let is_here = world.local.contains(&packet.destination);
        let node_port = Frontend::NodePort(packet.port);
        let mut plans = world.plans.plans().filter(|plan| {
            plan.id.family == IpFamily::of(packet.destination)
                && plan.id.protocol == packet.protocol
                && plan.frontends.contains(&node_port)
        });
        let plan = plans.next().filter(|_| is_here)?;
        Some((plan, node_port))
    })
}

/// Whether a packet is to an external address that nobody here has, and not from a pod that is
/// known to be one of this node's.
pub(super) fn would_loop(world: &World, packet: &Packet) -> bool {
    let Some(device) = packet.in_interface.as_deref() else {
        return false;
    };
    let is_external = world.plans.plans().any(|plan| {
        plan.frontends.iter().any(|frontend| match frontend {
            Frontend::ExternalIp(at) | Frontend::LoadBalancerIp(at) => *at == packet.destination,
            _ => false,
        })
    });
    let is_pod = match &world.node.detector {
        LocalDetector::Bridge(bridge) => device == bridge,
        LocalDetector::InterfacePrefix(prefix) => device.starts_with(prefix.as_str()),
        LocalDetector::Cidrs { .. } => world
            .node
            .detector
            .cidr(IpFamily::of(packet.source))
            .is_some_and(|pods| pods.contains(&packet.source)),
    };
    is_external && !is_pod && !world.local.contains(&packet.destination)
}
