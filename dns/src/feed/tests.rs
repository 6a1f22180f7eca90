use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use switchyard_cluster::object::Kind;
use switchyard_cluster::store::{Change, Store};
use tempfile::TempDir;

use super::*;

/// What does not happen within this time does not happen.
const PATIENCE: Duration = Duration::from_secs(15);
/// Long enough for a change that must not come.
const NOTICE: Duration = Duration::from_millis(300);

/// What a follower was told, in words.
struct Told(Receiver<String>);

struct Recorder {
    name: &'static str,
    told: Sender<String>,
}

impl Recorder {
    fn new(name: &'static str) -> (Self, Told) {
        let (told, receiver) = channel();
        (Self { name, told }, Told(receiver))
    }

    fn say(&self, words: String) {
        let _ = self.told.send(words);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.say(format!("{} dropped", self.name));
    }
}

impl Follower for Recorder {
    fn restart(&mut self, store: &Store) {
        self.say(format!("restart with {}", store.count(Kind::Service)));
    }

    fn change(&mut self, store: &Store, change: &Change) {
        if let Change::Service(name) = change {
            let service = store.service(name);
            let ip = service.and_then(|service| service.cluster_ips.first());
            let ip = ip.map_or_else(|| "gone".to_owned(), ToString::to_string);
            self.say(format!("{name} {ip}"));
        }
    }

    fn synced(&mut self, store: &Store) {
        self.say(format!("synced with {}", store.count(Kind::Service)));
    }
}

impl Told {
    /// The words that come next.
    fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).unwrap()
    }

    /// Everything up to these words.
    fn until(&self, words: &str) -> Vec<String> {
        let mut told = vec![self.next()];
        while told.last().is_some_and(|last| last != words) {
            told.push(self.next());
        }
        told
    }

    fn nothing(&self) {
        if let Ok(words) = self.0.recv_timeout(NOTICE) {
            panic!("unexpected: {words}");
        }
    }
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
    )
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn spec(folder: &Path) -> FeedSpec {
    FeedSpec {
        source: FeedSource::Manifests(folder.to_owned()),
        needs: DnsNeeds::default(),
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_follower_is_told_the_list_that_it_is_complete_and_then_every_change() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("a", "10.0.0.1"));
    let feed = Feeds::default().feed(&spec(dir.path()));
    let (recorder, told) = Recorder::new("one");
    let _following = feed.follow(recorder);
    told.nothing();
    assert!(!feed.is_synced());
    feed.start().unwrap();
    tokio::time::timeout(PATIENCE, feed.until_synced())
        .await
        .unwrap();
    assert!(feed.is_synced());
    assert_eq!(
        told.until("synced with 1"),
        ["restart with 0", "shop/a 10.0.0.1", "synced with 1"]
    );
    write(dir.path(), "a.yaml", &service("a", "10.0.0.2"));
    assert_eq!(told.next(), "shop/a 10.0.0.2");
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(told.next(), "shop/a gone");
    told.nothing();
}

#[test]
fn one_that_comes_later_is_shown_what_there_is_and_one_that_goes_is_dropped() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("a", "10.0.0.1"));
    let feed = Feeds::default().feed(&spec(dir.path()));
    feed.start().unwrap();
    feed.start().unwrap();
    until("synced", || feed.is_synced());
    let (one, told_one) = Recorder::new("one");
    let (two, told_two) = Recorder::new("two");
    let following_one = feed.follow(one);
    let following_two = feed.follow(two);
    for told in [&told_one, &told_two] {
        assert_eq!(told.next(), "restart with 1");
        assert_eq!(told.next(), "synced with 1");
    }
    drop(following_one);
    assert_eq!(told_one.next(), "one dropped");
    write(dir.path(), "b.yaml", &service("b", "10.0.0.2"));
    assert_eq!(told_two.next(), "shop/b 10.0.0.2");
    assert!(Arc::ptr_eq(&feed, following_two.feed()));
}

