use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::ObjectName;

/// A Node, as far as a service proxy looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name (cluster-wide, so the namespace is empty).
    pub name: ObjectName,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `status.addresses` of type InternalIP, in order.
    pub internal_ips: Box<[IpAddr]>,
    /// `status.addresses` of type ExternalIP, in order.
    pub external_ips: Box<[IpAddr]>,
    /// `spec.podCIDRs` (or `spec.podCIDR`).
    pub pod_cidrs: Box<[IpNet]>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Carries the taint `ToBeDeletedByClusterAutoscaler`.
    pub to_be_deleted: bool,
}

/// A `networking.k8s.io/v1` ServiceCIDR: ranges that ClusterIPs are allocated from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// The name (cluster-wide).
    pub name: ObjectName,
    /// `spec.cidrs`.
    pub cidrs: Box<[IpNet]>,
}
