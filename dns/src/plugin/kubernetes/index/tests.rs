use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switchyard_cluster::object::Kind;

use super::*;
use crate::plugin::kubernetes::objects::Cluster;
use crate::wire::Rtype;

fn index(cluster: &Cluster) -> Index {
    let index = Index::new(IndexOptions {
        ttl: 5,
        pods: true,
        ..IndexOptions::default()
    });
    index.restart(&cluster.store);
    index
}

const KEY: &[u8] = b"\x03web\x07default";

/// The last octets of the A records of `web.default`.
fn addresses(index: &Index) -> Option<BTreeSet<u8>> {
    let found = index.service(KEY)?;
    let answers = found.slot()?.answers();
    let (wire, count) = answers.records(Rtype::A);
    let records = wire
        .chunks(A_OCTETS)
        .filter_map(|record| record.last().copied());
    let octets: BTreeSet<u8> = records.collect();
    assert_eq!(octets.len(), count);
    Some(octets)
}

#[test]
fn changes_one_by_one_lead_where_a_restart_leads() {
    let mut cluster = Cluster::new(&["default"]);
    let index = index(&cluster);
    let tell = |cluster: &mut Cluster, make: &dyn Fn(&mut Cluster) -> Vec<Change>| {
        for change in make(cluster) {
            index.change(&cluster.store, &change);
        }
    };
    tell(&mut cluster, &|it| {
        it.slice("web-a", "web", "h/tcp/80", "10.1.0.1 10.1.0.2")
    });
    assert_eq!(addresses(&index), Some(BTreeSet::new()), "no Service yet");
    tell(&mut cluster, &|it| it.service("web", "None", "h/tcp/80"));
    tell(&mut cluster, &|it| {
        it.slice("web-b", "web", "h/tcp/80", "10.1.0.2 10.1.0.3")
    });
    assert_eq!(addresses(&index), Some(BTreeSet::from([1, 2, 3])));
    tell(&mut cluster, &|it| {
        it.slice("web-a", "web", "h/tcp/80", "10.1.0.4 !10.1.0.1")
    });
    assert_eq!(addresses(&index), Some(BTreeSet::from([2, 3, 4])));
    for (last, known) in [(1, false), (2, true), (3, true), (4, true)] {
        assert_eq!(index.knows(IpAddr::from([10, 1, 0, last])), known, "{last}");
    }
    tell(&mut cluster, &|it| {
        it.remove(Kind::EndpointSlice, "default/web-b")
    });
    tell(&mut cluster, &|it| {
        it.service("web", "10.96.0.1", "h/tcp/80")
    });
    assert!(index.knows(IpAddr::from([10, 96, 0, 1])));
    tell(&mut cluster, &|it| {
        it.service("web", "10.96.0.2", "h/tcp/80")
    });
    assert!(!index.knows(IpAddr::from([10, 96, 0, 1])));
    tell(&mut cluster, &|it| it.remove(Kind::Namespace, "default"));
    assert!(addresses(&index).is_none() && !index.has_namespace(b"default"));
    tell(&mut cluster, &|it| {
        it.put(Kind::Namespace, "{\"metadata\":{\"name\":\"default\"}}")
    });
    tell(&mut cluster, &|it| it.remove(Kind::Service, "default/web"));
    tell(&mut cluster, &|it| {
        it.remove(Kind::EndpointSlice, "default/web-a")
    });
    assert!(addresses(&index).is_none());
    assert!(
        !index.knows(IpAddr::from([10, 1, 0, 4])) && !index.knows(IpAddr::from([10, 96, 0, 2]))
    );
}

#[test]
fn pods_are_found_by_address() {
    let mut cluster = Cluster::new(&["default"]);
    let index = index(&cluster);
    let ip = IpAddr::from([10, 2, 0, 1]);
    for (name, address) in [("default/a", "10.2.0.1"), ("other/b", "10.2.0.1")] {
        for change in cluster.pod(name, address) {
            index.change(&cluster.store, &change);
        }
    }
    assert!(index.has_pod(ip, b"default") && index.has_pod(ip, b"other"));
    for change in cluster.pod("default/a", "10.2.0.2") {
        index.change(&cluster.store, &change);
    }
    assert!(!index.has_pod(ip, b"default") && index.has_pod(ip, b"other"));
    assert!(index.has_pod(IpAddr::from([10, 2, 0, 2]), b"default"));
}

#[test]
fn the_serial_moves_with_what_clients_see() {
    let mut cluster = Cluster::new(&["default"]);
    cluster.service("web", "10.96.0.1", "h/tcp/80");
    let index = index(&cluster);
    index.serial.store(7, Ordering::Relaxed);
    for change in cluster.slice("web-a", "web", "h/tcp/80", "!10.1.0.1") {
        index.change(&cluster.store, &change);
    }
    assert_eq!(index.serial(), 7, "nobody became ready");
    for change in cluster.slice("web-a", "web", "h/tcp/80", "10.1.0.1") {
        index.change(&cluster.store, &change);
    }
    assert_ne!(index.serial(), 7);
}

#[test]
fn readers_see_a_service_before_or_after_a_change_and_nothing_between() {
    let mut cluster = Cluster::new(&["default"]);
    cluster.service("web", "None", "h/tcp/80");
    // Either these or those, never some of both, and never none.
    let sets = ["10.1.0.1 10.1.0.2 10.1.0.3", "10.1.0.4 10.1.0.5"];
    let expected = [BTreeSet::from([1, 2, 3]), BTreeSet::from([4, 5])];
    cluster.slice("web-a", "web", "h/tcp/80", sets[0]);
    let index = index(&cluster);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0_u64; 2];
            while !stop.load(Ordering::Relaxed) {
                let found = addresses(&index).expect("it is always there");
                let which = expected.iter().position(|set| *set == found);
                seen[which.unwrap_or_else(|| panic!("torn: {found:?}"))] += 1;
            }
            seen
        });
        let begun = Instant::now();
        for turn in 1_usize.. {
            for change in cluster.slice("web-a", "web", "h/tcp/80", sets[turn % 2]) {
                index.change(&cluster.store, &change);
            }
            // Others come and go in the same and other shards.
            let other = format!("other-{}", turn % 50);
            for change in cluster.service(&other, "10.96.0.1", "h/tcp/80") {
                index.change(&cluster.store, &change);
            }
            for change in cluster.remove(Kind::Service, &format!("default/{other}")) {
                index.change(&cluster.store, &change);
            }
            if begun.elapsed() > Duration::from_millis(500) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let seen = reader.join().expect("no torn answer");
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    });
}
