//! JSON text of one API object → its compact form.
//!
//! As lenient as the reference: fields we don't know are skipped, and an entry that makes no
//! sense (an address that is none, a port out of range) is left out with a [`Problem`] that
//! names it, while the rest of the object counts. Only text of another shape than the API
//! defines (a word where a number belongs) makes the whole object unreadable.

mod endpoints;
mod field;
mod keep;
mod meta;
mod node;
mod pod;
mod service;
mod service_cidr;
mod slice;

use std::sync::Arc;

use serde::Deserialize;

use crate::interner::Interner;
use crate::object::{Kind, Object, ObjectName, Place};
use crate::update::Problem;

pub use keep::Keep;

/// An object that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Its compact form.
    pub object: Object,
    /// What was left out or replaced on the way.
    pub oddities: Vec<Problem>,
    /// `metadata.resourceVersion`: where a watch resumes.
    pub resource_version: Option<Box<str>>,
}

/// An object that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Which object it is, where at least that could be read.
    pub name: Option<ObjectName>,
    /// `metadata.resourceVersion`, where that could be read.
    pub resource_version: Option<Box<str>>,
    /// Why.
    pub problem: Problem,
}

/// Reads one object of a kind from its JSON text, with no more detail than `keep` says.
///
/// # Errors
/// If the text is not the JSON of such an object: the problem names the field.
pub fn decode(
    kind: Kind,
    json: &str,
    keep: Keep,
    names: &mut Interner,
) -> Result<Decoded, Undecodable> {
    let wanted = Wanted { kind, keep };
    match kind {
        Kind::Service => typed(wanted, json, names, service::compact),
        Kind::EndpointSlice => typed(wanted, json, names, slice::compact),
        Kind::Endpoints => typed(wanted, json, names, endpoints::compact),
        Kind::Node => typed(wanted, json, names, node::compact),
        Kind::ServiceCidr => typed(wanted, json, names, service_cidr::compact),
        Kind::Namespace => typed(wanted, json, names, pod::compact_namespace),
        Kind::Pod => typed(wanted, json, names, pod::compact),
    }
}

/// Says why an object can't be read, with as much of its identity as can be.
fn undecodable(kind: Kind, json: &str, names: &mut Interner, problem: Problem) -> Undecodable {
    let named: Option<meta::Named> = serde_json::from_str(json).ok();
    let identity = named.and_then(|named| named.metadata).unwrap_or_default();
    Undecodable {
        name: identity.object_name(kind, names).ok(),
        resource_version: identity.resource_version,
        problem,
    }
}

/// What every decoder is handed beside the raw object.
struct Context<'a> {
    name: ObjectName,
    keep: Keep,
    names: &'a mut Interner,
    oddities: field::Oddities,
}

impl Context<'_> {
    /// An empty name says as little as a missing one.
    fn shared(&mut self, name: Option<&str>) -> Option<Arc<str>> {
        let name = name.filter(|name| !name.is_empty())?;
        Some(self.names.share(name))
    }

    /// As much of where an endpoint runs as is to be kept.
    fn place(&mut self, node: Option<&str>, zone: Option<&str>) -> Option<Arc<Place>> {
        let node = node.filter(|name| self.keep.nodes && !name.is_empty());
        let zone = zone.filter(|name| self.keep.zones && !name.is_empty());
        self.names.place(node, zone)
    }
}

/// What is read, and in how much detail.
#[derive(Clone, Copy)]
struct Wanted {
    kind: Kind,
    keep: Keep,
}

fn typed<'de, Raw: Deserialize<'de> + meta::HasMeta>(
    wanted: Wanted,
    json: &'de str,
    names: &mut Interner,
    compact: fn(Raw, &mut Context<'_>) -> Object,
) -> Result<Decoded, Undecodable> {
    let Wanted { kind, keep } = wanted;
    // The quick way first; only text that fails is read again to learn where.
    let read = serde_json::from_str(json).map_err(|error| locate::<Raw>(json, &error));
    let named = read.and_then(|raw: Raw| Ok((raw.meta().object_name(kind, names)?, raw)));
    let (name, raw) = match named {
        Ok(named) => named,
        Err(problem) => return Err(undecodable(kind, json, names, problem)),
    };
    let resource_version = raw.meta().resource_version.clone();
    let mut context = Context {
        name,
        keep,
        names,
        oddities: field::Oddities::default(),
    };
    let object = compact(raw, &mut context);
    Ok(Decoded {
        object,
        oddities: context.oddities.into_problems(),
        resource_version,
    })
}

fn locate<'de, Raw: Deserialize<'de>>(json: &'de str, error: &serde_json::Error) -> Problem {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    match serde_path_to_error::deserialize::<_, Raw>(&mut deserializer) {
        Ok(_) => Problem {
            place: String::new(),
            field: String::new(),
            message: error.to_string(),
        },
        Err(located) => {
            let field = located.path().to_string();
            Problem {
                place: String::new(),
                field: if field == "." { String::new() } else { field },
                message: without_position(&located.into_inner()),
            }
        }
    }
}

/// The words of a JSON error without its line and column, which count in text that whoever
/// wrote the object never saw.
fn without_position(error: &serde_json::Error) -> String {
    let words = error.to_string();
    match words.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => words,
    }
}
