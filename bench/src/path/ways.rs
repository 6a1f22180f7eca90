//! The ways to reach a Service, and with what each is compared.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use switchyard_tests::testbed::{Family, Place};

use super::cluster::{Measured, SERVICE_PORT};

/// One way from a client to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// From pod to pod, by the endpoint's own address: what a proxy costs who does not need it.
    PodDirect,
    /// From a pod to a ClusterIP whose endpoint is the node's other pod.
    ClusterIpHere,
    /// From a pod to a ClusterIP whose endpoint is on another node.
    ClusterIpThere,
    /// From outside to a node port whose endpoint is on that node.
    NodePortHere,
    /// The same, with `externalTrafficPolicy: Local`.
    NodePortHereLocal,
    /// From outside to a node port whose endpoint is on that node, with a device of its own.
    NodePortHereVeth,
    /// From outside to a node port whose endpoint is on another node.
    NodePortThere,
}

impl Way {
    pub(super) const ALL: [Self; 7] = [
        Self::PodDirect,
        Self::ClusterIpHere,
        Self::ClusterIpThere,
        Self::NodePortHere,
        Self::NodePortHereLocal,
        Self::NodePortHereVeth,
        Self::NodePortThere,
    ];

    /// Where the client lives.
    pub(super) const fn client(self) -> Place {
        match self {
            Self::PodDirect | Self::ClusterIpHere | Self::ClusterIpThere => Place::Pod12,
            Self::NodePortHere
            | Self::NodePortHereLocal
            | Self::NodePortHereVeth
            | Self::NodePortThere => Place::Client,
        }
    }

    const fn service(self) -> Measured {
        match self {
            Self::PodDirect | Self::ClusterIpHere | Self::NodePortHere => Measured::Here,
            Self::NodePortHereLocal => Measured::HereLocal,
            Self::NodePortHereVeth => Measured::HereVeth,
            Self::ClusterIpThere | Self::NodePortThere => Measured::There,
        }
    }

    /// The endpoint's own address: the baseline.
    pub(super) fn endpoint(self) -> SocketAddr {
        self.service().endpoint()
    }

    /// What the client asks where there is a proxy.
    pub(super) fn target(self) -> SocketAddr {
        let service = self.service();
        match self {
            Self::PodDirect => service.endpoint(),
            Self::ClusterIpHere | Self::ClusterIpThere => {
                SocketAddr::new(IpAddr::V4(service.cluster_ip()), SERVICE_PORT)
            }
            Self::NodePortHere
            | Self::NodePortHereLocal
            | Self::NodePortHereVeth
            | Self::NodePortThere => {
                SocketAddr::new(Place::Node1.address(Family::IPv4), service.node_port())
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodDirect => "pod → pod, no Service",
            Self::ClusterIpHere => "pod → ClusterIP, endpoint here",
            Self::ClusterIpThere => "pod → ClusterIP, endpoint on another node",
            Self::NodePortHere => "outside → node port, endpoint here",
            Self::NodePortHereVeth => "outside → node port, endpoint here, not behind the bridge",
            Self::NodePortHereLocal => "outside → node port, policy Local",
            Self::NodePortThere => "outside → node port, endpoint on another node",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_a_target_of_its_own() {
        let mut targets: Vec<_> = Way::ALL.map(Way::target).to_vec();
        targets.sort();
        targets.dedup();
        assert_eq!(targets.len(), Way::ALL.len());
        assert_eq!(Way::PodDirect.target(), Way::PodDirect.endpoint());
    }
}