#[test]
fn equal_specs_share_a_feed_and_one_that_nobody_holds_ends() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("a", "10.0.0.1"));
    let feeds = Feeds::default();
    let old = feeds.feed(&spec(dir.path()));
    old.start().unwrap();
    let (recorder, told) = Recorder::new("old");
    let following = old.follow(recorder);
    told.until("synced with 1");
    // A reload: the new configuration asks before the old one lets go.
    let new = feeds.feed(&spec(dir.path()));
    assert!(Arc::ptr_eq(&old, &new));
    let other = feeds.feed(&FeedSpec {
        needs: DnsNeeds {
            pods: true,
            ..DnsNeeds::default()
        },
        ..spec(dir.path())
    });
    assert!(!Arc::ptr_eq(&old, &other));
    new.start().unwrap();
    let (recorder, told_new) = Recorder::new("new");
    let following_new = new.follow(recorder);
    drop((old, following));
    assert_eq!(told.next(), "old dropped");
    // Known at once, without another list.
    assert!(new.is_synced());
    assert_eq!(told_new.next(), "restart with 1");
    assert_eq!(told_new.next(), "synced with 1");

    let weak = Arc::downgrade(&new);
    drop((new, following_new));
    assert_eq!(told_new.next(), "new dropped");
    assert!(weak.upgrade().is_none());
    let again = feeds.feed(&spec(dir.path()));
    assert!(!again.is_synced());
}

#[test]
fn a_folder_that_comes_late_or_back_is_read_and_what_it_said_stays_meanwhile() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("manifests");
    let spec = spec(&folder);
    let error = spec.check().unwrap_err().to_string();
    assert!(error.contains("expected a folder"), "{error}");
    let feed = Feeds::default().feed(&spec);
    feed.start().unwrap();
    let (recorder, told) = Recorder::new("one");
    let _following = feed.follow(recorder);
    assert_eq!(told.next(), "restart with 0");
    fs::create_dir(&folder).unwrap();
    write(&folder, "a.yaml", &service("a", "10.0.0.1"));
    spec.check().unwrap();
    told.until("synced with 1");
    let away = dir.path().join("away");
    fs::rename(&folder, &away).unwrap();
    told.nothing();
    write(&away, "a.yaml", &service("a", "10.0.0.2"));
    fs::rename(&away, &folder).unwrap();
    assert_eq!(told.next(), "shop/a 10.0.0.2");
}

#[test]
fn what_leads_to_an_api_server_is_checked_at_once() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    let api = |access| FeedSpec {
        source: FeedSource::Api(access),
        needs: DnsNeeds::default(),
    };
    let by_kubeconfig = api(Access {
        kubeconfig: Some(missing.clone()),
        ..Access::default()
    });
    let by_files = api(Access {
        master: Some("https://127.0.0.1:6443".to_owned()),
        tls: Some(TlsFiles {
            certificate: missing.clone(),
            key: missing.clone(),
            authorities: missing.clone(),
        }),
        ..Access::default()
    });
    for spec in [by_kubeconfig, by_files] {
        let error = spec.check().unwrap_err().to_string();
        let missing = missing.display().to_string();
        assert!(error.contains(&missing), "{error}");
    }
    let by_url = api(Access {
        master: Some("http://127.0.0.1:1".to_owned()),
        ..Access::default()
    });
    by_url.check().unwrap();
}

/// Counts what it is told of one Service.
struct Counter {
    told: Sender<usize>,
    changes: usize,
}

impl Follower for Counter {
    fn restart(&mut self, _: &Store) {}

    fn change(&mut self, _: &Store, change: &Change) {
        if let Change::Endpoints { .. } = change {
            self.changes += 1;
        }
    }

    fn settled(&mut self, _: &Store) {
        let _ = self.told.send(self.changes);
    }

    fn synced(&mut self, _: &Store) {}
}

#[test]
fn changes_of_one_service_that_come_together_are_told_once() {
    let dir = TempDir::new().unwrap();
    let slices: String = (0..10)
        .map(|number| {
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-{number}, \
                 namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\n\
                 endpoints: [{{addresses: [10.1.0.{number}]}}]\n"
            )
        })
        .collect();
    write(dir.path(), "a.yaml", &slices);
    let feed = Feeds::default().feed(&spec(dir.path()));
    let (told, settled) = channel();
    let _following = feed.follow(Counter { told, changes: 0 });
    feed.start().unwrap();
    until("synced", || feed.is_synced());
    let last = settled.try_iter().last().unwrap();
    assert!((1..=3).contains(&last), "{last}");
}
