//! What 100,000 endpoints cost in memory.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fmt::Write;
use std::fs;
use std::mem::size_of;
use std::sync::Arc;

use switchyard_cluster::decode::{Keep, decode};
use switchyard_cluster::interner::Interner;
use switchyard_cluster::object::{Endpoint, EndpointSlice, Kind, Object, ServicePort, SlicePort};
use switchyard_cluster::store::Store;
use switchyard_cluster::update::Update;

const SLICES: usize = 1000;
const ENDPOINTS_PER_SLICE: usize = 100;
/// 64 bytes an endpoint, about as much for its hints, and the slices around them.
const MAX_GROWTH_KIB: usize = 32 * 1024;

#[test]
fn structures_keep_their_sizes() {
    assert_eq!(size_of::<Endpoint>(), 72);
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
fn a_hundred_thousand_endpoints_fit_in_tens_of_megabytes() {
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
        growth >= SLICES * ENDPOINTS_PER_SLICE * 64 / 1024,
        "measured nothing: {growth} KiB"
    );
    // Of every name there is one.
    assert!(names.len() <= SLICES + 600, "{}", names.len());
}

const DNS_SERVICES: usize = 10_000;
const DNS_ENDPOINTS_PER_SERVICE: usize = 10;
/// A Service with one port: the object, its names, its place in two tables.
const MAX_DNS_SERVICE_BYTES: usize = 450;
/// 72 bytes, a tenth of a hostname, and a tenth of the slice around it.
const MAX_DNS_ENDPOINT_BYTES: usize = 130;
/// The first list must not need more at any time than what remains of it, and this.
const MAX_DNS_PEAK_KIB: usize = 1024;

#[test]
fn what_a_dns_server_reads_of_a_big_cluster_is_small() {
    let mut names = Interner::default();
    let mut store = Store::new(&[Kind::Service, Kind::EndpointSlice]);
    let mut apply = |kind: Kind, text: &str| {
        let decoded = decode(kind, text, Keep::FOR_DNS, &mut names).unwrap();
        assert!(decoded.oddities.is_empty());
        store.apply(Update::Upsert(decoded.object), &mut |_| {});
    };
    // Once through, so that the allocator's own growth is not counted.
    apply(Kind::Service, &dns_service(DNS_SERVICES));
    apply(Kind::EndpointSlice, &dns_slice(DNS_SERVICES));
    let start = resident_kib();
    for number in 0..DNS_SERVICES {
        apply(Kind::Service, &dns_service(number));
    }
    let with_services = resident_kib();
    for number in 0..DNS_SERVICES {
        apply(Kind::EndpointSlice, &dns_slice(number));
    }
    let with_endpoints = resident_kib();
    let highest = status_kib("VmHWM:");
    let endpoints = DNS_SERVICES * DNS_ENDPOINTS_PER_SERVICE;
    let service_bytes = (with_services - start) * 1024 / DNS_SERVICES;
    let endpoint_bytes = (with_endpoints - with_services) * 1024 / endpoints;
    println!(
        "{service_bytes} bytes a Service, {endpoint_bytes} an endpoint, {} KiB in all, {} KiB more at the highest",
        with_endpoints - start,
        highest - with_endpoints
    );
    assert_eq!(store.count(Kind::EndpointSlice), DNS_SERVICES + 1);
    assert!(service_bytes <= MAX_DNS_SERVICE_BYTES, "{service_bytes}");
    assert!(endpoint_bytes <= MAX_DNS_ENDPOINT_BYTES, "{endpoint_bytes}");
    assert!(endpoint_bytes >= size_of::<Endpoint>(), "measured nothing");
    assert!(
        highest - with_endpoints <= MAX_DNS_PEAK_KIB,
        "{highest} KiB"
    );
}

fn dns_service(number: usize) -> String {
    format!(
        r#"{{"metadata":{{"name":"web-{number}","namespace":"team-{}","uid":"00000000-0000-0000-0000-000000000000","resourceVersion":"{number}","creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"app":"web-{number}"}}}},"spec":{{"type":"ClusterIP","clusterIP":"10.96.{}.{}","clusterIPs":["10.96.{}.{}"],"selector":{{"app":"web-{number}"}},"ports":[{{"name":"http","protocol":"TCP","port":80,"targetPort":8080}}]}},"status":{{"loadBalancer":{{}}}}}}"#,
        number % 100,
        number / 250,
        number % 250,
        number / 250,
        number % 250,
    )
}

/// A slice of ten endpoints, the first with a hostname.
fn dns_slice(number: usize) -> String {
    let mut endpoints = String::new();
    for at in 0..DNS_ENDPOINTS_PER_SERVICE {
        let (comma, hostname) = if at == 0 {
            ("", format!(r#""hostname":"web-{number}","#))
        } else {
            (",", String::new())
        };
        write!(
            endpoints,
            r#"{comma}{{"addresses":["10.{}.{}.{at}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},{hostname}"nodeName":"node-{at}.example.internal","zone":"region-1a","targetRef":{{"kind":"Pod","namespace":"team-1","name":"web-{number}-{at}","uid":"00000000-0000-0000-0000-000000000000"}}}}"#,
            number / 250,
            number % 250,
        )
        .unwrap();
    }
    format!(
        r#"{{"metadata":{{"name":"web-{number}-abcde","namespace":"team-{}","uid":"00000000-0000-0000-0000-000000000000","labels":{{"kubernetes.io/service-name":"web-{number}"}},"annotations":{{"endpoints.kubernetes.io/last-change-trigger-time":"2026-01-02T03:04:05Z"}}}},"addressType":"IPv4","endpoints":[{endpoints}],"ports":[{{"name":"http","protocol":"TCP","port":8080}}]}}"#,
        number % 100,
    )
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

/// Memory of this process that is in RAM.
fn resident_kib() -> usize {
    status_kib("VmRSS:")
}

fn status_kib(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
