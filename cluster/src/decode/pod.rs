use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::Context;
use super::field::{self, Oddities};
use super::meta::{HasMeta, Meta};
use crate::object::{Namespace, Object, Pod};

/// Phases in which a pod's addresses are not its own any more, or nobody knows.
const ENDED: [&str; 3] = ["Succeeded", "Failed", "Unknown"];

#[derive(Deserialize)]
pub(super) struct RawPod {
    #[serde(default)]
    metadata: Meta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    host_network: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Ip>>,
}

#[derive(Deserialize)]
struct Ip {
    ip: Option<String>,
}

impl HasMeta for RawPod {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

pub(super) fn compact(raw: RawPod, context: &mut Context<'_>) -> Object {
    let status = raw.status.unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or_default();
    let gone = raw.metadata.deletion_timestamp.is_some() || ENDED.contains(&phase);
    let host_network = raw.spec.and_then(|spec| spec.host_network);
    Object::Pod(Arc::new(Pod {
        name: context.name.clone(),
        ips: if gone {
            Box::default()
        } else {
            ips(&status, &mut context.oddities)
        },
        host_network: host_network.unwrap_or_default(),
    }))
}

/// `status.podIPs`, or `status.podIP` of an object from before dual stack.
fn ips(status: &Status, oddities: &mut Oddities) -> Box<[IpAddr]> {
    let many = status.pod_ips.as_deref().unwrap_or_default();
    if many.is_empty() {
        let one = status.pod_ip.as_deref().filter(|text| !text.is_empty());
        let read =
            one.and_then(|text| oddities.keep(field::ip(text), || "status.podIP".to_owned()));
        return read.into_iter().collect();
    }
    let numbered = many.iter().enumerate();
    numbered
        .filter_map(|(at, entry)| {
            let path = || format!("status.podIPs[{at}].ip");
            oddities.keep(field::ip(entry.ip.as_deref().unwrap_or("")), path)
        })
        .collect()
}

#[derive(Deserialize)]
pub(super) struct RawNamespace {
    #[serde(default)]
    metadata: Meta,
}

impl HasMeta for RawNamespace {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

pub(super) fn compact_namespace(_: RawNamespace, context: &mut Context<'_>) -> Object {
    Object::Namespace(Arc::new(Namespace {
        name: context.name.clone(),
    }))
}
