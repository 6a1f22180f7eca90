//! What a DNS server is told of a folder of manifests: Namespaces, Pods, labels.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use switchyard_cluster::object::{Kind, ObjectName};
use switchyard_cluster::source::manifests::{Options, run, validate};
use switchyard_cluster::source::{DnsNeeds, Selection, UPDATES_CAPACITY};
use switchyard_cluster::store::{Change, Store};
use switchyard_cluster::update::Update;
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

/// What does not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a change to be noticed, coalesced and read.
const NOTICE: Duration = Duration::from_millis(400);

struct Running {
    store: Store,
    updates: Receiver<Update>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn options(folder: &Path, needs: &DnsNeeds) -> Options {
    Options {
        folder: folder.to_owned(),
        selections: Selection::for_dns(needs),
        keep: needs.keep(),
    }
}

impl Running {
    async fn synced(folder: &Path, needs: &DnsNeeds) -> Self {
        let options = options(folder, needs);
        let kinds: Vec<Kind> = options.selections.iter().map(|one| one.kind).collect();
        let (sender, updates) = channel(UPDATES_CAPACITY);
        let task = tokio::spawn(async move {
            let _ = run(options, sender).await;
        });
        let mut running = Self {
            store: Store::new(&kinds),
            updates,
            task,
        };
        while !running.store.synced() {
            let update = timeout(PATIENCE, running.updates.recv()).await;
            running.apply(update.unwrap().unwrap());
        }
        running
    }

    fn apply(&mut self, update: Update) -> Vec<Change> {
        if let Update::Unreadable(..) | Update::Odd(..) | Update::Malformed(_) = &update {
            panic!("{update:?}");
        }
        let mut changes = Vec::new();
        self.store.apply(update, &mut |change| changes.push(change));
        changes
    }

    /// The changes until nothing comes any more.
    async fn changes(&mut self) -> Vec<Change> {
        let update = timeout(PATIENCE, self.updates.recv()).await;
        let mut changes = self.apply(update.unwrap().unwrap());
        while let Ok(Some(update)) = timeout(NOTICE, self.updates.recv()).await {
            changes.extend(self.apply(update));
        }
        changes
    }

    fn namespaces(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .store
            .namespaces()
            .map(|namespace| namespace.name.to_string())
            .collect();
        names.sort();
        names
    }

    fn pods(&self) -> Vec<String> {
        let mut pods: Vec<String> = self
            .store
            .pods()
            .map(|pod| format!("{} {:?}", pod.name, pod.ips))
            .collect();
        pods.sort();
        pods
    }

    fn services(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .store
            .services()
            .map(|service| service.name.to_string())
            .collect();
        names.sort();
        names
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn named(kind: &str, namespace: &str, name: &str, labels: &str) -> String {
    let namespace = match namespace {
        "" => String::new(),
        namespace => format!(", namespace: {namespace}"),
    };
    format!(
        "---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}{namespace}, labels: {{{labels}}}}}\n"
    )
}

fn pod(name: &str, ip: &str) -> String {
    format!(
        "{}status: {{phase: Running, podIPs: [{{ip: {ip}}}]}}\n",
        named("Pod", "shop", name, "")
    )
}

#[tokio::test]
async fn a_namespace_that_an_object_lives_in_is_there_as_long_as_one_does() {
    let dir = TempDir::new().unwrap();
    write(
        dir.path(),
        "a.yaml",
        &[
            named("Service", "shop", "a", ""),
            named("Service", "default", "b", ""),
            named("Namespace", "", "given", ""),
            named("Service", "given", "c", ""),
        ]
        .concat(),
    );
    write(dir.path(), "b.yaml", &named("Service", "shop", "d", ""));
    let mut running = Running::synced(dir.path(), &DnsNeeds::default()).await;
    assert_eq!(running.namespaces(), ["default", "given", "shop"]);

    // One of two in shop goes, the only one in default, and the given one stays empty.
    write(dir.path(), "a.yaml", &named("Namespace", "", "given", ""));
    let changes = running.changes().await;
    assert!(changes.contains(&Change::Namespace(ObjectName::cluster_wide("default"))));
    assert_eq!(running.namespaces(), ["given", "shop"]);

    // Not given any more, but lived in.
    write(dir.path(), "a.yaml", &named("Service", "given", "c", ""));
    running.changes().await;
    assert_eq!(running.namespaces(), ["given", "shop"]);

    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    running.changes().await;
    assert_eq!(running.namespaces(), [""; 0]);
}

#[tokio::test]
async fn pods_are_read_only_where_asked_for_and_their_changes_say_what_they_were() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &pod("one", "10.1.0.1"));
    let running = Running::synced(dir.path(), &DnsNeeds::default()).await;
    assert_eq!(running.pods(), [""; 0]);

