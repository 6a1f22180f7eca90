use std::sync::Arc;

use serde::Deserialize;

use super::Context;
use super::field;
use super::meta::{HasMeta, Meta};
use crate::object::{Object, ServiceCidr};

#[derive(Deserialize)]
pub(super) struct RawServiceCidr {
    #[serde(default)]
    metadata: Meta,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Spec {
    cidrs: Option<Vec<String>>,
}

impl HasMeta for RawServiceCidr {
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

pub(super) fn compact(raw: RawServiceCidr, context: &mut Context<'_>) -> Object {
    let texts = raw.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
    let numbered = texts.iter().enumerate();
    let cidrs = numbered.filter_map(|(at, text)| {
        let path = || format!("spec.cidrs[{at}]");
        context.oddities.keep(field::cidr(text), path)
    });
    Object::ServiceCidr(Arc::new(ServiceCidr {
        name: context.name.clone(),
        cidrs: cidrs.collect(),
    }))
}
