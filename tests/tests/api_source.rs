//! The API server source against the stand-in, over real connections.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchyard_cluster::decode::Keep;
use switchyard_cluster::object::{Kind, ObjectName};
use switchyard_cluster::source::api::{Access, FirstList, Options, Timing, run, validate};
use switchyard_cluster::source::{DnsNeeds, Selection, SourceError, UPDATES_CAPACITY};
use switchyard_cluster::store::Store;
use switchyard_cluster::update::Update;
use switchyard_tests::apiserver::{Identities, RESOURCES, Resource, Seen, Settings, StandIn};
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

/// What does not happen within this time does not happen.
const PATIENCE: Duration = Duration::from_secs(15);

fn resource(kind: &str) -> &'static Resource {
    RESOURCES
        .iter()
        .find(|resource| resource.kind == kind)
        .unwrap()
}

fn service(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]},
    })
}

fn slice(name: &str, service: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "nodeName": "node1"}],
        "ports": [{"name": "", "port": 8080}],
    })
}

/// Short enough for tests; each test that is about one of these sets it itself.
fn timing() -> Timing {
    Timing {
        answer: Duration::from_secs(2),
        list_silence: Duration::from_secs(2),
        watch: Duration::from_secs(60),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(100),
        first_absent_pause: Duration::from_millis(100),
        longest_absent_pause: Duration::from_millis(200),
        watch_gap: Duration::from_millis(20),
        ..Timing::default()
    }
}

/// A folder with the kubeconfig for a server.
struct Kubeconfig {
    folder: TempDir,
}

