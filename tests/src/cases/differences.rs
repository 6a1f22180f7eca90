//! What a backend may do otherwise than a case says, by design: data with a reason for each.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::backend::Backend;
use super::expect::Expect;
use super::format::{PacketSpec, parsed_list};
use super::service::{IngressSpec, PortSpec, ServiceSpec};
use crate::testbed::{Outcome, Place, Protocol};

const EBPF: &str = include_str!("../../cases/differences-ebpf.yaml");
const IPVS: &str = include_str!("../../cases/differences-ipvs.yaml");

/// The differences of one backend.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    differences: Vec<Difference>,
}

/// One difference: the packets it is about, and what they may meet instead.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Difference {
    /// A name for reports.
    name: String,
    /// Why the design has it.
    why: String,
    /// All that is given must hold for the packet.
    when: When,
    /// And nothing of this.
    #[serde(default)]
    unless: Unless,
    allows: Allowed,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct When {
    #[serde(deserialize_with = "parsed_list")]
    from: Vec<Place>,
    proto: Option<ProtocolWord>,
    /// `masq: y` is expected.
    #[serde(default)]
    masqueraded: bool,
    /// `expect: drop`.
    #[serde(default)]
    dropped: bool,
    /// It belongs to a `flow`.
    #[serde(default)]
    flow: bool,
    /// `masq: n` is expected.
    #[serde(default)]
    kept: bool,
    /// It goes to a node port, an external or a LoadBalancer address of a Service with
    /// externalTrafficPolicy Local.
    #[serde(default)]
    external_local: bool,
    /// No Service has the address any more.
    #[serde(default)]
    gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolWord {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Unless {
    /// One of these flags is given to the proxy.
    flags: Vec<String>,
    /// It goes from a pod to a LoadBalancer address whose Service has source ranges.
    pod_to_ranges: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Allowed {
    /// Whose address the endpoint sees is not judged.
    AnySource,
    /// "Operation not permitted" is as good as no answer.
    Denied,
    /// The socket may be destroyed; the client makes a new one and goes on.
    NewSocket,
    /// Some of the endpoints that are expected may be left out.
    FewerEndpoints,
    /// Affinity holds for each address of a Service by itself.
    AffinityByAddress,
    /// Affinity may outlast its time-out.
    LongerAffinity,
    /// The flow is not judged.
    EndedFlow,
}

/// What one packet may meet beyond its expectation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leeway {
    /// Whose address the endpoint sees is not judged.
    pub any_source: bool,
    /// "Operation not permitted" is as good as no answer.
    pub denied_is_dropped: bool,
    /// A flow may go on from another socket when its own is destroyed.
    pub new_socket: bool,
    /// Not every endpoint that is expected need answer.
    pub fewer_endpoints: bool,
    /// An endpoint remembered at another address says nothing.
    pub affinity_by_address: bool,
    /// The client may still be at the endpoint it should have left by now.
    pub longer_affinity: bool,
    /// The flow may have ended.
    pub ended_flow: bool,
}

impl Leeway {
    /// The outcome as it is judged.
    pub fn taken(self, outcome: Outcome) -> Outcome {
        if self.denied_is_dropped && outcome == Outcome::Denied {
            Outcome::TimedOut
        } else {
            outcome
        }
    }
}

/// What is known beside the packet itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    pub(super) flags: &'a [String],
    pub(super) services: &'a BTreeMap<String, ServiceSpec>,
}

impl Differences {
    /// The differences a backend is allowed; the iptables backends have none.
    ///
    /// # Errors
    /// The file does not follow its notation, or a difference has no name or no reason.
    pub fn of(backend: Backend) -> Result<Self> {
        let (file, text) = match backend {
            Backend::EBPF | Backend::EBPF_DIRECT => ("differences-ebpf.yaml", EBPF),
            _ if backend.is_ipvs() => ("differences-ipvs.yaml", IPVS),
            _ => return Ok(Self::default()),
        };
        let all: Self = serde_saphyr::from_str(text).context(file)?;
        for difference in &all.differences {
            if difference.name.is_empty() || difference.why.is_empty() {
                bail!(
                    "{file}: `{}`: a difference has a name and a reason",
                    difference.name
                );
            }
        }
        Ok(all)
    }

    pub(super) fn leeway(&self, packet: &PacketSpec, situation: Situation<'_>) -> Leeway {
        let mut leeway = Leeway::default();
        for difference in &self.differences {
            if !difference.when.holds(packet, situation)
                || difference.unless.holds(packet, situation)
            {
                continue;
            }
            match difference.allows {
                Allowed::AnySource => leeway.any_source = true,
                Allowed::Denied => leeway.denied_is_dropped = true,
                Allowed::NewSocket => leeway.new_socket = true,
                Allowed::FewerEndpoints => leeway.fewer_endpoints = true,
                Allowed::AffinityByAddress => leeway.affinity_by_address = true,
                Allowed::LongerAffinity => leeway.longer_affinity = true,
                Allowed::EndedFlow => leeway.ended_flow = true,
            }
        }
        leeway
    }
}

impl When {
    fn holds(&self, packet: &PacketSpec, situation: Situation<'_>) -> bool {
        let protocol = match packet.proto {
            Protocol::Tcp => ProtocolWord::Tcp,
            Protocol::Udp => ProtocolWord::Udp,
        };
        self.from.contains(&packet.from)
            && self.proto.is_none_or(|wanted| wanted == protocol)
            && (!self.masqueraded || packet.masq == Some(true))
            && (!self.dropped || packet.expect == Expect::Drop)
            && (!self.flow || packet.flow.is_some())
            && (!self.kept || packet.masq == Some(false))
            && (!self.gone
                || !situation
                    .services
                    .values()
                    .any(|service| has_address(service, packet.to)))
            && (!self.external_local
                || situation
                    .services
                    .values()
                    .any(|service| is_external_local(service, packet.to)))
    }
}

impl Unless {
    fn holds(&self, packet: &PacketSpec, situation: Situation<'_>) -> bool {
        let by_flag = self.flags.iter().any(|flag| situation.flags.contains(flag));
        let pod = packet.from.lives_on_node1() && packet.from != Place::Node1;
        by_flag
            || self.pod_to_ranges
                && pod
                && situation
                    .services
                    .values()
                    .any(|service| has_ranges_for(service, packet.to))
    }
}

/// Whether `to` is an external way into the Service, other than its node port on localhost, and its
/// policy Local.
fn is_external_local(service: &ServiceSpec, to: SocketAddr) -> bool {
    let is_vip = |text: &String| text.parse() == Ok(to.ip());
    let vip = service.external_ips.iter().any(is_vip) || is_load_balancer(service, to);
    let here = vip && service.ports.iter().any(|port| port.port == to.port());
    let is_node_port = |port: &PortSpec| port.node_port == to.port();
    let node = !to.ip().is_loopback() && service.ports.iter().any(is_node_port);
    service.external_traffic_policy.as_deref() == Some("Local") && (here || node)
}

/// Whether `to` is a VIP or a node port of the Service.
fn has_address(service: &ServiceSpec, to: SocketAddr) -> bool {
    let is_vip = |text: &String| text.parse() == Ok(to.ip());
    service.cluster_ip.iter().any(is_vip)
        || service.external_ips.iter().any(is_vip)
        || is_load_balancer(service, to)
        || service.ports.iter().any(|port| port.node_port == to.port())
}

fn is_load_balancer(service: &ServiceSpec, to: SocketAddr) -> bool {
    service.load_balancer.iter().any(|point| match point {
        IngressSpec::Address(ip) => *ip == to.ip(),
        IngressSpec::Full { ip, .. } => *ip == Some(to.ip()),
    })
}

/// Whether `to` is a LoadBalancer address of the Service, and its source ranges keep anybody out.
fn has_ranges_for(service: &ServiceSpec, to: SocketAddr) -> bool {
    let own = is_load_balancer(service, to);
    let all = |range: &String| range.trim().ends_with("/0");
    own && service.ports.iter().any(|port| port.port == to.port())
        && !service.source_ranges.is_empty()
        && !service.source_ranges.iter().any(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(text: &str) -> PacketSpec {
        serde_saphyr::from_str(text).unwrap()
    }

    fn leeway(packet: &PacketSpec, flags: &[String]) -> Leeway {
        let ranged: ServiceSpec = serde_saphyr::from_str(
            "{ports: [\"80->8080\"], loadBalancer: [203.0.113.71], sourceRanges: [\"192.168.100.0/24\"]}",
        )
        .unwrap();
        let services = BTreeMap::from([("svc1".to_owned(), ranged)]);
        let situation = Situation {
            flags,
            services: &services,
        };
        Differences::of(Backend::EBPF)
            .unwrap()
            .leeway(packet, situation)
    }

    #[test]
    fn only_ebpf_has_differences() {
        assert!(
            !Differences::of(Backend::EBPF)
                .unwrap()
                .differences
                .is_empty()
        );
        let nft = Differences::of(Backend::IPTABLES_NFT).unwrap();
        assert!(nft.differences.is_empty());
    }

    #[test]
    fn sources_are_not_judged_where_the_socket_is_translated() {
        let hairpin = packet("{from: pod11, to: \"10.96.1.1:80\", expect: [10.244.1.11], masq: y}");
        assert!(leeway(&hairpin, &[]).any_source);
        assert!(!leeway(&hairpin, &["--masquerade-all".to_owned()]).any_source);
        let outside =
            packet("{from: client, to: \"10.96.1.1:80\", expect: [10.244.1.11], masq: y}");
        assert_eq!(leeway(&outside, &[]), Leeway::default());
        let kept = packet("{from: pod12, to: \"10.96.1.1:80\", expect: [10.244.1.11], masq: n}");
        assert_eq!(leeway(&kept, &[]), Leeway::default());
    }

    #[test]
    fn what_is_left_to_the_device_is_judged() {
        let pod = packet("{from: pod12, to: \"203.0.113.71:80\", expect: [10.244.1.11], masq: y}");
        assert!(!leeway(&pod, &[]).any_source);
        let node = packet("{from: node1, to: \"203.0.113.71:80\", expect: [10.244.1.11], masq: y}");
        assert!(leeway(&node, &[]).any_source);
        let port = packet("{from: pod12, to: \"203.0.113.71:81\", expect: [10.244.1.11], masq: y}");
        assert!(leeway(&port, &[]).any_source);
    }

    #[test]
    fn only_what_must_be_dropped_may_be_denied() {
        let dropped = packet("{from: pod12, to: \"10.96.1.1:80\", expect: drop}");
        let leeway_of_drop = leeway(&dropped, &[]);
        assert_eq!(leeway_of_drop.taken(Outcome::Denied), Outcome::TimedOut);
        let refused = packet("{from: pod12, to: \"10.96.1.1:80\", expect: reject}");
        assert_eq!(
            leeway(&refused, &[]).taken(Outcome::Denied),
            Outcome::Denied
        );
    }

    #[test]
    fn only_flows_of_udp_may_change_their_socket() {
        let flow =
            packet("{from: pod12, flow: f, proto: udp, to: \"10.96.1.1:53\", expect: reject}");
        assert!(leeway(&flow, &[]).new_socket);
        let tcp = packet("{from: pod12, flow: f, to: \"10.96.1.1:53\", expect: [10.244.1.11]}");
        assert!(!leeway(&tcp, &[]).new_socket);
    }
}
