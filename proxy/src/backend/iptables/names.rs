//! Names that operators know: chains by a hash of the Service port, fixed chains by name.

use std::net::SocketAddr;

use data_encoding::BASE32;
use sha2::{Digest, Sha256};

use crate::plan::PlanId;

/// How much of the base32 text of the hash a chain's name carries.
const HASH_CHARS: usize = 16;

/// Entry of everything sent to a Service.
pub(super) const SERVICES: &str = "KUBE-SERVICES";
/// Services reached from outside (filter), to refuse what has no endpoint.
pub(super) const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
/// Node ports (nat), ports of health checks (filter).
pub(super) const NODE_PORTS: &str = "KUBE-NODEPORTS";
/// What source ranges did not let in.
pub(super) const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
/// Guard of the loopback network; kubelet writes the same chain.
pub(super) const FIREWALL: &str = "KUBE-FIREWALL";
/// Lets our own forwarded traffic through.
pub(super) const FORWARD: &str = "KUBE-FORWARD";
/// Masquerades what carries the mark.
pub(super) const POSTROUTING: &str = "KUBE-POSTROUTING";
/// Sets the mark.
pub(super) const MARK_MASQ: &str = "KUBE-MARK-MASQ";
/// Empty; its absence tells that somebody flushed the table.
pub(super) const CANARY: &str = "KUBE-PROXY-CANARY";

/// Prefixes of the chains that belong to one Service port. KUBE-XLB- is what versions of the
/// reference before 1.24 wrote.
pub(super) const PER_SERVICE_PREFIXES: [&str; 6] = [
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-SEP-",
    "KUBE-XLB-",
];

/// The chains of one Service port.
pub(super) struct ServiceChains {
    hash: String,
}

impl ServiceChains {
    pub(super) fn new(id: &PlanId) -> Self {
        Self {
            hash: hash(&[&id.to_string(), id.protocol.as_str()]),
        }
    }

    /// To any endpoint.
    pub(super) fn cluster(&self) -> String {
        format!("KUBE-SVC-{}", self.hash)
    }

    /// To endpoints of this node.
    pub(super) fn local(&self) -> String {
        format!("KUBE-SVL-{}", self.hash)
    }

    /// For traffic from outside.
    pub(super) fn external(&self) -> String {
        format!("KUBE-EXT-{}", self.hash)
    }

    /// For traffic to LoadBalancer IPs with source ranges.
    pub(super) fn firewall(&self) -> String {
        format!("KUBE-FW-{}", self.hash)
    }
}

/// The chain of one endpoint of a Service port.
pub(super) fn endpoint_chain(id: &PlanId, endpoint: SocketAddr) -> String {
    let hash = hash(&[&id.to_string(), id.protocol.as_str(), &endpoint.to_string()]);
    format!("KUBE-SEP-{hash}")
}

fn hash(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
    }
    let mut text = BASE32.encode(&digest.finalize());
    text.truncate(HASH_CHARS);
    text
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::object::{IpFamily, ObjectName, Protocol};

    use super::*;

    fn id(namespace: &str, name: &str, port: &str, protocol: Protocol) -> PlanId {
        let service = ObjectName::new(namespace, name);
        PlanId {
            service,
            port_name: port.into(),
            protocol,
            family: IpFamily::V4,
        }
    }

    /// Values of the reference.
    #[test]
    fn names_are_those_operators_know() {
        let svc1 = id("ns1", "svc1", "p80", Protocol::Tcp);
        assert_eq!(
            ServiceChains::new(&svc1).cluster(),
            "KUBE-SVC-XPGD46QRK7WJZT7O"
        );
        let endpoint = "10.180.0.1:80".parse().unwrap();
        assert_eq!(endpoint_chain(&svc1, endpoint), "KUBE-SEP-SXIVWICOYRO3J4NJ");
        let api = id("default", "kubernetes", "https", Protocol::Tcp);
        assert_eq!(
            ServiceChains::new(&api).external(),
            "KUBE-EXT-NPX46M4PTMTKRN6Y"
        );
        let dns = id("kube-system", "kube-dns", "dns", Protocol::Udp);
        assert_eq!(
            ServiceChains::new(&dns).local(),
            "KUBE-SVL-TCOU7JCQXEZGVUNU"
        );
        let dns = id("kube-system", "kube-dns", "dns-tcp", Protocol::Tcp);
        assert_eq!(
            ServiceChains::new(&dns).firewall(),
            "KUBE-FW-ERIFXISQEP7F7OF4"
        );
    }
}