impl Kubeconfig {
    fn new(server: &StandIn, user: &Value) -> Self {
        let folder = TempDir::new().unwrap();
        let text = server.identities().kubeconfig(&server.url(), user);
        fs::write(folder.path().join("kubeconfig"), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }
}

fn options(kubeconfig: &Kubeconfig, first_list: FirstList) -> Options {
    Options {
        access: Access {
            kubeconfig: Some(kubeconfig.path()),
            ..Access::default()
        },
        selections: Selection::for_proxy("node1"),
        keep: Keep::ALL,
        first_list,
        timing: timing(),
        observer: None,
    }
}

/// A source under way, and what it has said.
struct Following {
    store: Store,
    said: Vec<Update>,
    updates: Receiver<Update>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Following {
    fn start(options: Options) -> Self {
        let kinds: Vec<Kind> = options
            .selections
            .iter()
            .map(|selection| selection.kind)
            .collect();
        let (sender, updates) = channel(UPDATES_CAPACITY);
        let task = tokio::spawn(async move {
            let end = run(options, sender).await;
            if !matches!(end, Err(SourceError::NobodyListens)) {
                panic!("the source ended: {end:?}");
            }
        });
        Self {
            store: Store::new(&kinds),
            said: Vec::new(),
            updates,
            task,
        }
    }

    async fn synced(options: Options) -> Self {
        let mut following = Self::start(options);
        following
            .until("synced", |following| following.store.synced())
            .await;
        following
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(self) {
            let next = tokio::time::timeout_at(deadline, self.updates.recv()).await;
            match next {
                Ok(Some(update)) => self.take(update),
                Ok(None) => panic!("{what}: the source ended"),
                Err(_) => panic!("{what}: not in time; said so far: {:#?}", self.said),
            }
        }
    }

    /// Takes what comes within this time.
    async fn settle(&mut self, time: Duration) {
        let deadline = tokio::time::Instant::now() + time;
        while let Ok(Some(update)) = tokio::time::timeout_at(deadline, self.updates.recv()).await {
            self.take(update);
        }
    }

    fn take(&mut self, update: Update) {
        self.said.push(update.clone());
        self.store.apply(update, &mut |_| {});
    }

    fn ip(&self, name: &str) -> Option<String> {
        let service = self.store.service(&ObjectName::new("default", name))?;
        Some(service.cluster_ips.first()?.to_string())
    }

    async fn until_ip(&mut self, name: &str, ip: &str) {
        let what = format!("{name} at {ip}");
        self.until(&what, |following| following.ip(name).as_deref() == Some(ip))
            .await;
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .store
            .services()
            .map(|service| service.name.name.to_string())
            .collect();
        names.sort();
        names
    }

    /// The trouble that a kind is in, by what was said last.
    fn trouble(&self, kind: Kind) -> Option<&str> {
        let last = self.said.iter().rev().find_map(|update| match update {
            Update::Trouble(of, trouble) if *of == kind => Some(trouble.as_deref()),
            _ => None,
        });
        last.flatten()
    }

    fn count(&self, counts: impl Fn(&Update) -> bool) -> usize {
        self.said.iter().filter(|update| counts(update)).count()
    }
}

/// The requests for one resource that begin with a list, streamed or not.
fn lists(server: &StandIn, plural: &str) -> usize {
    let requests = server.requests();
    let of = requests.iter().filter(|seen| seen.resource() == plural);
    of.filter(|seen| !seen.is_watch() || seen.query.contains_key("sendInitialEvents"))
        .count()
}

fn watches(server: &StandIn, plural: &str) -> Vec<Seen> {
    let of = |seen: &Seen| seen.resource() == plural && seen.is_watch();
    server.requests().into_iter().filter(of).collect()
}

async fn with_services(names: &[&str], settings: Settings) -> (StandIn, Kubeconfig) {
    let server = StandIn::start(settings).await.unwrap();
    for (number, name) in (1..).zip(names) {
        server.set(
            resource("Service"),
            service(name, &format!("10.0.0.{number}")),
        );
    }
    let kubeconfig = Kubeconfig::new(&server, &json!({}));
    (server, kubeconfig)
}

#[tokio::test]
async fn a_list_is_streamed_over_http2_with_the_selectors_of_the_reference() {
    let (server, kubeconfig) = with_services(&["a", "b"], Settings::default()).await;
    let mut headless = service("headless", "None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    server.set(resource("Service"), headless);
    let mut elsewhere = service("elsewhere", "10.0.1.1");
    elsewhere["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": ""});
    server.set(resource("Service"), elsewhere);
    for name in ["node1", "node2"] {
        server.set(resource("Node"), json!({"metadata": {"name": name}}));
    }
    server.set(resource("EndpointSlice"), slice("a-1", "a", "10.1.0.1"));
    server.set(
        resource("ServiceCIDR"),
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.0.0.0/16"]}}),
    );
    let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    assert_eq!(following.names(), ["a", "b"]);
    assert!(following.store.node("node1").is_some());
    assert!(following.store.node("node2").is_none());
    assert_eq!(
        following
            .store
            .slices(&ObjectName::new("default", "a"))
            .count(),
        1
    );
    assert_eq!(following.store.service_cidrs().count(), 1);

    let requests = server.requests();
    assert!(
        requests
            .iter()
            .all(|seen| seen.is_watch() && seen.version == "HTTP/2.0"),
        "{requests:#?}"
    );
    assert_eq!(requests.len(), 5);
    assert!(
        requests
            .iter()
            .all(|seen| !seen.query.contains_key("resourceVersion")),
        "the newest, not whatever is cached"
    );
    let asked = |plural: &str, parameter: &str| {
        let seen = requests
            .iter()
            .find(|seen| seen.resource() == plural)
            .unwrap();
        seen.query.get(parameter).cloned().unwrap_or_default()
    };
    assert_eq!(
        asked("services", "labelSelector"),
        "!service.kubernetes.io/service-proxy-name"
    );
    assert_eq!(asked("services", "fieldSelector"), "spec.clusterIP!=None");
    assert_eq!(
        asked("endpointslices", "labelSelector"),
        "!service.kubernetes.io/headless"
    );
    assert_eq!(
        asked("endpoints", "labelSelector"),
        "!service.kubernetes.io/headless"
    );
    assert_eq!(asked("nodes", "fieldSelector"), "metadata.name=node1");
    assert_eq!(asked("servicecidrs", "labelSelector"), "");

    // Changes of every kind arrive.
    server.set(resource("Service"), service("c", "10.0.0.3"));
    following.until_ip("c", "10.0.0.3").await;
    server.set(resource("Service"), service("c", "10.0.0.4"));
    following.until_ip("c", "10.0.0.4").await;
    server.delete(resource("Service"), "default", "c");
    following
        .until("c gone", |following| following.ip("c").is_none())
        .await;
    server.delete(resource("EndpointSlice"), "default", "a-1");
    following
        .until("slice gone", |following| {
            following
                .store
                .slices(&ObjectName::new("default", "a"))
                .count()
                == 0
        })
        .await;
    // One that ceases to match is gone.
    let mut elsewhere = service("a", "10.0.0.1");
    elsewhere["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "x"});
    server.set(resource("Service"), elsewhere);
    following
        .until("a gone", |following| following.ip("a").is_none())
        .await;
    assert_eq!(server.requests().len(), 5);
}

fn pod(name: &str, ip: &str, phase: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"team": "a"}},
        "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

fn pods(following: &Following) -> Vec<String> {
    let mut pods: Vec<String> = following
        .store
        .pods()
        .map(|pod| format!("{} {:?}", pod.name.name, pod.ips))
        .collect();
    pods.sort();
    pods
}

fn namespaces(following: &Following) -> Vec<String> {
    let mut names: Vec<String> = following
        .store
        .namespaces()
        .map(|namespace| namespace.name.to_string())
        .collect();
    names.sort();
    names
}

/// A server with a Namespace and a Pod of each sort, and what a DNS server is asked to show.
async fn with_pods() -> (StandIn, Kubeconfig, DnsNeeds) {
    let (server, kubeconfig) = with_services(&["a", "b"], Settings::default()).await;
    let mut shown = service("shown", "None");
    shown["metadata"]["labels"] =
        json!({"team": "a", "service.kubernetes.io/service-proxy-name": "x"});
    server.set(resource("Service"), shown);
    for (name, show) in [("default", "yes"), ("kube-system", "yes"), ("hidden", "no")] {
        let labels = json!({"dns": show});
        server.set(
            resource("Namespace"),
            json!({"metadata": {"name": name, "labels": labels}}),
        );
    }
    for (name, phase) in [
        ("one", "Running"),
        ("two", "Pending"),
        ("done", "Succeeded"),
        ("failed", "Failed"),
        ("lost", "Unknown"),
    ] {
        server.set(resource("Pod"), pod(name, "10.1.0.1", phase));
    }
    let mut other = pod("other", "10.1.0.1", "Running");
    other["metadata"]["labels"] = json!({"team": "b"});
    server.set(resource("Pod"), other);
    let needs = DnsNeeds {
        pods: true,
        labels: Some("team in (a, c)".to_owned()),
        namespace_labels: Some("dns=yes".to_owned()),
        ..DnsNeeds::default()
    };
    (server, kubeconfig, needs)
}

fn dns_options(kubeconfig: &Kubeconfig, first_list: FirstList, needs: &DnsNeeds) -> Options {
    Options {
        selections: Selection::for_dns(needs),
        keep: needs.keep(),
        ..options(kubeconfig, first_list)
    }
}

#[tokio::test]
async fn a_dns_server_follows_namespaces_pods_and_every_sort_of_service() {
    let (server, kubeconfig, needs) = with_pods().await;
    for first_list in [FirstList::Streamed, FirstList::Paged(1)] {
        let options = dns_options(&kubeconfig, first_list, &needs);
        let following = Following::synced(options).await;
        assert_eq!(following.names(), ["shown"], "{first_list:?}");
        assert_eq!(namespaces(&following), ["default", "kube-system"]);
        assert_eq!(pods(&following), ["one [10.1.0.1]", "two [10.1.0.1]"]);
    }
    let asked: Vec<String> = server
        .requests()
        .iter()
        .map(|seen| seen.resource().to_owned())
        .collect();
    assert!(!asked.contains(&"endpoints".to_owned()), "{asked:?}");
    assert!(!asked.contains(&"nodes".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn pods_and_namespaces_that_change_end_and_go_are_followed() {
    let (server, kubeconfig, needs) = with_pods().await;
    let options = dns_options(&kubeconfig, FirstList::Streamed, &needs);
    let mut following = Following::synced(options).await;
    let has = |expected: &'static [&'static str]| {
        move |following: &Following| pods(following) == expected
    };
    server.set(resource("Pod"), pod("one", "10.1.0.9", "Running"));
    following
        .until("moved", has(&["one [10.1.0.9]", "two [10.1.0.1]"]))
        .await;
    // On its way out: still there for the server, but its address is free.
    let mut leaving = pod("one", "10.1.0.9", "Running");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    server.set(resource("Pod"), leaving);
    following
        .until("leaving", has(&["one []", "two [10.1.0.1]"]))
        .await;
    server.delete(resource("Pod"), "default", "one");
    following.until("gone", has(&["two [10.1.0.1]"])).await;
    // One that has ended does not match any more.
    server.set(resource("Pod"), pod("two", "10.1.0.1", "Succeeded"));
    following.until("ended", has(&[])).await;

    server.delete(resource("Namespace"), "", "kube-system");
    following
        .until("namespace gone", |following| {
            namespaces(following) == ["default"]
        })
        .await;
    // Missed changes come with the next list.
    server.close(true);
    server.delete(resource("Namespace"), "", "default");
    server.set(
        resource("Namespace"),
        json!({"metadata": {"name": "new", "labels": {"dns": "yes"}}}),
    );
    server.expire();
    server.close(false);
    following
        .until("listed again", |following| namespaces(following) == ["new"])
        .await;
}

#[tokio::test]
async fn a_list_is_read_in_pages() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let (server, kubeconfig) = with_services(&names, Settings::default()).await;
    let mut following = Following::synced(options(&kubeconfig, FirstList::Paged(2))).await;
    assert_eq!(following.names(), names);
    let pages: Vec<Seen> = server
        .requests()
        .into_iter()
        .filter(|seen| seen.resource() == "services" && !seen.is_watch())
        .collect();
    assert_eq!(pages.len(), 4);
    assert!(
        pages
            .iter()
            .all(|page| page.query.get("limit").unwrap() == "2")
    );
    assert!(
        pages[1..]
            .iter()
            .all(|page| page.query.contains_key("continue"))
    );
    server.set(resource("Service"), service("a", "10.0.0.99"));
    following.until_ip("a", "10.0.0.99").await;
    assert!(
        watches(&server, "services")
            .iter()
            .all(|watch| !watch.query.contains_key("sendInitialEvents"))
    );
}

#[tokio::test]
async fn a_list_whose_pages_expire_is_begun_again() {
    let names = ["a", "b", "c", "d", "e"];
    let (server, kubeconfig) = with_services(&names, Settings::default()).await;
    server.expire_next_page();
    let mut options = options(&kubeconfig, FirstList::Paged(2));
    options
        .selections
        .retain(|selection| selection.kind == Kind::Service);
    let following = Following::synced(options).await;
    assert_eq!(following.names(), names);
    assert_eq!(
        following.count(|update| *update == Update::ListStarted(Kind::Service)),
        2
    );
    assert_eq!(
        following.count(|update| *update == Update::ListDone(Kind::Service)),
        1
    );
}

#[tokio::test]
async fn a_server_that_streams_no_lists_is_read_in_pages() {
    let (server, kubeconfig) = with_services(&["a", "b"], Settings::default()).await;
    server.refuse_watch_list(true);
    let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    assert_eq!(following.names(), ["a", "b"]);
    assert_eq!(
        following.count(|update| matches!(update, Update::Trouble(..))),
        0
    );
    let requests = server.requests();
    let pages = requests.iter().filter(|seen| !seen.is_watch());
    let limits: Vec<&str> = pages
        .map(|page| page.query.get("limit").unwrap().as_str())
        .collect();
    assert_eq!(limits, ["500"; 5]);
    server.set(resource("Service"), service("a", "10.0.0.99"));
    following.until_ip("a", "10.0.0.99").await;
}

#[tokio::test]
async fn a_server_too_old_to_know_streamed_lists_is_read_in_pages() {
    let (server, kubeconfig) = with_services(&["a", "b"], Settings::default()).await;
    server.ignore_watch_list(true);
    let mut options = options(&kubeconfig, FirstList::Streamed);
    options.timing.list_silence = Duration::from_millis(500);
    let following = Following::synced(options).await;
    assert_eq!(following.names(), ["a", "b"]);
    assert!(server.requests().iter().any(|seen| !seen.is_watch()));
}

#[tokio::test]
async fn a_bookmark_is_where_a_cut_watch_goes_on() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    let before = lists(&server, "services");
    // Much happens to other kinds; only the bookmark tells this watch.
    server.skip_to(5000);
    server.bookmark();
    // Nothing outside tells that a bookmark has arrived.
    following.settle(Duration::from_millis(1500)).await;
    server.expire();
    server.cut();
    server.set(resource("Service"), service("a", "10.0.0.2"));
    following.until_ip("a", "10.0.0.2").await;
    let watches = watches(&server, "services");
    assert_eq!(
        watches
            .last()
            .unwrap()
            .query
            .get("resourceVersion")
            .unwrap(),
        "5000"
    );
    assert_eq!(lists(&server, "services"), before);
}

#[tokio::test]
async fn a_watch_that_is_too_old_is_begun_with_a_list_and_what_vanished_is_gone() {
    for first_list in [FirstList::Streamed, FirstList::Paged(2)] {
        let (server, kubeconfig) = with_services(&["a", "b", "c"], Settings::default()).await;
        let mut following = Following::synced(options(&kubeconfig, first_list)).await;
        let before = lists(&server, "services");
        server.close(true);
        server.delete(resource("Service"), "default", "b");
        server.set(resource("Service"), service("c", "10.0.0.33"));
        server.expire();
        server.close(false);
        following.until_ip("c", "10.0.0.33").await;
        following
            .until("b gone", |following| following.ip("b").is_none())
            .await;
        assert_eq!(following.names(), ["a", "c"]);
        assert!(lists(&server, "services") > before);
    }
}

#[tokio::test]
async fn cut_connections_are_made_again_and_nothing_is_listed_twice() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    let before = lists(&server, "services");
    for turn in 1..=5 {
        server.cut();
        let ip = format!("10.0.1.{turn}");
        server.set(resource("Service"), service("a", &ip));
        following.until_ip("a", &ip).await;
    }
    assert_eq!(lists(&server, "services"), before);
}

#[tokio::test]
async fn the_server_may_end_a_watch_whenever_it_likes() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut options = options(&kubeconfig, FirstList::Streamed);
    options.timing.watch = Duration::from_secs(1);
    let mut following = Following::synced(options).await;
    following.settle(Duration::from_millis(2500)).await;
    let ended = watches(&server, "services");
    assert!(ended.len() >= 3, "{ended:#?}");
    assert!(
        ended
            .iter()
            .all(|watch| watch.query.get("timeoutSeconds").unwrap() == "1")
    );
    assert_eq!(lists(&server, "services"), 1);
    assert_eq!(
        following.count(|update| matches!(update, Update::Trouble(..))),
        0
    );
    server.set(resource("Service"), service("a", "10.0.0.2"));
    following.until_ip("a", "10.0.0.2").await;
}

