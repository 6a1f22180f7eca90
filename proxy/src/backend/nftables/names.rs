//! Names that operators know: chains and sets by a hash of the Service port and its name in
//! full, fixed ones by name.

use std::net::SocketAddr;
use std::sync::Arc;

use data_encoding::BASE32;
use sha2::{Digest, Sha256};

use crate::plan::PlanId;

/// The table, in each family.
pub(super) const TABLE: &str = "kube-proxy";

/// How much of the base32 text of the hash a name carries.
const HASH_CHARS: usize = 8;
/// The longest hash and base together: what the kernel takes (256 bytes) less the longest prefix.
const BASE_MAX: usize = 240;
/// Ends a name that was cut.
const CUT: &str = "...";

/// What is sent to a Service is led to its chain here.
pub(super) const SERVICES: &str = "services";
/// Who may use LoadBalancer addresses with source ranges.
pub(super) const FIREWALL_CHECK: &str = "firewall-check";
/// Services without endpoints.
pub(super) const SERVICE_ENDPOINTS_CHECK: &str = "service-endpoints-check";
/// Node ports without endpoints.
pub(super) const NODE_PORT_ENDPOINTS_CHECK: &str = "nodeport-endpoints-check";
/// Ports that a ClusterIP does not have, and ClusterIPs that no Service has.
pub(super) const CLUSTER_IPS_CHECK: &str = "cluster-ips-check";
/// Masquerades what carries the mark, and what comes back to its sender.
pub(super) const MASQUERADING: &str = "masquerading";
/// To one of the few endpoints of a VIP.
pub(super) const FEW_ENDPOINTS: &str = "few-endpoints";
/// Refuses.
pub(super) const REJECT: &str = "reject-chain";

/// Prefixes of the chains that belong to one Service port.
const CHAIN_PREFIXES: [&str; 5] = ["service-", "local-", "external-", "endpoint-", "firewall-"];
/// Prefix of the sets that remember the clients of an endpoint.
const AFFINITY_PREFIX: &str = "affinity-";

/// The chains and sets of one Service port.
pub(super) struct ServiceNames {
    base: String,
    hashed: String,
}

impl ServiceNames {
    pub(super) fn new(id: &PlanId) -> Self {
        let service = &id.service;
        let base = format!(
            "{}/{}/{}/{}",
            service.namespace, service.name, id.protocol, id.port_name
        );
        let hashed = hashed(&base);
        Self { base, hashed }
    }

    /// To any endpoint.
    pub(super) fn cluster(&self) -> Arc<str> {
        self.named("service-")
    }

    /// To endpoints of this node.
    pub(super) fn local(&self) -> Arc<str> {
        self.named("local-")
    }

    /// What comes by another address than the ClusterIP.
    pub(super) fn external(&self) -> Arc<str> {
        self.named("external-")
    }

    /// Source ranges.
    pub(super) fn firewall(&self) -> Arc<str> {
        self.named("firewall-")
    }

    /// One endpoint of a Service with affinity: its chain, and the set of its clients.
    pub(super) fn endpoint(&self, endpoint: SocketAddr) -> (Arc<str>, Arc<str>) {
        let ip = endpoint.ip().to_string().replace(':', ".");
        let hashed = hashed(&format!("{}__{ip}/{}", self.base, endpoint.port()));
        let name = |prefix: &str| Arc::from(format!("{prefix}{hashed}"));
        (name("endpoint-"), name(AFFINITY_PREFIX))
    }

    fn named(&self, prefix: &str) -> Arc<str> {
        Arc::from(format!("{prefix}{}", self.hashed))
    }
}

fn hashed(base: &str) -> String {
    let mut name = BASE32.encode(&Sha256::digest(base));
    name.truncate(HASH_CHARS);
    name.push('-');
    name.push_str(base);
    if name.len() > BASE_MAX {
        let mut end = BASE_MAX - CUT.len();
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        name.push_str(CUT);
    }
    name
}

/// Whether a chain of this name belongs to a single Service port.
pub(super) fn is_per_service(chain: &str) -> bool {
    chain != FIREWALL_CHECK
        && CHAIN_PREFIXES
            .iter()
            .any(|prefix| chain.starts_with(prefix))
        && chain != SERVICE_ENDPOINTS_CHECK
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::object::{IpFamily, ObjectName, Protocol};

    use super::*;

    fn names(namespace: &str, name: &str, port: &str) -> ServiceNames {
        ServiceNames::new(&PlanId {
            service: ObjectName::new(namespace, name),
            port_name: port.into(),
            protocol: Protocol::Tcp,
            family: IpFamily::V4,
        })
    }

    /// Names that the reference gives.
    #[test]
    fn names_are_the_reference_s() {
        let svc1 = names("ns1", "svc1", "p80");
        assert_eq!(&*svc1.cluster(), "service-ULMVA6XW-ns1/svc1/tcp/p80");
        let (chain, set) = names("ns5", "svc5", "p80").endpoint("10.180.0.3:80".parse().unwrap());
        assert_eq!(&*chain, "endpoint-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80");
        assert_eq!(&*set, "affinity-GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80");
        let (v6, _) = svc1.endpoint("[fd00::1]:80".parse().unwrap());
        assert!(v6.ends_with("-ns1/svc1/tcp/p80__fd00..1/80"), "{v6}");
        let unnamed = names("default", "unnamed-port", "");
        let expected = "service-OSFVHJ3Y-default/unnamed-port/tcp/";
        assert_eq!(&*unnamed.cluster(), expected);
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let long = "n".repeat(250);
        let (one, two) = (names("a", &long, "p"), names("a", &long, "q"));
        assert_ne!(one.cluster(), two.cluster());
        assert_eq!(one.external().len(), "external-".len() + BASE_MAX);
        assert!(one.external().ends_with("nnn..."));
    }

    #[test]
    fn fixed_chains_belong_to_no_service() {
        for fixed in [SERVICES, FIREWALL_CHECK, SERVICE_ENDPOINTS_CHECK, REJECT] {
            assert!(!is_per_service(fixed), "{fixed}");
        }
        assert!(is_per_service("service-ULMVA6XW-ns1/svc1/tcp/p80"));
    }
}
