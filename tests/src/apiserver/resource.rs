use serde_json::{Value, json};

/// A resource the stand-in knows.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub root: &'static str,
    /// The name in paths.
    pub plural: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The apiVersion.
    pub api_version: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// The resources a service proxy and a DNS server read or write.
pub const RESOURCES: [Resource; 9] = [
    core("services", "Service", true),
    core("endpoints", "Endpoints", true),
    core("nodes", "Node", false),
    core("namespaces", "Namespace", false),
    core("pods", "Pod", true),
    core("events", "Event", true),
    Resource {
        root: "/apis/discovery.k8s.io/v1",
        plural: "endpointslices",
        kind: "EndpointSlice",
        api_version: "discovery.k8s.io/v1",
        namespaced: true,
    },
    Resource {
        root: "/apis/networking.k8s.io/v1",
        plural: "servicecidrs",
        kind: "ServiceCIDR",
        api_version: "networking.k8s.io/v1",
        namespaced: false,
    },
    Resource {
        root: "/apis/events.k8s.io/v1",
        plural: "events",
        kind: "Event",
        api_version: "events.k8s.io/v1",
        namespaced: true,
    },
];

const fn core(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource {
    Resource {
        root: "/api/v1",
        plural,
        kind,
        api_version: "v1",
        namespaced,
    }
}

impl Resource {
    /// The resource of a kind.
    #[must_use]
    pub fn of_kind(kind: &str, api_version: &str) -> Option<&'static Self> {
        RESOURCES
            .iter()
            .find(|known| known.kind == kind && known.api_version == api_version)
    }

    /// The object of a bookmark: the kind's empty form with nothing but a version.
    pub(super) fn bookmark(&self, version: u64, ends_list: bool) -> Value {
        let mut object = json!({
            "kind": self.kind,
            "apiVersion": self.api_version,
            "metadata": {"resourceVersion": version.to_string()},
        });
        if ends_list && let Some(meta) = object.get_mut("metadata") {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.kind {
            "Service" => {
                object["spec"] = json!({});
                object["status"] = json!({"loadBalancer": {}});
            }
            "EndpointSlice" => {
                object["addressType"] = json!("");
                object["endpoints"] = Value::Null;
                object["ports"] = Value::Null;
            }
            _ => {}
        }
        object
    }
}
