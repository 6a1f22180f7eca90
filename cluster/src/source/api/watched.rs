//! Objects as kube's client hands them on: decoded while they are read.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::decode::{Decoded, Keep, Undecodable, decode};
use crate::interner::Interner;
use crate::object::Kind;

tokio::task_local! {
    /// What decoding needs beside the text. It happens inside serde, which passes nothing of
    /// ours through, but always while our future is polled.
    pub(super) static READING: RefCell<Reading>;
}

/// See [`READING`].
pub(super) struct Reading {
    names: Interner,
    keep: Keep,
}

impl Reading {
    pub(super) fn new(keep: Keep) -> RefCell<Self> {
        RefCell::new(Self {
            names: Interner::default(),
            keep,
        })
    }
}

fn read(kind: Kind, text: &str) -> Result<Decoded, Undecodable> {
    let within = READING.try_with(|reading| {
        let Reading { names, keep } = &mut *reading.borrow_mut();
        decode(kind, text, *keep, names)
    });
    // Outside of it nothing is wrong but that names are not shared.
    within.unwrap_or_else(|_| decode(kind, text, Keep::ALL, &mut Interner::default()))
}

/// A kind, for where it must be known to the compiler: the objects of a list don't say
/// which kind they are.
pub(super) trait Watched: Clone + Debug + Send + Sync + 'static {
    const KIND: Kind;
    /// The API group, empty for the core one.
    const GROUP: &'static str;
    /// The last part of the URL.
    const PLURAL: &'static str;
}

macro_rules! watched {
    ($name:ident, $kind:expr, $group:literal, $plural:literal) => {
        #[derive(Clone, Debug)]
        pub(super) struct $name;

        impl Watched for $name {
            const KIND: Kind = $kind;
            const GROUP: &'static str = $group;
            const PLURAL: &'static str = $plural;
        }
    };
}

watched!(Services, Kind::Service, "", "services");
watched!(
    EndpointSlices,
    Kind::EndpointSlice,
    "discovery.k8s.io",
    "endpointslices"
);
watched!(LegacyEndpoints, Kind::Endpoints, "", "endpoints");
watched!(Nodes, Kind::Node, "", "nodes");
watched!(
    ServiceCidrs,
    Kind::ServiceCidr,
    "networking.k8s.io",
    "servicecidrs"
);

watched!(Namespaces, Kind::Namespace, "", "namespaces");
watched!(Pods, Kind::Pod, "", "pods");

/// One object, read. Reading never fails as a whole: one object that can't be decoded must
/// not take the list or the watch it came in with it.
#[derive(Clone, Debug)]
pub(super) struct Seen<W> {
    /// Holds the resourceVersion, for kube's watcher, and nothing else.
    meta: ObjectMeta,
    pub(super) body: Result<Decoded, Undecodable>,
    kind: PhantomData<W>,
}

impl<'de, W: Watched> Deserialize<'de> for Seen<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Borrows the object's text from the answer; nothing of it is kept.
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let mut body = read(W::KIND, text);
        let resource_version = match &mut body {
            Ok(decoded) => decoded.resource_version.take(),
            Err(undecodable) => undecodable.resource_version.take(),
        };
        Ok(Self {
            meta: ObjectMeta {
                resource_version: resource_version.map(String::from),
                ..ObjectMeta::default()
            },
            body,
            kind: PhantomData,
        })
    }
}

impl<W: Watched> Resource for Seen<W> {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        W::KIND.as_str().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        W::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        W::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