#[tokio::test]
async fn a_server_that_ends_every_watch_at_once_is_not_asked_in_a_tight_loop() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut options = options(&kubeconfig, FirstList::Paged(500));
    options.timing.watch_gap = Duration::from_millis(250);
    server.end_watches_at_once(true);
    let mut following = Following::synced(options).await;
    following.settle(Duration::from_millis(1000)).await;
    let asked = watches(&server, "services").len();
    assert!(
        (2..=6).contains(&asked),
        "{asked} watches in about a second"
    );
    server.end_watches_at_once(false);
    server.set(resource("Service"), service("a", "10.0.0.2"));
    following.until_ip("a", "10.0.0.2").await;
}

#[tokio::test]
async fn a_silent_http2_connection_is_noticed_by_pings() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut options = options(&kubeconfig, FirstList::Streamed);
    options.timing.ping_interval = Duration::from_millis(300);
    options.timing.ping_timeout = Duration::from_millis(300);
    let mut following = Following::synced(options).await;
    server.silence(true);
    let since = Instant::now();
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    assert!(
        since.elapsed() < Duration::from_secs(4),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(following.names(), ["a"], "what is known stays");
    server.silence(false);
    server.set(resource("Service"), service("a", "10.0.0.2"));
    following.until_ip("a", "10.0.0.2").await;
    following
        .until("no trouble", |following| {
            Kind::FOR_PROXY
                .iter()
                .all(|kind| following.trouble(*kind).is_none())
        })
        .await;
}

