//! What 100,000 endpoints cost in memory.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fmt::Write;
use std::mem::size_of;
use std::sync::Arc;

use switchyard_cluster::decode::{Keep, decode};
use switchyard_cluster::interner::Interner;
use switchyard_cluster::object::{Endpoint, EndpointSlice, Kind, Object, ServicePort, SlicePort};
use switchyard_cluster::store::Store;
use switchyard_cluster::update::Update;

#[path = "common/memory.rs"]
mod memory;

use memory::resident_kib;

const SLICES: usize = 1000;
const ENDPOINTS_PER_SLICE: usize = 100;
/// 48 bytes an endpoint, the slices around them, and what the allocator keeps of the text.
const MAX_GROWTH_KIB: usize = 8 * 1024;

#[test]
fn structures_keep_their_sizes() {
    assert_eq!(size_of::<Endpoint>(), 48);
    assert!(
        size_of::<EndpointSlice>() <= 128,
        "{}",
        size_of::<EndpointSlice>()
    );
    assert!(size_of::<SlicePort>() <= 24, "{}", size_of::<SlicePort>());
    assert!(
        size_of::<ServicePort>() <= 24,
        "{}",
        size_of::<ServicePort>()
    );
    assert!(size_of::<Object>() <= 16);
    assert!(size_of::<Update>() <= 128, "{}", size_of::<Update>());
}

#[test]
fn a_hundred_thousand_endpoints_fit_in_ten_megabytes() {
    let mut names = Interner::default();
    let mut store = Store::new(&[Kind::EndpointSlice]);
    // Once through, so that the allocator's own growth is not counted.
    store.apply(slice(0, &mut names), &mut |_| {});
    let before = resident_kib();
    store.apply(Update::ListStarted(Kind::EndpointSlice), &mut |_| {});
    for number in 0..SLICES {
        store.apply(slice(number, &mut names), &mut |_| {});
    }
    store.apply(Update::ListDone(Kind::EndpointSlice), &mut |_| {});
    let growth = resident_kib().saturating_sub(before);
    assert!(growth <= MAX_GROWTH_KIB, "{growth} KiB");
    assert!(
        growth >= SLICES * ENDPOINTS_PER_SLICE * size_of::<Endpoint>() / 1024,
        "measured nothing: {growth} KiB"
    );
    // Of every name there is one.
    assert!(names.len() <= SLICES + 600, "{}", names.len());
}

/// A slice as a server of a big cluster sends it: hints, zones, 500 nodes.
fn slice(number: usize, names: &mut Interner) -> Update {
    let mut endpoints = String::new();
    for at in 0..ENDPOINTS_PER_SLICE {
        let node = (number * ENDPOINTS_PER_SLICE + at) % 500;
        let comma = if at == 0 { "" } else { "," };
        write!(
            endpoints,
            r#"{comma}{{"addresses":["10.{}.{}.{at}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{node}.example.internal","zone":"region-1{}","hints":{{"forZones":[{{"name":"region-1{}"}}]}},"targetRef":{{"kind":"Pod","namespace":"shop","name":"web-{number}-{at}","uid":"00000000-0000-0000-0000-000000000000"}}}}"#,
            number / 250,
            number % 250,
            node % 3,
            node % 3,
        )
        .unwrap();
    }
    let text = format!(
        r#"{{"metadata":{{"name":"web-{number}-abcde","namespace":"shop","labels":{{"kubernetes.io/service-name":"web-{number}"}}}},"addressType":"IPv4","endpoints":[{endpoints}],"ports":[{{"name":"http","protocol":"TCP","port":8080}}]}}"#
    );
    let decoded = decode(Kind::EndpointSlice, &text, Keep::FOR_PROXY, names).unwrap();
    assert!(decoded.oddities.is_empty());
    let Object::EndpointSlice(slice) = decoded.object else {
        panic!("not a slice");
    };
    assert_eq!(slice.endpoints.len(), ENDPOINTS_PER_SLICE);
    assert_eq!(Arc::strong_count(&slice), 1);
    Update::Upsert(Object::EndpointSlice(slice))
}
