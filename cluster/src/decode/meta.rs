use serde::Deserialize;

use crate::interner::Interner;
use crate::object::{Kind, ObjectName};
use crate::update::Problem;

/// The namespace of an object that names none, as `kubectl apply` has it.
const DEFAULT_NAMESPACE: &str = "default";

/// `metadata`, as far as we read it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    pub(super) resource_version: Option<Box<str>>,
    pub(super) creation_timestamp: Option<String>,
    pub(super) deletion_timestamp: Option<String>,
    #[serde(default)]
    pub(super) labels: Option<Labels>,
    #[serde(default)]
    pub(super) annotations: Option<Annotations>,
}

/// The labels we read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    pub(super) service_name: Option<String>,
    #[serde(rename = "service.kubernetes.io/headless")]
    pub(super) headless: Option<String>,
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub(super) service_proxy_name: Option<String>,
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub(super) zone: Option<String>,
}

/// The annotations we read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(super) trigger_time: Option<String>,
    #[serde(rename = "switchyard.dev/ipvs-scheduler")]
    pub(super) ipvs_scheduler: Option<String>,
}

/// Any object, when only its identity matters.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) metadata: Option<Identity>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    name: Option<String>,
    namespace: Option<String>,
    pub(super) resource_version: Option<Box<str>>,
}

impl Identity {
    pub(super) fn object_name(
        &self,
        kind: Kind,
        names: &mut Interner,
    ) -> Result<ObjectName, Problem> {
        object_name(kind, self.name.as_deref(), self.namespace.as_deref(), names)
    }
}

/// An object as it was read, with its `metadata`.
pub(super) trait HasMeta {
    fn meta(&self) -> &Meta;
}

impl Meta {
    pub(super) fn object_name(
        &self,
        kind: Kind,
        names: &mut Interner,
    ) -> Result<ObjectName, Problem> {
        object_name(kind, self.name.as_deref(), self.namespace.as_deref(), names)
    }

    /// The zone label.
    pub(super) fn zone(&self) -> Option<&str> {
        self.labels.as_ref()?.zone.as_deref()
    }

    /// The Service that a slice names by label.
    pub(super) fn service_name(&self) -> Option<&str> {
        self.labels.as_ref()?.service_name.as_deref()
    }

    /// Whether the headless label is there, with any value.
    pub(super) fn headless(&self) -> bool {
        let labels = self.labels.as_ref();
        labels.is_some_and(|labels| labels.headless.is_some())
    }

    /// Whether the label that asks for another proxy is there, with any value.
    pub(super) fn proxied_elsewhere(&self) -> bool {
        let labels = self.labels.as_ref();
        labels.is_some_and(|labels| labels.service_proxy_name.is_some())
    }

    /// The annotation that names a scheduler of IPVS.
    pub(super) fn ipvs_scheduler(&self) -> Option<&str> {
        self.annotations.as_ref()?.ipvs_scheduler.as_deref()
    }

    /// The annotation that says when the change behind this version happened.
    pub(super) fn trigger_time(&self) -> Option<&str> {
        self.annotations.as_ref()?.trigger_time.as_deref()
    }
}

fn object_name(
    kind: Kind,
    name: Option<&str>,
    namespace: Option<&str>,
    names: &mut Interner,
) -> Result<ObjectName, Problem> {
    let name = name.unwrap_or_default();
    if name.is_empty() {
        return Err(Problem {
            place: String::new(),
            field: "metadata.name".to_owned(),
            message: format!("missing: expected the name of the {kind}"),
        });
    }
    let namespace = match kind {
        Kind::Node | Kind::ServiceCidr | Kind::Namespace => "",
        Kind::Service | Kind::EndpointSlice | Kind::Endpoints | Kind::Pod => namespace
            .filter(|given| !given.is_empty())
            .unwrap_or(DEFAULT_NAMESPACE),
    };
    let name = match kind {
        // Names of slices and pods are used once; names of Services come back on their
        // slices, those of Namespaces on all that live in them.
        Kind::EndpointSlice | Kind::Pod => name.into(),
        _ => names.share(name),
    };
    Ok(ObjectName::new(names.share(namespace), name))
}
