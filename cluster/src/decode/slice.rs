use std::sync::Arc;

use serde::Deserialize;

use super::field::{self, Oddities};
use super::meta::{HasMeta, Meta};
use super::{Context, Keep};
use crate::object::{
    Conditions, Endpoint, EndpointSlice, Hints, IpFamily, Kind, Naming, Object, SlicePort,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawSlice {
    #[serde(default)]
    metadata: Meta,
    address_type: Option<String>,
    endpoints: Option<Vec<RawEndpoint>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<RawConditions>,
    node_name: Option<String>,
    zone: Option<String>,
    hints: Option<RawHints>,
    hostname: Option<String>,
    target_ref: Option<TargetRef>,
}

#[derive(Deserialize)]
struct TargetRef {
    kind: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHints {
    for_zones: Option<Vec<For>>,
    for_nodes: Option<Vec<For>>,
}

#[derive(Deserialize)]
struct For {
    name: Option<String>,
}

#[derive(Deserialize)]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
}

impl HasMeta for RawSlice {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

pub(super) fn compact(raw: RawSlice, context: &mut Context<'_>) -> Object {
    let family = family(raw.address_type.as_deref(), &mut context.oddities);
    let service = raw.metadata.service_name();
    let slice = EndpointSlice {
        name: context.name.clone(),
        service: service.map(|name| context.names.share(name)),
        family,
        ports: ports(&raw.ports.unwrap_or_default(), context),
        endpoints: match family {
            Some(family) => endpoints(&raw.endpoints.unwrap_or_default(), family, context),
            None => Box::default(),
        },
        headless: raw.metadata.headless(),
        trigger_unix_ns: trigger(&raw.metadata, &mut context.oddities),
    };
    Object::EndpointSlice(Arc::new(slice))
}

/// When the change behind a version happened, in nanoseconds since 1970.
pub(super) fn trigger(meta: &Meta, oddities: &mut Oddities) -> Option<i64> {
    let path =
        || "metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]".to_owned();
    let moment = oddities.keep(field::moment(meta.trigger_time()?), path)?;
    i64::try_from(moment.as_nanosecond()).ok()
}

fn family(text: Option<&str>, oddities: &mut Oddities) -> Option<IpFamily> {
    match text {
        Some("IPv4") => Some(IpFamily::V4),
        Some("IPv6") => Some(IpFamily::V6),
        Some("FQDN") => None,
        other => {
            let found = other.unwrap_or("");
            let expected = "IPv4, IPv6 or FQDN; the slice's endpoints are left out";
            oddities.add("addressType", field::unknown(found, expected));
            None
        }
    }
}

fn ports(raw: &[RawPort], context: &mut Context<'_>) -> Box<[SlicePort]> {
    let mut ports = Vec::with_capacity(raw.len());
    for (at, entry) in raw.iter().enumerate() {
        let oddities = &mut context.oddities;
        let path = |leaf: &str| format!("ports[{at}].{leaf}");
        let Some(name) = entry.name.as_deref() else {
            oddities.add(
                path("name"),
                "missing: expected a name, \"\" for the only port; the port is left out",
            );
            continue;
        };
        let protocol = field::protocol(entry.protocol.as_deref());
        let protocol = oddities.keep(protocol, || path("protocol"));
        let port = oddities.keep(field::port(entry.port.unwrap_or(0)), || path("port"));
        if let (Some(protocol), Some(port)) = (protocol, port) {
            ports.push(SlicePort {
                name: context.names.share(name),
                protocol,
                port,
            });
        }
    }
    ports.into()
}

fn endpoints(raw: &[RawEndpoint], family: IpFamily, context: &mut Context<'_>) -> Box<[Endpoint]> {
    let mut endpoints = Vec::with_capacity(raw.len());
    for (at, entry) in raw.iter().enumerate() {
        let first = entry.addresses.as_deref().and_then(<[String]>::first);
        let Some(text) = first else {
            let message = "empty: expected an address; the endpoint is left out";
            context
                .oddities
                .add(format!("endpoints[{at}].addresses"), message);
            continue;
        };
        let read = field::ip(text).and_then(|address| {
            if IpFamily::of(address) == family {
                Ok(address)
            } else {
                Err(format!(
                    "{text:?} is not {family}, as the slice's addressType asks"
                ))
            }
        });
        let path = || format!("endpoints[{at}].addresses[0]");
        let Some(address) = context.oddities.keep(read, path) else {
            continue;
        };
        let conditions = conditions(entry.conditions.as_ref());
        if !(conditions.ready || context.keep.unready) {
            continue;
        }
        endpoints.push(Endpoint {
            address,
            conditions,
            place: context.place(entry.node_name.as_deref(), entry.zone.as_deref()),
            hints: hints(entry.hints.as_ref(), context),
            naming: naming(entry, context.keep),
        });
    }
    endpoints.into()
}

fn conditions(raw: Option<&RawConditions>) -> Conditions {
    let Some(raw) = raw else {
        return Conditions::READY;
    };
    Conditions {
        ready: raw.ready.unwrap_or(true),
        serving: raw.serving.unwrap_or(true),
        terminating: raw.terminating.unwrap_or(false),
    }
}

fn hints(raw: Option<&RawHints>, context: &mut Context<'_>) -> Option<Arc<Hints>> {
    let raw = raw.filter(|_| context.keep.nodes)?;
    let mut list = |given: Option<&Vec<For>>| -> Box<[Arc<str>]> {
        let given = given.map(Vec::as_slice).unwrap_or_default();
        let named = given.iter().filter_map(|entry| entry.name.as_deref());
        named.map(|name| context.names.share(name)).collect()
    };
    let hints = Hints {
        zones: list(raw.for_zones.as_ref()),
        nodes: list(raw.for_nodes.as_ref()),
    };
    let empty = hints.zones.is_empty() && hints.nodes.is_empty();
    (!empty).then(|| context.names.hints(hints))
}

fn naming(raw: &RawEndpoint, keep: Keep) -> Option<Box<Naming>> {
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(Box::from);
    let pod = raw
        .target_ref
        .as_ref()
        .filter(|target| keep.pod_names && target.kind.as_deref() == Some(Kind::Pod.as_str()));
    let naming = Naming {
        hostname: given(raw.hostname.as_deref().filter(|_| keep.hostnames)),
        pod: given(pod.and_then(|target| target.name.as_deref())),
    };
    (naming != Naming::default()).then(|| Box::new(naming))
}
