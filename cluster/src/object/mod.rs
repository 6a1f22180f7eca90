//! Compact objects: only the fields a service proxy or a DNS server reads.
//!
//! An endpoint costs 48 bytes plus its names, so a cluster of 100,000 endpoints fits in ten megabytes.
//! Names that repeat (nodes, zones, port names), places and topology hints are shared.

mod endpoints;
mod ipvs_scheduler;
mod name;
mod node;
mod pod;
mod service;

pub use endpoints::{
    Conditions, Endpoint, EndpointSlice, Hints, LegacyEndpoints, Naming, Place, SlicePort,
};
pub use ipvs_scheduler::IpvsScheduler;
pub use name::{Named, ObjectName};
pub use node::{Node, ServiceCidr};
pub use pod::{Namespace, Pod};
pub use service::{
    IpFamily, LoadBalancerIp, Protocol, Service, ServicePort, ServiceType, TrafficPolicy,
};

use std::sync::Arc;

/// The kinds of objects a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Endpoints, used only for Services that have no EndpointSlice.
    Endpoints,
    /// `v1` Node.
    Node,
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Pod.
    Pod,
}

impl Kind {
    /// Every kind, in the order in which their first lists are best read.
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::ServiceCidr,
        Self::Namespace,
        Self::Service,
        Self::EndpointSlice,
        Self::Endpoints,
        Self::Pod,
    ];

    /// What a service proxy follows, in that order.
    pub const FOR_PROXY: [Self; 5] = [
        Self::Node,
        Self::ServiceCidr,
        Self::Service,
        Self::EndpointSlice,
        Self::Endpoints,
    ];

    /// The kind as manifests and the API server write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One object of any kind. Cluster-wide objects have an empty namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// A legacy Endpoints object.
    Endpoints(Arc<LegacyEndpoints>),
    /// A Node.
    Node(Arc<Node>),
    /// A ServiceCIDR.
    ServiceCidr(Arc<ServiceCidr>),
    /// A Namespace.
    Namespace(Arc<Namespace>),
    /// A Pod.
    Pod(Arc<Pod>),
}

impl Object {
    /// Which kind this object is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Node(_) => Kind::Node,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
            Self::Namespace(_) => Kind::Namespace,
            Self::Pod(_) => Kind::Pod,
        }
    }

    /// The object's own name.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        match self {
            Self::Service(object) => &object.name,
            Self::EndpointSlice(object) => &object.name,
            Self::Endpoints(object) => &object.name,
            Self::Node(object) => &object.name,
            Self::ServiceCidr(object) => &object.name,
            Self::Namespace(object) => &object.name,
            Self::Pod(object) => &object.name,
        }
    }
}

macro_rules! named {
    ($($object:ty),*) => {
        $(impl Named for $object {
            fn name(&self) -> &ObjectName {
                &self.name
            }
        })*
    };
}

named!(
    Service,
    EndpointSlice,
    LegacyEndpoints,
    Node,
    ServiceCidr,
    Namespace,
    Pod
);