#[tokio::test]
async fn a_silent_http1_connection_is_noticed_when_the_watch_should_have_ended() {
    let settings = Settings {
        only_http1: true,
        ..Settings::default()
    };
    let (server, kubeconfig) = with_services(&["a"], settings).await;
    let mut options = options(&kubeconfig, FirstList::Streamed);
    options
        .selections
        .retain(|selection| selection.kind == Kind::Service);
    options.timing.watch = Duration::from_secs(1);
    options.timing.answer = Duration::from_millis(500);
    let mut following = Following::synced(options).await;
    assert!(
        server
            .requests()
            .iter()
            .all(|seen| seen.version == "HTTP/1.1")
    );
    server.silence(true);
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    assert!(
        following
            .trouble(Kind::Service)
            .unwrap()
            .contains("no answer within 0.5 s")
    );
    server.silence(false);
    server.set(resource("Service"), service("a", "10.0.0.2"));
    following.until_ip("a", "10.0.0.2").await;
}

#[tokio::test]
async fn a_server_that_is_silent_from_the_start_is_noticed() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    server.silence(true);
    let mut options = options(&kubeconfig, FirstList::Streamed);
    options.timing.answer = Duration::from_millis(300);
    let mut following = Following::start(options);
    following
        .until("trouble", |following| {
            Kind::FOR_PROXY
                .iter()
                .all(|kind| following.trouble(*kind).is_some())
        })
        .await;
    assert!(!following.store.synced());
    server.silence(false);
    following
        .until("synced", |following| following.store.synced())
        .await;
}

