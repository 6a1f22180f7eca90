//! The metrics against what the reference exposes, and against our own documentation.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use switchyard_cluster::object::{IpFamily, Kind, ObjectName, Protocol};
use switchyard_cluster::source::api::RequestDone;
use switchyard_proxy::backend::ebpf::{DropReason, MapName};
use switchyard_proxy::metrics::{Direction, HealthCode, MetricType, Metrics, Table, markdown};
use switchyard_proxy::plan::PlanId;

/// What a scrape says of one metric.
#[derive(Debug, Default, PartialEq)]
struct Scraped {
    metric_type: String,
    labels: BTreeSet<String>,
    buckets: BTreeSet<String>,
}

/// Reads a scrape: type, label names (without `le`) and bucket bounds of each metric.
fn scrape(text: &str) -> BTreeMap<String, Scraped> {
    let mut metrics: BTreeMap<String, Scraped> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, metric_type) = rest.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().metric_type = metric_type.to_owned();
            continue;
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let name_end = line.find(['{', ' ']).unwrap();
        let full = &line[..name_end];
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| {
                full.strip_suffix(suffix)
                    .filter(|n| metrics.contains_key(*n))
            })
            .unwrap_or(full);
        let metric = metrics
            .get_mut(name)
            .unwrap_or_else(|| panic!("no TYPE before {line}"));
        let Some(labels) = line[name_end..].strip_prefix('{') else {
            continue;
        };
        for pair in labels.split_once('}').unwrap().0.split(',') {
            let (label, value) = pair.split_once('=').unwrap();
            if label == "le" {
                metric.buckets.insert(value.to_owned());
            } else {
                metric.labels.insert(label.to_owned());
            }
        }
    }
    metrics
}

/// Every metric with at least one series.
fn touched() -> Metrics {
    let m = Metrics::new().unwrap();
    let (family, moment) = (IpFamily::V4, Duration::from_millis(3));
    for histogram in [
        &m.sync_duration,
        &m.sync_full_duration,
        &m.sync_partial_duration,
        &m.network_programming_duration,
        &m.conntrack_reconcile_duration,
    ] {
        histogram.observe(family, moment);
    }
    m.last_sync.set(family, SystemTime::now());
    m.last_queued.set(family, SystemTime::now());
    m.no_local_endpoints.set((Direction::Internal, family), 1);
    m.no_local_endpoints.set((Direction::External, family), 2);
    m.healthz.inc(HealthCode::Ok);
    m.livez.inc(HealthCode::Unavailable);
    m.iptables_rules.set((Table::Nat, family), 165);
    m.iptables_rules_last.set((Table::Filter, family), 10);
    m.iptables_restore_failures.inc(family);
    m.iptables_partial_restore_failures.inc(family);
    m.nftables_sync_failures.inc(family);
    m.nftables_cleanup_failures.inc(family);
    m.ct_state_invalid_dropped.set((), 0);
    m.localhost_nodeports_accepted.set((), 0);
    m.conntrack_deleted.add(family, 0);
    let request = RequestDone {
        method: "GET",
        host: "10.96.0.1:443",
        code: Some(200),
        took: moment,
    };
    m.api_requests.inc(&request);
    m.api_request_duration.observe(&request);
    m.reconcile_repairs.inc(family);
    m.objects.set(Kind::Service, 3);
    m.object_problems.inc(Kind::ServiceCidr);
    m.source_trouble.set(Kind::Node, 1);
    m.services_not_programmed.set(family, 0);
    m.relay_connections.inc(Protocol::Tcp);
    m.relay_refused.inc(Protocol::Udp);
    m.relay_not_listening.set(Protocol::Udp, 1);
    m.ebpf_map_entries.set(MapName::Flows, 5);
    m.ebpf_map_limit.set(MapName::Flows, 8);
    m.drops.set(DropReason::SourceRange, 1);
    let id = PlanId {
        service: ObjectName::new("ns", "web"),
        port_name: "http".into(),
        protocol: Protocol::Tcp,
        family,
    };
    for total in [&m.service_connections, &m.service_packets, &m.service_bytes] {
        total.set(&id, 1);
    }
    m
}

#[test]
fn every_recorded_metric_is_there_with_its_type_labels_and_buckets() {
    let ours = scrape(&touched().render().unwrap());
    for recording in [
        include_str!("data/kube-proxy-1.36/metrics-iptables.txt"),
        include_str!("data/kube-proxy-1.36/metrics-nftables.txt"),
    ] {
        let recorded = scrape(recording);
        assert!(recorded.len() > 20, "the recording was not read");
        for (name, expected) in recorded {
            let Some(found) = ours.get(&name) else {
                panic!("{name} is missing");
            };
            assert_eq!(*found, expected, "{name}");
        }
    }
}

