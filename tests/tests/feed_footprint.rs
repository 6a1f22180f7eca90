//! What following a big cluster costs a DNS server in memory and time, first list included.
//! The API server is another process: this one's memory is the feed's.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchyard_dns::feed::{Access, DnsNeeds, FeedSource, FeedSpec, Feeds};
use switchyard_tests::apiserver::{RESOURCES, Resource, Settings, StandIn};

const SERVICES: usize = 10_000;
const ENDPOINTS_PER_SERVICE: usize = 10;
/// The store itself is 15 MiB; the rest is connection, TLS, runtime and garbage.
const MAX_GROWTH_KIB: usize = 28 * 1024;
/// A first list in pages holds one page as text and as objects.
const MAX_PEAK_KIB: usize = 40 * 1024;
/// Tells the other process what it is for.
const PAGED: &str = "SWITCHYARD_TEST_PAGED";
const PATIENCE: Duration = Duration::from_secs(120);

/// The other process.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(paged: bool) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "serves_a_big_cluster",
                "--nocapture",
            ])
            .env(PAGED, if paged { "1" } else { "0" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("url=").map(|(_, url)| url.to_owned())
        });
        Self {
            child,
            url: url.unwrap(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "is the other process of the tests here"]
fn serves_a_big_cluster() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let settings = Settings {
        tls: false,
        only_http1: true,
        ..Settings::default()
    };
    let server = runtime.block_on(StandIn::start(settings)).unwrap();
    server.refuse_watch_list(std::env::var(PAGED).unwrap() == "1");
    for number in 0..SERVICES {
        server.set(resource("Service"), service(number));
        server.set(resource("EndpointSlice"), slice(number));
    }
    println!("url={}", server.url());
    let _ = std::io::stdin().read(&mut [0]);
}

fn resource(kind: &str) -> &'static Resource {
    RESOURCES
        .iter()
        .find(|resource| resource.kind == kind)
        .unwrap()
}

fn service(number: usize) -> Value {
    let ip = format!("10.96.{}.{}", number / 250, number % 250);
    json!({
        "metadata": {"name": format!("web-{number}"), "namespace": format!("team-{}", number % 100)},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]},
    })
}

fn slice(number: usize) -> Value {
    let service = format!("web-{number}");
    let endpoints: Vec<Value> = (0..ENDPOINTS_PER_SERVICE)
        .map(|at| {
            let mut endpoint = json!({
                "addresses": [format!("10.{}.{}.{at}", number / 250, number % 250)],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("node-{at}"),
                "zone": "region-1a",
                "targetRef": {"kind": "Pod", "namespace": "team", "name": format!("{service}-{at}"),
                    "uid": "00000000-0000-0000-0000-000000000000"},
            });
            if at == 0 {
                endpoint["hostname"] = json!(service);
            }
            endpoint
        })
        .collect();
    json!({
        "metadata": {"name": format!("{service}-abcde"), "namespace": format!("team-{}", number % 100),
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    })
}

/// KiB of memory that stay of a first list, and that it took at most. Measured in a process
/// of its own: other tests of this one would be measured, too.
fn cost(paged: bool) -> (usize, usize) {
    let measured = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "follows_a_big_cluster",
            "--nocapture",
        ])
        .env(PAGED, if paged { "1" } else { "0" })
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&measured.stdout);
    print!("{text}");
    assert!(
        measured.status.success(),
        "{}",
        String::from_utf8_lossy(&measured.stderr)
    );
    let costs = text
        .lines()
        .find_map(|line| line.split_once("cost="))
        .unwrap()
        .1;
    let (growth, peak) = costs.split_once(',').unwrap();
    (growth.parse().unwrap(), peak.parse().unwrap())
}

#[test]
#[ignore = "is the other process of the tests here"]
fn follows_a_big_cluster() {
    let paged = std::env::var(PAGED).unwrap() == "1";
    let server = Server::start(paged);
    let spec = FeedSpec {
        source: FeedSource::Api(Access {
            master: Some(server.url.clone()),
            ..Access::default()
        }),
        needs: DnsNeeds::default(),
    };
    let before = status_kib("VmRSS:");
    let began = Instant::now();
    let feed = Feeds::default().feed(&spec);
    feed.start().unwrap();
    while !feed.is_synced() {
        assert!(began.elapsed() < PATIENCE, "not synced");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed().as_secs_f32();
    let growth = status_kib("VmRSS:") - before;
    let peak = status_kib("VmHWM:") - before;
    let anonymous = status_kib("RssAnon:");
    println!(
        "paged: {paged}; synced after {took} s, {growth} KiB (heap and stacks {anonymous}), at most {peak} KiB"
    );
    println!("cost={growth},{peak}");
}

#[test]
fn a_streamed_first_list_of_a_big_cluster_needs_little_more_than_what_it_leaves() {
    let (growth, peak) = cost(false);
    assert!(growth <= MAX_GROWTH_KIB, "{growth} KiB");
    assert!(growth >= 10 * 1024, "measured nothing: {growth} KiB");
    assert!(peak <= MAX_PEAK_KIB, "{peak} KiB");
}

#[test]
fn a_first_list_of_a_big_cluster_in_pages_is_bounded_too() {
    let (growth, peak) = cost(true);
    assert!(growth <= MAX_PEAK_KIB, "{growth} KiB");
    assert!(peak <= MAX_PEAK_KIB, "{peak} KiB");
}

fn status_kib(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
