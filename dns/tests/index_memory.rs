//! What the index of a big cluster costs in memory, beside the objects it is made from.

#![expect(
    clippy::expect_used,
    reason = "clippy.toml allows it in tests, but not in what tests share"
)]

use std::fmt::Write;
use std::fs;

use switchyard_cluster::decode::decode;
use switchyard_cluster::interner::Interner;
use switchyard_cluster::object::Kind;
use switchyard_cluster::source::DnsNeeds;
use switchyard_cluster::store::Store;
use switchyard_cluster::update::Update;
use switchyard_dns::plugin::kubernetes::index::{Index, IndexOptions};

const SERVICES: usize = 10_000;
const ENDPOINTS_EACH: usize = 10;
/// About 1 kB a Service with ten endpoints is what it takes; this leaves room for the
/// allocator.
const INDEX_KIB_MAX: usize = 16 * 1024;

#[test]
fn the_index_of_ten_thousand_services_is_small() {
    let store = store();
    let objects = resident_kib();
    let index = Index::new(IndexOptions {
        ttl: 30,
        ..IndexOptions::default()
    });
    index.restart(&store);
    let growth = resident_kib().saturating_sub(objects);
    println!("objects and all: {objects} KiB, index: {growth} KiB");
    assert!(index.service(b"\x05s9999\x07default").is_some());
    assert!(growth <= INDEX_KIB_MAX, "{growth} KiB");
    assert!(
        growth >= SERVICES * 100 / 1024,
        "measured nothing: {growth} KiB"
    );
}

fn store() -> Store {
    let mut store = Store::new(&[]);
    let mut names = Interner::default();
    let keep = DnsNeeds::default().keep();
    let mut put = |kind, json: &str| {
        let decoded = decode(kind, json, keep, &mut names).expect(json);
        store.apply(Update::Upsert(decoded.object), &mut |_| {});
    };
    put(Kind::Namespace, "{\"metadata\":{\"name\":\"default\"}}");
    let ports = "[{\"name\":\"http\",\"protocol\":\"TCP\",\"port\":80}]";
    for service in 0..SERVICES {
        // Every tenth is headless.
        let ip = format!("10.96.{}.{}", service / 256, service % 256);
        let ip = if service % 10 == 0 { "None" } else { &ip };
        put(
            Kind::Service,
            &format!(
                "{{\"metadata\":{{\"name\":\"s{service}\",\"namespace\":\"default\"}},\"spec\":{{\
                 \"clusterIP\":\"{ip}\",\"clusterIPs\":[\"{ip}\"],\"ports\":{ports}}}}}"
            ),
        );
        let mut endpoints = String::new();
        for endpoint in 0..ENDPOINTS_EACH {
            let number = service * ENDPOINTS_EACH + endpoint;
            let comma = if endpoint > 0 { "," } else { "" };
            let (a, b, c) = (number / 65536, number / 256 % 256, number % 256);
            write!(endpoints, "{comma}{{\"addresses\":[\"10.{a}.{b}.{c}\"]}}").expect("a string");
        }
        put(
            Kind::EndpointSlice,
            &format!(
                "{{\"metadata\":{{\"name\":\"s{service}-a\",\"namespace\":\"default\",\"labels\":{{\
                 \"kubernetes.io/service-name\":\"s{service}\"}}}},\"addressType\":\"IPv4\",\
                 \"ports\":{ports},\"endpoints\":[{endpoints}]}}"
            ),
        );
    }
    store
}

fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.expect("VmRSS").split_whitespace().nth(1);
    words.expect("a number").parse().expect("a number")
}