#[test]
fn metrics_that_the_recording_does_not_show_are_as_the_reference_documents_them() {
    let ours = scrape(&touched().render().unwrap());
    let programming = &ours["kubeproxy_network_programming_duration_seconds"];
    assert_eq!(programming.metric_type, "histogram");
    assert_eq!(programming.buckets.len(), 2 + 59 + 12 + 7 + 1);
    for bound in [
        "0.25", "0.5", "1", "59", "60", "115", "120", "150", "300", "+Inf",
    ] {
        assert!(
            programming.buckets.contains(&format!("\"{bound}\"")),
            "{bound}"
        );
    }
    for (name, metric_type, label) in [
        (
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
            "histogram",
            "ip_family",
        ),
        (
            "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
            "counter",
            "ip_family",
        ),
        (
            "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
            "counter",
            "ip_family",
        ),
        (
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
            "counter",
            "ip_family",
        ),
        (
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
            "counter",
            "ip_family",
        ),
        ("kubeproxy_proxy_livez_total", "counter", "code"),
    ] {
        assert_eq!(ours[name].metric_type, metric_type, "{name}");
        assert_eq!(
            ours[name].labels,
            BTreeSet::from([label.to_owned()]),
            "{name}"
        );
    }
}

#[test]
fn requests_to_the_api_server_are_counted_as_by_every_client_of_kubernetes() {
    let ours = scrape(&touched().render().unwrap());
    let names = |labels: &[&str]| labels.iter().map(|&label| label.to_owned()).collect();
    let total = &ours["rest_client_requests_total"];
    assert_eq!(total.metric_type, "counter");
    assert_eq!(total.labels, names(&["code", "host", "method"]));
    let duration = &ours["rest_client_request_duration_seconds"];
    assert_eq!(duration.metric_type, "histogram");
    assert_eq!(duration.labels, names(&["host", "verb"]));
    assert_eq!(duration.buckets.len(), 12 + 1);
}

/// What is wrong with names that are the reference's, and stays.
const KNOWN_COMPLAINTS: [&str; 2] = [
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total non-counter metrics should not have",
    "kubeproxy_sync_proxy_rules_iptables_total non-counter metrics should not have",
];

/// Prometheus' own tool reads it, and finds no fault but those that the reference has.
#[test]
fn promtool_takes_what_is_scraped() {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: `cargo xtask setup` installs it (package prometheus)");
    let text = touched().render().unwrap();
    tool.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let said = tool.wait_with_output().unwrap();
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let is_known = |line: &&str| KNOWN_COMPLAINTS.iter().any(|known| line.contains(known));
    let new: Vec<&str> = said.lines().filter(|line| !is_known(line)).collect();
    assert_eq!(new, Vec::<&str>::new(), "promtool has more to say");
    assert!(
        said.contains(KNOWN_COMPLAINTS[0]),
        "it read nothing: {said}"
    );
}

#[test]
fn what_is_defined_is_what_is_scraped() {
    let metrics = touched();
    let ours = scrape(&metrics.render().unwrap());
    for definition in metrics.definitions() {
        let found = &ours[definition.name];
        assert_eq!(
            found.metric_type,
            definition.metric_type.to_string(),
            "{}",
            definition.name
        );
        let labels = definition.labels.iter().map(|&l| l.to_owned()).collect();
        assert_eq!(found.labels, labels, "{}", definition.name);
        let is_histogram = definition.metric_type == MetricType::Histogram;
        assert_eq!(
            is_histogram,
            !definition.buckets.is_empty(),
            "{}",
            definition.name
        );
    }
}

#[test]
fn series_with_labels_are_absent_until_used_and_totals_follow_their_source() {
    let metrics = Metrics::new().unwrap();
    let text = metrics.render().unwrap();
    assert!(!text.contains("kubeproxy_sync_proxy_rules_last_timestamp_seconds"));
    assert!(!text.contains("iptables_ct_state_invalid_dropped"));
    assert!(text.contains("\nkubeproxy_sync_proxy_rules_service_changes_total 0\n"));

    metrics.ct_state_invalid_dropped.set((), 40);
    metrics.ct_state_invalid_dropped.set((), 42);
    let name = "\nkubeproxy_iptables_ct_state_invalid_dropped_packets_total";
    assert!(metrics.render().unwrap().contains(&format!("{name} 42\n")));
    metrics.ct_state_invalid_dropped.set((), 5);
    assert!(metrics.render().unwrap().contains(&format!("{name} 5\n")));
}

/// `SWITCHYARD_WRITE_DOCS=1 cargo test -p switchyard-proxy --test metrics` writes the table.
#[test]
fn documentation_lists_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (start, end) = ("<!-- table: begin -->\n", "<!-- table: end -->");
    let (before, rest) = page.split_once(start).expect("a mark before the table");
    let (table, after) = rest.split_once(end).expect("a mark after the table");
    let expected = markdown(Metrics::new().unwrap().definitions());
    if std::env::var_os("SWITCHYARD_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{start}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        table, expected,
        "docs/metrics.md is out of date: run this test with SWITCHYARD_WRITE_DOCS=1"
    );
}