    let needs = DnsNeeds {
        pods: true,
        ..DnsNeeds::default()
    };
    let mut running = Running::synced(dir.path(), &needs).await;
    assert_eq!(running.pods(), ["shop/one [10.1.0.1]"]);
    let name = ObjectName::new("shop", "one");
    let before = running.store.pod(&name).cloned();
    write(dir.path(), "a.yaml", &pod("one", "10.1.0.2"));
    let changes = running.changes().await;
    let after = running.store.pod(&name).cloned();
    assert_eq!(running.pods(), ["shop/one [10.1.0.2]"]);
    let change = Change::Pod {
        old: before,
        new: after.clone(),
    };
    assert_eq!(changes, [change]);

    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    let changes = running.changes().await;
    let change = Change::Pod {
        old: after,
        new: None,
    };
    assert!(changes.contains(&change), "{changes:?}");
}

#[tokio::test]
async fn labels_select_objects_and_namespaces() {
    let dir = TempDir::new().unwrap();
    write(
        dir.path(),
        "a.yaml",
        &[
            named("Service", "shop", "yes", "team: a"),
            named("Service", "shop", "no", "team: b"),
            named("Service", "other", "bare", ""),
            named("Namespace", "", "shop", "dns: show"),
            named("Namespace", "", "hidden", "dns: hide"),
        ]
        .concat(),
    );
    let needs = DnsNeeds {
        labels: Some("team in (a, c)".to_owned()),
        namespace_labels: Some("dns=show".to_owned()),
        ..DnsNeeds::default()
    };
    let mut running = Running::synced(dir.path(), &needs).await;
    assert_eq!(running.services(), ["shop/yes"]);
    assert_eq!(running.namespaces(), ["shop"]);

    // One that does not match any more is gone.
    write(
        dir.path(),
        "a.yaml",
        &named("Service", "shop", "yes", "team: b"),
    );
    running.changes().await;
    assert_eq!(running.services(), [""; 0]);
    assert_eq!(running.namespaces(), [""; 0]);

    let needs = DnsNeeds {
        labels: Some("team in a".to_owned()),
        ..DnsNeeds::default()
    };
    let error = validate(&options(dir.path(), &needs)).unwrap_err();
    assert!(error.to_string().contains("\"team in a\""), "{error}");
}

#[tokio::test]
async fn of_endpoints_only_what_is_needed_is_kept() {
    let dir = TempDir::new().unwrap();
    write(
        dir.path(),
        "a.yaml",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
         addressType: IPv4\nendpoints:\n\
         - {addresses: [10.1.0.1], hostname: web-0, nodeName: n, zone: z, targetRef: {kind: Pod, name: p}}\n\
         - {addresses: [10.1.0.2], conditions: {ready: false}}\n",
    );
    let read = async |needs: DnsNeeds| {
        let running = Running::synced(dir.path(), &needs).await;
        let web = ObjectName::new("shop", "web");
        let slices: Vec<_> = running.store.slices(&web).cloned().collect();
        slices
    };
    let [slice] = &read(DnsNeeds::default()).await[..] else {
        panic!("not one slice");
    };
    let [endpoint] = &*slice.endpoints else {
        panic!("the one that is not ready is kept");
    };
    let naming = endpoint.naming.as_deref().unwrap();
    assert_eq!(naming.hostname.as_deref(), Some("web-0"));
    assert_eq!(naming.pod, None);
    assert_eq!(endpoint.place, None);

    let slices = read(DnsNeeds {
        endpoint_pod_names: true,
        zones: true,
        ..DnsNeeds::default()
    })
    .await;
    let endpoint = &slices[0].endpoints[0];
    let naming = endpoint.naming.as_deref().unwrap();
    assert_eq!(naming.pod.as_deref(), Some("p"));
    assert_eq!(endpoint.zone().map(|zone| &**zone), Some("z"));

    let none = read(DnsNeeds {
        no_endpoints: true,
        ..DnsNeeds::default()
    })
    .await;
    assert!(none.is_empty());
}
