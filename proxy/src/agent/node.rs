//! What policy needs of this node, from its Node object and the settings.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use switchyard_cluster::object::{IpFamily, Node};

use crate::plan::{LocalDetector, NodeContext};
use crate::settings::{DetectLocal, Settings};

/// The context while the node's object is (or, `None`, is not) known.
pub(crate) fn context(settings: &Settings, node: Option<&Node>) -> NodeContext {
    NodeContext {
        name: settings.node_name.as_str().into(),
        zone: node.and_then(|node| node.zone.clone()),
        ips: addresses(settings, node),
        detector: detector(settings, node),
        masquerade_all: settings.masquerade_all,
        node_port_addresses: settings.node_port_addresses.clone(),
        localhost_node_ports: settings.localhost_node_ports,
    }
}

/// The address the operator names, then the Node object's of each family.
fn addresses(settings: &Settings, node: Option<&Node>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = settings.bind_address.into_iter().collect();
    let known = node
        .iter()
        .flat_map(|node| node.internal_ips.iter())
        .copied();
    for address in known {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn detector(settings: &Settings, node: Option<&Node>) -> LocalDetector {
    let first = |networks: &[IpNet], family| {
        networks
            .iter()
            .copied()
            .find(|network| IpFamily::of_net(*network) == family)
    };
    let cidrs = |networks: &[IpNet]| LocalDetector::Cidrs {
        v4: first(networks, IpFamily::V4),
        v6: first(networks, IpFamily::V6),
    };
    match &settings.detect_local {
        DetectLocal::ClusterCidr(networks) => cidrs(networks),
        DetectLocal::NodeCidr => cidrs(node.map_or(&[], |node| &node.pod_cidrs)),
        DetectLocal::BridgeInterface(name) => LocalDetector::Bridge(name.clone()),
        DetectLocal::InterfaceNamePrefix(prefix) => LocalDetector::InterfacePrefix(prefix.clone()),
    }
}

/// Whether load balancers may send traffic here: not to a node that is on its way out, nor
/// to one that the API server does not know. Where no Node object is to be expected (a folder
/// of manifests may have none) nothing speaks against it.
pub(super) fn is_eligible(node: Option<&Arc<Node>>, is_expected: bool) -> bool {
    match node {
        Some(node) => !node.deleting && !node.to_be_deleted,
        None => !is_expected,
    }
}
