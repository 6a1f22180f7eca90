//! What a DNS server keeps of a big cluster, in memory.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fmt::Write;
use std::mem::size_of;

use switchyard_cluster::decode::{Keep, decode};
use switchyard_cluster::interner::Interner;
use switchyard_cluster::object::{Endpoint, Kind};
use switchyard_cluster::store::Store;
use switchyard_cluster::update::Update;

#[path = "common/memory.rs"]
mod memory;

use memory::{resident_kib, status_kib};

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