#[tokio::test]
async fn trouble_ends_with_a_good_answer_even_if_nothing_changes() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    server.close(true);
    following
        .until("trouble", |following| {
            Kind::FOR_PROXY
                .iter()
                .all(|kind| following.trouble(*kind).is_some())
        })
        .await;
    following.settle(Duration::from_millis(500)).await;
    let reasons = following.count(|update| matches!(update, Update::Trouble(_, Some(_))));
    assert!(
        reasons <= 3 * Kind::FOR_PROXY.len(),
        "each reason once, not with every retry: {reasons}"
    );
    assert_eq!(following.names(), ["a"], "what is known stays");
    server.close(false);
    following
        .until("no trouble", |following| {
            Kind::FOR_PROXY
                .iter()
                .all(|kind| following.trouble(*kind).is_none())
        })
        .await;
    assert_eq!(
        following.count(|update| *update == Update::ListDone(Kind::Service)),
        1
    );
}

#[tokio::test]
async fn an_unreachable_server_is_named_and_tried_again() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut options = options(&kubeconfig, FirstList::Streamed);
    options.access.master = Some("https://127.0.0.1:1".to_owned());
    let mut following = Following::start(options);
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    let reason = following.trouble(Kind::Service).unwrap();
    assert!(reason.contains("refused"), "{reason}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_token_file_with_a_bad_token_is_read_again() {
    let settings = Settings {
        tokens: vec!["right".to_owned()],
        ..Settings::default()
    };
    let (server, kubeconfig) = with_services(&["a"], settings).await;
    let token = kubeconfig.folder.path().join("token");
    fs::write(&token, "wrong").unwrap();
    let user = json!({"tokenFile": token});
    let text = server.identities().kubeconfig(&server.url(), &user);
    fs::write(kubeconfig.path(), text).unwrap();
    let mut following = Following::start(options(&kubeconfig, FirstList::Streamed));
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    let reason = following.trouble(Kind::Service).unwrap();
    assert!(reason.contains("401 Unauthorized"), "{reason}");
    fs::write(&token, "right\n").unwrap();
    following
        .until("synced", |following| following.store.synced())
        .await;
    // And again while it runs.
    server.accept_tokens(&["next"]);
    server.cut();
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    fs::write(&token, "next").unwrap();
    server.set(resource("Service"), service("a", "10.0.0.2"));
    following.until_ip("a", "10.0.0.2").await;
}

