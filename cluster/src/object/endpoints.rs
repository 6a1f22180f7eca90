use std::net::IpAddr;
use std::sync::Arc;

use super::{IpFamily, ObjectName, Protocol};

/// An EndpointSlice, or one (subset, family) of a legacy Endpoints object in the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice itself.
    pub name: ObjectName,
    /// The Service it belongs to (label `kubernetes.io/service-name`), in the same
    /// namespace; `None` without the label: then nobody uses the slice.
    pub service: Option<Arc<str>>,
    /// `addressType`; `None` for FQDN slices, which nobody uses.
    pub family: Option<IpFamily>,
    /// `ports`; entries without a name field or with no port number are left out. Empty
    /// where the slice gives none: the endpoints have addresses, but no known port.
    pub ports: Box<[SlicePort]>,
    /// `endpoints`; of each only `addresses[0]` is kept, as every consumer of Kubernetes
    /// reads it (the API documents the others as unused).
    pub endpoints: Box<[Endpoint]>,
    /// Label `service.kubernetes.io/headless` is present: not for proxies.
    pub headless: bool,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`, nanoseconds since
    /// 1970: when the pod or Service change happened that led to this version.
    pub trigger_unix_ns: Option<i64>,
}

impl EndpointSlice {
    /// Namespace and name of the Service, where the slice names one.
    #[must_use]
    pub fn service_name(&self) -> Option<ObjectName> {
        let name = self.service.clone()?;
        Some(ObjectName {
            namespace: self.name.namespace.clone(),
            name,
        })
    }
}

/// A port that every endpoint of a slice listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name that ties it to a Service's port, `""` where both are unnamed.
    pub name: Arc<str>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The number, never 0.
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is reached.
    pub address: IpAddr,
    /// Ready, serving, terminating, with the API's defaults applied.
    pub conditions: Conditions,
    /// Where it runs, where anything is known of that.
    pub place: Option<Arc<Place>>,
    /// Topology hints, where given.
    pub hints: Option<Arc<Hints>>,
    /// Names that DNS may give it, where there are any.
    pub naming: Option<Box<Naming>>,
}

impl Endpoint {
    /// The node it runs on, where known. Unknown is never local.
    #[must_use]
    pub fn node(&self) -> Option<&Arc<str>> {
        self.place.as_ref()?.node.as_ref()
    }

    /// The zone it runs in, where known.
    #[must_use]
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.place.as_ref()?.zone.as_ref()
    }
}

/// Where endpoints run: the same for all of a node, so they share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The node.
    pub node: Option<Arc<str>>,
    /// The zone.
    pub zone: Option<Arc<str>>,
}

/// What an endpoint may be called below its Service's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// `hostname`: of the pods of a StatefulSet, and of pods that set `hostname` and
    /// `subdomain`.
    pub hostname: Option<Box<str>>,
    /// `targetRef.name`, where `targetRef.kind` is Pod.
    pub pod: Option<Box<str>>,
}

/// Conditions of an endpoint after the API's defaults: ready unless said otherwise, serving
/// unless said otherwise, terminating only if said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Takes new traffic.
    pub ready: bool,
    /// Answers, whether or not it is on its way out.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
}

impl Conditions {
    /// A ready endpoint that stays.
    pub const READY: Self = Self {
        ready: true,
        serving: true,
        terminating: false,
    };
}

/// For whom endpoints are meant, by zone and by node: the same for many, who share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    /// `hints.forZones`.
    pub zones: Box<[Arc<str>]>,
    /// `hints.forNodes`.
    pub nodes: Box<[Arc<str>]>,
}

/// A `v1` Endpoints object, turned into slices: one for each subset and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyEndpoints {
    /// Namespace and name, which is also the Service's name.
    pub name: ObjectName,
    /// Its subsets.
    pub slices: Box<[Arc<EndpointSlice>]>,
}
