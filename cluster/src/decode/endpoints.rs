use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::Context;
use super::field;
use super::meta::{HasMeta, Meta};
use super::slice::trigger;
use crate::object::{
    Conditions, Endpoint, EndpointSlice, IpFamily, LegacyEndpoints, Object, ObjectName, SlicePort,
};

/// What an address in `notReadyAddresses` is.
const NOT_READY: Conditions = Conditions {
    ready: false,
    serving: false,
    terminating: false,
};

#[derive(Deserialize)]
pub(super) struct RawEndpoints {
    #[serde(default)]
    metadata: Meta,
    subsets: Option<Vec<Subset>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subset {
    addresses: Option<Vec<Address>>,
    not_ready_addresses: Option<Vec<Address>>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    ip: Option<String>,
    node_name: Option<String>,
}

#[derive(Deserialize)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
}

impl HasMeta for RawEndpoints {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

pub(super) fn compact(raw: RawEndpoints, context: &mut Context<'_>) -> Object {
    let trigger_unix_ns = trigger(&raw.metadata, &mut context.oddities);
    let headless = raw.metadata.headless();
    let mut slices = Vec::new();
    for (at, subset) in raw.subsets.unwrap_or_default().iter().enumerate() {
        let ports = ports(&subset.ports, at, context);
        let mut endpoints = Vec::new();
        let ready = ("addresses", &subset.addresses, Conditions::READY);
        let not_ready = ("notReadyAddresses", &subset.not_ready_addresses, NOT_READY);
        for (leaf, addresses, conditions) in [ready, not_ready] {
            for (number, entry) in addresses.iter().flatten().enumerate() {
                let path = || format!("subsets[{at}].{leaf}[{number}].ip");
                let read = field::ip(entry.ip.as_deref().unwrap_or(""));
                if let Some(address) = context.oddities.keep(read, path) {
                    endpoints.push(endpoint(address, conditions, entry, context));
                }
            }
        }
        for family in IpFamily::BOTH {
            let of_family = |endpoint: &&Endpoint| IpFamily::of(endpoint.address) == family;
            let endpoints: Box<[Endpoint]> = endpoints.iter().filter(of_family).cloned().collect();
            if endpoints.is_empty() {
                continue;
            }
            let name = format!("{}-{at}-{family}", context.name.name);
            slices.push(Arc::new(EndpointSlice {
                name: ObjectName::new(Arc::clone(&context.name.namespace), name),
                service: Some(Arc::clone(&context.name.name)),
                family: Some(family),
                ports: ports.clone(),
                endpoints,
                headless,
                trigger_unix_ns,
            }));
        }
    }
    Object::Endpoints(Arc::new(LegacyEndpoints {
        name: context.name.clone(),
        slices: slices.into(),
    }))
}

fn endpoint(
    address: IpAddr,
    conditions: Conditions,
    entry: &Address,
    context: &mut Context<'_>,
) -> Endpoint {
    Endpoint {
        address,
        conditions,
        place: context.place(entry.node_name.as_deref(), None),
        hints: None,
        // Whoever reads legacy objects needs no names.
        naming: None,
    }
}

fn ports(raw: &Option<Vec<Port>>, subset: usize, context: &mut Context<'_>) -> Box<[SlicePort]> {
    let mut ports = Vec::new();
    for (at, entry) in raw.iter().flatten().enumerate() {
        let oddities = &mut context.oddities;
        let path = |leaf: &str| format!("subsets[{subset}].ports[{at}].{leaf}");
        let protocol = field::protocol(entry.protocol.as_deref());
        let protocol = oddities.keep(protocol, || path("protocol"));
        let port = oddities.keep(field::port(entry.port.unwrap_or(0)), || path("port"));
        if let (Some(protocol), Some(port)) = (protocol, port) {
            ports.push(SlicePort {
                name: context.names.share(entry.name.as_deref().unwrap_or("")),
                protocol,
                port,
            });
        }
    }
    ports.into()
}
