use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use super::Context;
use super::field::{self, Oddities};
use super::meta::{HasMeta, Meta};
use crate::object::{Node, Object};

/// The taint the cluster autoscaler puts on a node it is about to remove.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

#[derive(Deserialize)]
pub(super) struct RawNode {
    #[serde(default)]
    metadata: Meta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
struct Taint {
    key: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    addresses: Option<Vec<Address>>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: Option<String>,
    address: Option<String>,
}

impl HasMeta for RawNode {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

pub(super) fn compact(raw: RawNode, context: &mut Context<'_>) -> Object {
    let spec = raw.spec.unwrap_or_default();
    let addresses = raw.status.and_then(|status| status.addresses);
    let addresses = addresses.unwrap_or_default();
    let mut taints = spec.taints.iter().flatten();
    let to_be_deleted = taints.any(|taint| taint.key.as_deref() == Some(TO_BE_DELETED_TAINT));
    let node = Node {
        name: context.name.clone(),
        zone: context.shared(raw.metadata.zone()),
        internal_ips: of_type("InternalIP", &addresses, &mut context.oddities),
        external_ips: of_type("ExternalIP", &addresses, &mut context.oddities),
        pod_cidrs: pod_cidrs(spec.pod_cidrs, spec.pod_cidr, &mut context.oddities),
        deleting: raw.metadata.deletion_timestamp.is_some(),
        to_be_deleted,
    };
    Object::Node(Arc::new(node))
}

fn of_type(kind: &str, addresses: &[Address], oddities: &mut Oddities) -> Box<[IpAddr]> {
    let numbered = addresses.iter().enumerate();
    numbered
        .filter(|(_, entry)| entry.kind.as_deref() == Some(kind))
        .filter_map(|(at, entry)| {
            let path = || format!("status.addresses[{at}].address");
            oddities.keep(field::ip(entry.address.as_deref().unwrap_or("")), path)
        })
        .collect()
}

/// `spec.podCIDRs`, or `spec.podCIDR` of an object from before dual stack.
fn pod_cidrs(
    many: Option<Vec<String>>,
    one: Option<String>,
    oddities: &mut Oddities,
) -> Box<[IpNet]> {
    let many = many.unwrap_or_default();
    if many.is_empty() {
        let one = one.filter(|text| !text.is_empty());
        let read =
            one.and_then(|text| oddities.keep(field::cidr(&text), || "spec.podCIDR".to_owned()));
        return read.into_iter().collect();
    }
    let numbered = many.iter().enumerate();
    numbered
        .filter_map(|(at, text)| {
            oddities.keep(field::cidr(text), || format!("spec.podCIDRs[{at}]"))
        })
        .collect()
}
