use crate::decode::Keep;
use crate::object::Kind;

/// Pods whose addresses count: the others have ended, and are many.
const LIVING_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Unknown";

/// One kind of objects, narrowed by selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The kind.
    pub kind: Kind,
    /// `labelSelector`.
    pub labels: Option<String>,
    /// `fieldSelector`. Only the API server applies it; a source without one sends all.
    pub fields: Option<String>,
    /// A server that does not have this kind, or does not show it to us, counts as having
    /// none, so that nothing else waits for it.
    pub optional: bool,
}

/// What a DNS server is asked to answer, as far as it decides what to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DnsNeeds {
    /// Leave endpoints out (`noendpoints`).
    pub no_endpoints: bool,
    /// Follow Pods (`pods verified`, autopath).
    pub pods: bool,
    /// Name endpoints after their pods (`endpoint_pod_names`).
    pub endpoint_pod_names: bool,
    /// Keep the endpoints' zones (`zonal`).
    pub zones: bool,
    /// Label selector for Services, EndpointSlices and Pods (`labels`).
    pub labels: Option<String>,
    /// Label selector for Namespaces (`namespace_labels`).
    pub namespace_labels: Option<String>,
}

impl DnsNeeds {
    /// How much of endpoints such a server reads.
    #[must_use]
    pub const fn keep(&self) -> Keep {
        Keep {
            pod_names: self.endpoint_pod_names,
            zones: self.zones,
            ..Keep::FOR_DNS
        }
    }
}

impl Selection {
    /// All objects of a kind.
    #[must_use]
    pub const fn all(kind: Kind) -> Self {
        Self {
            kind,
            labels: None,
            fields: None,
            optional: false,
        }
    }

    /// What a service proxy on this node asks for.
    #[must_use]
    pub fn for_proxy(node: &str) -> Vec<Self> {
        let not_headless = "!service.kubernetes.io/headless";
        vec![
            Self::all(Kind::Node).with_fields(format!("metadata.name={node}")),
            Self::all(Kind::ServiceCidr).optional(),
            Self::all(Kind::Service)
                .with_labels("!service.kubernetes.io/service-proxy-name")
                .with_fields("spec.clusterIP!=None"),
            Self::all(Kind::EndpointSlice).with_labels(not_headless),
            Self::all(Kind::Endpoints)
                .with_labels(not_headless)
                .optional(),
        ]
    }

    /// What a DNS server asks for: headless Services and those that others proxy, too.
    #[must_use]
    pub fn for_dns(needs: &DnsNeeds) -> Vec<Self> {
        let labelled = |kind| Self {
            labels: needs.labels.clone(),
            ..Self::all(kind)
        };
        let mut selections = vec![
            Self {
                labels: needs.namespace_labels.clone(),
                ..Self::all(Kind::Namespace)
            },
            labelled(Kind::Service),
        ];
        if !needs.no_endpoints {
            selections.push(labelled(Kind::EndpointSlice));
        }
        if needs.pods {
            selections.push(labelled(Kind::Pod).with_fields(LIVING_PODS));
        }
        selections
    }

    fn with_labels(self, labels: impl Into<String>) -> Self {
        Self {
            labels: Some(labels.into()),
            ..self
        }
    }

    fn with_fields(self, fields: impl Into<String>) -> Self {
        Self {
            fields: Some(fields.into()),
            ..self
        }
    }

    fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }
}