#[tokio::test]
async fn a_client_certificate_lets_us_in() {
    let settings = Settings {
        client_certificates: true,
        ..Settings::default()
    };
    let server = StandIn::start(settings).await.unwrap();
    server.set(resource("Service"), service("a", "10.0.0.1"));
    let certified = Kubeconfig::new(&server, &server.identities().client_certificate_user());
    let following = Following::synced(options(&certified, FirstList::Streamed)).await;
    assert_eq!(following.names(), ["a"]);

    let nobody = Kubeconfig::new(&server, &json!({}));
    let mut following = Following::start(options(&nobody, FirstList::Streamed));
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    assert!(following.trouble(Kind::Service).unwrap().contains("401"));
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (server, _) = with_services(&["a"], Settings::default()).await;
    let (other, _) = with_services(&[], Settings::default()).await;
    let folder = TempDir::new().unwrap();
    let text = other.identities().kubeconfig(&server.url(), &json!({}));
    fs::write(folder.path().join("kubeconfig"), text).unwrap();
    let kubeconfig = Kubeconfig { folder };
    let mut following = Following::start(options(&kubeconfig, FirstList::Streamed));
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    let reason = following.trouble(Kind::Service).unwrap();
    assert!(reason.contains("of another authority"), "{reason}");
}

/// What is said of Services when they can't be followed with these settings.
async fn trouble_with(settings: Settings, user: impl Fn(&StandIn) -> Value) -> String {
    let server = StandIn::start(settings).await.unwrap();
    let kubeconfig = Kubeconfig::new(&server, &user(&server));
    let mut following = Following::start(options(&kubeconfig, FirstList::Streamed));
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    following.trouble(Kind::Service).unwrap().to_owned()
}

#[tokio::test]
async fn each_way_of_not_being_let_in_has_a_sentence_of_its_own() {
    let nobody = |_: &StandIn| json!({});
    let expired = Settings {
        expired: true,
        ..Settings::default()
    };
    let said = trouble_with(expired, nobody).await;
    assert!(
        said.contains("the API server's certificate has expired"),
        "{said}"
    );

    let client_expired = Settings {
        client_certificates: true,
        client_expired: true,
        ..Settings::default()
    };
    let ours = |server: &StandIn| server.identities().client_certificate_user();
    let said = trouble_with(client_expired, ours).await;
    assert!(
        said.contains("refuses our client certificate: it has expired"),
        "{said}"
    );

    let other = Identities::new([127, 0, 0, 1].into(), &Settings::default()).unwrap();
    let of_other = move |_: &StandIn| other.client_certificate_user();
    let of_another_authority = Settings {
        client_certificates: true,
        ..Settings::default()
    };
    let said = trouble_with(of_another_authority, of_other).await;
    assert!(said.contains("refuses our client certificate"), "{said}");

    let tokens = Settings {
        tokens: vec!["right".to_owned()],
        ..Settings::default()
    };
    let said = trouble_with(tokens, |_| json!({"token": "wrong"})).await;
    assert!(
        said.contains("does not know us: the token or client certificate is wrong"),
        "{said}"
    );
}

#[tokio::test]
async fn plain_http_works_with_master_alone() {
    let settings = Settings {
        tls: false,
        ..Settings::default()
    };
    let (server, kubeconfig) = with_services(&["a"], settings).await;
    let mut options = options(&kubeconfig, FirstList::Streamed);
    options.access = Access {
        master: Some(server.address().to_string()),
        ..Access::default()
    };
    let following = Following::synced(options).await;
    assert_eq!(following.names(), ["a"]);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_takes_nothing_else_with_it() {
    let bad = || {
        let mut bad = service("bad", "10.0.0.66");
        bad["spec"]["ports"] = json!([{"port": 80}, {"port": "web"}]);
        bad
    };
    for first_list in [FirstList::Streamed, FirstList::Paged(2)] {
        let (server, kubeconfig) = with_services(&["a", "bad", "c"], Settings::default()).await;
        server.set(resource("Service"), bad());
        let mut following = Following::synced(options(&kubeconfig, first_list)).await;
        assert_eq!(following.names(), ["a", "c"]);
        let unreadable = |update: &Update| match update {
            Update::Unreadable(Kind::Service, name, problem) => {
                assert_eq!(*name, ObjectName::new("default", "bad"));
                assert_eq!(problem.field, "spec.ports[1].port");
                true
            }
            _ => false,
        };
        assert_eq!(following.count(unreadable), 1);
        // Good again, then bad within the watch: its last good form stays.
        server.set(resource("Service"), service("bad", "10.0.0.7"));
        following.until_ip("bad", "10.0.0.7").await;
        server.set(resource("Service"), bad());
        server.set(resource("Service"), service("c", "10.0.0.8"));
        following.until_ip("c", "10.0.0.8").await;
        assert_eq!(following.count(unreadable), 2);
        assert_eq!(following.ip("bad").as_deref(), Some("10.0.0.7"));
        // Also through a list.
        server.close(true);
        server.set(resource("Service"), service("c", "10.0.0.9"));
        server.expire();
        server.close(false);
        following.until_ip("c", "10.0.0.9").await;
        following.settle(Duration::from_millis(200)).await;
        assert_eq!(following.ip("bad").as_deref(), Some("10.0.0.7"));
        server.delete(resource("Service"), "default", "bad");
        following
            .until("bad gone", |following| following.ip("bad").is_none())
            .await;
    }
}

#[tokio::test]
async fn an_odd_object_is_named_once() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut odd = service("odd", "10.0.0.2");
    odd["spec"]["externalIPs"] = json!(["010.0.0.1"]);
    server.set(resource("Service"), odd.clone());
    let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    let is_odd = |update: &Update| matches!(update, Update::Odd(Kind::Service, _, problem) if problem.field == "spec.externalIPs[0]");
    assert_eq!(following.count(is_odd), 1);
    odd["spec"]["clusterIPs"] = json!(["10.0.0.3"]);
    server.set(resource("Service"), odd.clone());
    following.until_ip("odd", "10.0.0.3").await;
    server.close(true);
    server.set(resource("Service"), service("a", "10.0.0.9"));
    server.expire();
    server.close(false);
    following.until_ip("a", "10.0.0.9").await;
    following.settle(Duration::from_millis(200)).await;
    assert_eq!(following.count(is_odd), 1);
}

#[tokio::test]
async fn garbage_in_a_watch_leads_to_a_list() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    let before = lists(&server, "services");
    server.send_line("<html>not JSON at all</html>");
    following
        .until("listed again", |following| {
            following.count(|update| *update == Update::ListDone(Kind::Service)) == 2
        })
        .await;
    assert!(lists(&server, "services") > before);
    assert_eq!(following.names(), ["a"]);
}

#[tokio::test]
async fn kinds_that_are_not_shown_to_us_hold_up_nothing() {
    for status in [403, 404] {
        let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
        for kind in ["ServiceCIDR", "Endpoints"] {
            server.refuse(resource(kind), Some(status));
        }
        let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
        assert_eq!(following.names(), ["a"]);
        for kind in [Kind::ServiceCidr, Kind::Endpoints] {
            let reason = following.trouble(kind).unwrap();
            assert!(reason.contains(&status.to_string()), "{reason}");
        }
        // They come as soon as they are.
        server.set(
            resource("ServiceCIDR"),
            json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.0.0.0/16"]}}),
        );
        server.refuse(resource("ServiceCIDR"), None);
        following
            .until("ServiceCIDRs", |following| {
                following.store.service_cidrs().count() == 1
            })
            .await;
        assert_eq!(following.trouble(Kind::ServiceCidr), None);
        assert!(following.trouble(Kind::Endpoints).is_some());
    }
}

#[tokio::test]
async fn a_kind_that_we_need_and_may_not_see_keeps_us_waiting() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    server.refuse(resource("EndpointSlice"), Some(403));
    let mut following = Following::start(options(&kubeconfig, FirstList::Streamed));
    following
        .until("trouble", |following| {
            following.trouble(Kind::EndpointSlice).is_some()
        })
        .await;
    following.settle(Duration::from_millis(500)).await;
    assert_eq!(following.store.waiting_for(), [Kind::EndpointSlice]);
    server.refuse(resource("EndpointSlice"), None);
    following
        .until("synced", |following| following.store.synced())
        .await;
}

#[tokio::test]
async fn a_server_that_fails_is_tried_again() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    server.refuse(resource("Service"), Some(500));
    let mut following = Following::start(options(&kubeconfig, FirstList::Paged(500)));
    following
        .until("trouble", |following| {
            following.trouble(Kind::Service).is_some()
        })
        .await;
    assert!(following.trouble(Kind::Service).unwrap().contains("500"));
    following.settle(Duration::from_secs(1)).await;
    let asked = lists(&server, "services");
    assert!(
        (3..=40).contains(&asked),
        "{asked} requests in about a second"
    );
    server.refuse(resource("Service"), None);
    following
        .until("synced", |following| following.store.synced())
        .await;
}

#[tokio::test]
async fn legacy_endpoints_stand_in_for_slices() {
    let (server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    server.set(
        resource("Endpoints"),
        json!({
            "metadata": {"name": "a", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": "10.1.0.1"}], "ports": [{"port": 80}]}],
        }),
    );
    let following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    assert_eq!(
        following
            .store
            .slices(&ObjectName::new("default", "a"))
            .count(),
        1
    );
}

#[tokio::test]
async fn bad_access_is_an_error_at_once_that_says_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let server = StandIn::start(Settings::default()).await.unwrap();
    let identities = server.identities();
    let missing_token = json!({"tokenFile": folder.path().join("no-token")});
    let bad_certificate = json!({"client-certificate-data": "QUJD", "client-key-data": "QUJD"});
    let cases = [
        (folder.path().join("none"), None, "none"),
        (write("not-yaml", "a: ["), None, "not-yaml"),
        (write("empty", "{}"), None, "empty"),
        (
            write(
                "no-token-file",
                &identities.kubeconfig(&server.url(), &missing_token),
            ),
            None,
            "no-token",
        ),
        (
            write(
                "certificate",
                &identities.kubeconfig(&server.url(), &bad_certificate),
            ),
            None,
            "certificate",
        ),
        (
            write("url", &identities.kubeconfig("ftp://example", &json!({}))),
            None,
            "expected a URL",
        ),
        (
            write("good", &identities.kubeconfig(&server.url(), &json!({}))),
            Some("https://bad host"),
            "expected https://",
        ),
    ];
    for (path, master, said) in cases {
        let options = Options {
            access: Access {
                kubeconfig: Some(path.clone()),
                master: master.map(str::to_owned),
                ..Access::default()
            },
            selections: Selection::for_proxy("node1"),
            keep: Keep::FOR_PROXY,
            first_list: FirstList::Streamed,
            timing: timing(),
            observer: None,
        };
        let error = validate(&options).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("kubeconfig {}: ", path.display())),
            "{error}"
        );
        assert!(error.contains(said), "{said}: {error}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn nothing_wakes_while_nothing_changes() {
    let (_server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let mut following = Following::synced(options(&kubeconfig, FirstList::Streamed)).await;
    following.settle(Duration::from_millis(500)).await;
    let before = wakeups();
    following.settle(Duration::from_secs(2)).await;
    // The test's own timer is one of them; server and source share its thread.
    let woken = wakeups() - before;
    assert!(woken <= 4, "{woken} wake-ups in two seconds");
}

/// How often this thread has waited for something so far.
fn wakeups() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let count = |line: &str| {
        line.strip_prefix("voluntary_ctxt_switches:")?
            .trim()
            .parse()
            .ok()
    };
    status.lines().find_map(count).unwrap()
}

#[tokio::test]
async fn the_source_ends_when_nobody_listens() {
    let (_server, kubeconfig) = with_services(&["a"], Settings::default()).await;
    let (sender, updates) = channel(UPDATES_CAPACITY);
    let task = tokio::spawn(run(options(&kubeconfig, FirstList::Streamed), sender));
    drop(updates);
    let end = timeout(PATIENCE, task).await.unwrap().unwrap();
    assert!(matches!(end, Err(SourceError::NobodyListens)));
}
