//! The manifests source over real folders.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use switchyard_cluster::decode::Keep;
use switchyard_cluster::object::{Kind, Object, ObjectName};
use switchyard_cluster::source::manifests::{Options, run, validate};
use switchyard_cluster::source::{Selection, SourceError, UPDATES_CAPACITY};
use switchyard_cluster::update::{Problem, Update};
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

/// An update that does not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a change to be noticed, coalesced and read.
const NOTICE: Duration = Duration::from_millis(400);

struct Running {
    updates: Receiver<Update>,
    task: tokio::task::JoinHandle<SourceError>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn start(folder: &Path) -> Self {
        let options = Options {
            folder: folder.to_owned(),
            selections: Kind::FOR_PROXY.map(Selection::all).to_vec(),
            keep: Keep::ALL,
        };
        let (sender, updates) = channel(UPDATES_CAPACITY);
        let task = tokio::spawn(async move {
            match run(options, sender).await {
                Ok(never) => match never {},
                Err(error) => error,
            }
        });
        Self { updates, task }
    }

    async fn next(&mut self) -> Update {
        let next = timeout(PATIENCE, self.updates.recv()).await;
        next.expect("an update should come")
            .expect("the source should run")
    }

    /// Every update of the first list, without its frame.
    async fn first_list(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        let mut done = 0;
        while done < Kind::FOR_PROXY.len() {
            match self.next().await {
                Update::ListStarted(_) => {}
                Update::ListDone(_) => done += 1,
                other => updates.push(other),
            }
        }
        updates
    }

    /// What is said until nothing comes any more.
    async fn all(&mut self) -> Vec<Update> {
        let mut updates = vec![self.next().await];
        while let Ok(Some(update)) = timeout(NOTICE, self.updates.recv()).await {
            updates.push(update);
        }
        updates
    }

    async fn nothing(&mut self) {
        if let Ok(update) = timeout(NOTICE, self.updates.recv()).await {
            panic!("unexpected {update:?}");
        }
    }
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{clusterIP: {ip}, clusterIPs: [{ip}], ports: [{{port: 80}}]}}\n"
    )
}

/// `name=first ClusterIP` of every Service that an update puts.
fn put(updates: &[Update]) -> Vec<String> {
    let line = |update: &Update| match update {
        Update::Upsert(Object::Service(service)) => {
            Some(format!("{}={}", service.name.name, service.cluster_ips[0]))
        }
        _ => None,
    };
    updates.iter().filter_map(line).collect()
}

fn removed(updates: &[Update]) -> Vec<String> {
    let line = |update: &Update| match update {
        Update::Remove(_, name) => Some(name.to_string()),
        _ => None,
    };
    updates.iter().filter_map(line).collect()
}

fn problems(updates: &[Update]) -> Vec<String> {
    let line = |update: &Update| match update {
        Update::Malformed(problem) => Some(format!("malformed {problem}")),
        Update::Odd(_, name, problem) => Some(format!("odd {name} {problem}")),
        Update::Unreadable(_, name, problem) => Some(format!("unreadable {name} {problem}")),
        _ => None,
    };
    updates.iter().filter_map(line).collect()
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[tokio::test]
async fn reads_every_form_of_file_and_frames_the_first_list() {
    let dir = TempDir::new().unwrap();
    write(
        dir.path(),
        "a.yaml",
        &format!(
            "# a comment first\n---\n{}---\n{}---\n",
            service("a", "10.0.0.1"),
            service("b", "10.0.0.2")
        ),
    );
    write(
        dir.path(),
        "b.yml",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: c, namespace: default}\n  spec: {clusterIP: 10.0.0.3}\n- apiVersion: apps/v1\n  kind: Deployment\n  metadata: {name: c}\n",
    );
    write(
        dir.path(),
        "c.json",
        r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"d","namespace":"default"},"spec":{"clusterIP":"10.0.0.4"}}]}"#,
    );
    write(dir.path(), "d.json", "");
    write(
        dir.path(),
        "knative.yaml",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: k}\n",
    );
    write(dir.path(), ".hidden.yaml", &service("hidden", "10.0.0.5"));
    write(dir.path(), "notes.txt", &service("text", "10.0.0.6"));
    fs::create_dir(dir.path().join("below.yaml")).unwrap();
    let mut running = Running::start(dir.path());
    let mut frame = Vec::new();
    for kind in Kind::FOR_PROXY {
        frame.push(Update::ListStarted(kind));
    }
    let mut seen = Vec::new();
    while seen.len() < 14 {
        seen.push(running.next().await);
    }
    assert_eq!(seen[..5], frame[..]);
    assert_eq!(
        put(&seen),
        ["a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3", "d=10.0.0.4"]
    );
    assert_eq!(problems(&seen), [""; 0]);
    assert!(matches!(seen[9..], [Update::ListDone(_), ..]));
    running.nothing().await;
}

#[tokio::test]
async fn follows_writes_renames_and_deletes_with_differences_only() {
    let dir = TempDir::new().unwrap();
    write(
        dir.path(),
        "a.yaml",
        &format!(
            "{}---\n{}",
            service("a", "10.0.0.1"),
            service("b", "10.0.0.2")
        ),
    );
    let mut running = Running::start(dir.path());
    running.first_list().await;

    write(
        dir.path(),
        "a.yaml",
        &format!(
            "{}---\n{}",
            service("a", "10.0.0.1"),
            service("b", "10.0.0.9")
        ),
    );
    let updates = running.all().await;
    assert_eq!(put(&updates), ["b=10.0.0.9"]);
    assert_eq!(updates.len(), 1);

    write(dir.path(), ".a.tmp", &service("a", "10.0.0.7"));
    fs::rename(dir.path().join(".a.tmp"), dir.path().join("a.yaml")).unwrap();
    let updates = running.all().await;
    assert_eq!(put(&updates), ["a=10.0.0.7"]);
    assert_eq!(removed(&updates), ["default/b"]);

    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(removed(&running.all().await), ["default/a"]);

    write(dir.path(), "new.yaml", &service("n", "10.0.0.1"));
    assert_eq!(put(&running.all().await), ["n=10.0.0.1"]);

    // Read, touched, or rewritten with what it said already: nothing to say.
    fs::read_to_string(dir.path().join("new.yaml")).unwrap();
    write(dir.path(), "new.yaml", &service("n", "10.0.0.1"));
    running.nothing().await;
}

#[tokio::test]
async fn follows_the_swap_of_a_mounted_config_map() {
    let dir = TempDir::new().unwrap();
    for (version, ip) in [("..1", "10.0.0.1"), ("..2", "10.0.0.2")] {
        fs::create_dir(dir.path().join(version)).unwrap();
        write(
            dir.path(),
            &format!("{version}/web.yaml"),
            &service("web", ip),
        );
    }
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/web.yaml", dir.path().join("web.yaml")).unwrap();
    let mut running = Running::start(dir.path());
    assert_eq!(put(&running.first_list().await), ["web=10.0.0.1"]);

    symlink("..2", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    fs::remove_dir_all(dir.path().join("..1")).unwrap();
    let updates = running.all().await;
    assert_eq!(put(&updates), ["web=10.0.0.2"]);
    assert_eq!(updates.len(), 1);
}

#[tokio::test]
async fn follows_a_file_that_a_symlink_leads_to_elsewhere() {
    let dir = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    write(elsewhere.path(), "web.txt", &service("web", "10.0.0.1"));
    symlink(
        elsewhere.path().join("web.txt"),
        dir.path().join("web.yaml"),
    )
    .unwrap();
    let mut running = Running::start(dir.path());
    assert_eq!(put(&running.first_list().await), ["web=10.0.0.1"]);
    running.nothing().await;
    write(elsewhere.path(), "web.txt", &service("web", "10.0.0.2"));
    assert_eq!(put(&running.all().await), ["web=10.0.0.2"]);
}

#[tokio::test]
async fn a_bad_file_keeps_its_last_good_content_and_stops_nothing_else() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("a", "10.0.0.1"));
    write(dir.path(), "b.yaml", &service("b", "10.0.0.2"));
    let mut running = Running::start(dir.path());
    running.first_list().await;

    let cases = [
        ("not YAML", "a: [1", "not YAML"),
        (
            "duplicate key",
            "apiVersion: v1\nkind: Service\nkind: Node\nmetadata: {name: a}\n",
            "not YAML",
        ),
        ("a word", "just words\n", "expected an object"),
        ("no kind", "metadata: {name: a}\n", "kind: missing"),
        (
            "no name",
            "apiVersion: v1\nkind: Service\n",
            "metadata.name: missing",
        ),
        ("a list", "- 1\n", "expected an object"),
    ];
    for (what, text, said) in cases {
        // The second document is the bad one.
        write(
            dir.path(),
            "a.yaml",
            &format!("{}---\n{text}", service("a", "10.0.0.99")),
        );
        let updates = running.all().await;
        assert_eq!(put(&updates), [""; 0], "{what}");
        assert_eq!(removed(&updates), [""; 0], "{what}");
        let problems = problems(&updates);
        assert_eq!(problems.len(), 1, "{what}: {problems:?}");
        assert!(
            problems[0].starts_with("malformed a.yaml, document 2: "),
            "{what}: {problems:?}"
        );
        assert!(problems[0].contains(said), "{what}: {problems:?}");
        write(dir.path(), "b.yaml", &service("b", "10.0.0.3"));
        running.all().await;
        write(dir.path(), "b.yaml", &service("b", "10.0.0.2"));
        assert_eq!(put(&running.all().await), ["b=10.0.0.2"], "{what}");
    }
    write(dir.path(), "a.yaml", &service("a", "10.0.0.98"));
    assert_eq!(put(&running.all().await), ["a=10.0.0.98"]);
}

#[tokio::test]
async fn a_bad_object_keeps_its_last_good_form_while_its_neighbours_change() {
    let dir = TempDir::new().unwrap();
    write(
        dir.path(),
        "a.yaml",
        &format!(
            "{}---\n{}",
            service("a", "10.0.0.1"),
            service("b", "10.0.0.2")
        ),
    );
    let mut running = Running::start(dir.path());
    running.first_list().await;

    let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\n\
               spec: {ports: [{port: 80}, {port: web}]}\n";
    write(
        dir.path(),
        "a.yaml",
        &format!("{bad}---\n{}", service("b", "10.0.0.3")),
    );
    let updates = running.all().await;
    assert_eq!(put(&updates), ["b=10.0.0.3"]);
    assert_eq!(removed(&updates), [""; 0]);
    let said = problems(&updates);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("unreadable default/a a.yaml, document 1: spec.ports[1].port: "),
        "{said:?}"
    );

    // Said once.
    write(
        dir.path(),
        "a.yaml",
        &format!("{bad}---\n{}", service("b", "10.0.0.4")),
    );
    assert_eq!(problems(&running.all().await), [""; 0]);
    // Gone from the file, it is gone.
    write(dir.path(), "a.yaml", &service("b", "10.0.0.4"));
    assert_eq!(removed(&running.all().await), ["default/a"]);
}

#[tokio::test]
async fn odd_entries_are_named_with_file_document_and_field_once() {
    let dir = TempDir::new().unwrap();
    let odd = "kind: List\nitems:\n- kind: Service\n  metadata: {name: a, namespace: default}\n  \
               spec: {clusterIP: 10.0.0.1, externalIPs: [010.0.0.1], ports: [{port: 70000}, {port: 81, name: b}]}\n";
    write(dir.path(), "a.yaml", odd);
    let mut running = Running::start(dir.path());
    let updates = running.first_list().await;
    let said = problems(&updates);
    assert_eq!(put(&updates), ["a=10.0.0.1"]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("odd default/a a.yaml, document 1: items[0].spec.externalIPs[0]: "),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("odd default/a a.yaml, document 1: items[0].spec.ports[0].port: "),
        "{said:?}"
    );
    write(dir.path(), "a.yaml", &odd.replace("port: 81", "port: 82"));
    let updates = running.all().await;
    assert_eq!(put(&updates), ["a=10.0.0.1"]);
    assert_eq!(problems(&updates), [""; 0]);
}

#[tokio::test]
async fn of_two_files_with_the_same_object_the_later_name_wins() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("web", "10.0.0.1"));
    write(dir.path(), "b.yaml", &service("web", "10.0.0.2"));
    let mut running = Running::start(dir.path());
    let updates = running.first_list().await;
    assert_eq!(put(&updates).last().unwrap(), "web=10.0.0.2");
    let said = problems(&updates);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("a.yaml") && said[0].contains("b.yaml"),
        "{said:?}"
    );

    write(dir.path(), "a.yaml", &service("web", "10.0.0.3"));
    running.nothing().await;
    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    let updates = running.all().await;
    assert_eq!(put(&updates), ["web=10.0.0.3"]);
    assert_eq!(removed(&updates), [""; 0]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_its_last_good_content() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("a", "10.0.0.1"));
    let mut running = Running::start(dir.path());
    running.first_list().await;
    // Root reads any file whatever its mode: a link that leads nowhere stands in.
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    symlink("nowhere", dir.path().join("a.yaml")).unwrap();
    let updates = running.all().await;
    let said = problems(&updates);
    if removed(&updates).is_empty() {
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("malformed a.yaml: can't read it: "),
            "{said:?}"
        );
    } else {
        panic!("{updates:?}");
    }
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    write(dir.path(), "a.yaml", &service("a", "10.0.0.2"));
    fs::set_permissions(dir.path().join("a.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(put(&running.all().await), ["a=10.0.0.2"]);
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_not_read() {
    let dir = TempDir::new().unwrap();
    let both = format!(
        "{}---\n{}",
        service("a", "10.0.0.1"),
        service("b", "10.0.0.2")
    );
    write(dir.path(), "a.yaml", &both);
    let elsewhere = TempDir::new().unwrap();
    write(elsewhere.path(), "l.txt", &service("l", "10.0.1.1"));
    symlink(elsewhere.path().join("l.txt"), dir.path().join("l.yaml")).unwrap();
    let mut running = Running::start(dir.path());
    running.first_list().await;
    // As `kubectl get … > a.yaml` does: emptied, half filled, filled.
    let mut file = fs::File::create(dir.path().join("a.yaml")).unwrap();
    let mut linked = fs::File::create(elsewhere.path().join("l.txt")).unwrap();
    let mut new = fs::File::create(dir.path().join("new.yaml")).unwrap();
    running.nothing().await;
    file.write_all(service("a", "10.0.0.1").as_bytes()).unwrap();
    file.flush().unwrap();
    new.write_all(service("n", "10.0.0.9").as_bytes()).unwrap();
    running.nothing().await;
    // Others are read meanwhile.
    write(dir.path(), "c.yaml", &service("c", "10.0.0.3"));
    assert_eq!(put(&running.all().await), ["c=10.0.0.3"]);
    file.write_all(format!("---\n{}", service("b", "10.0.0.7")).as_bytes())
        .unwrap();
    linked
        .write_all(service("l", "10.0.1.2").as_bytes())
        .unwrap();
    drop((file, linked));
    let updates = running.all().await;
    assert_eq!(put(&updates), ["b=10.0.0.7", "l=10.0.1.2"]);
    assert_eq!(updates.len(), 2);
    // One that is never closed is read in the end.
    assert_eq!(put(&running.all().await), ["n=10.0.0.9"]);
    drop(new);
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_back_is_followed_on() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    write(&folder, "a.yaml", &service("a", "10.0.0.1"));
    let mut running = Running::start(&folder);
    running.first_list().await;
    fs::rename(&folder, dir.path().join("aside")).unwrap();
    let updates = running.all().await;
    assert_eq!(removed(&updates), [""; 0]);
    assert_eq!(problems(&updates).len(), 1);

    let next = dir.path().join("next");
    fs::create_dir(&next).unwrap();
    write(&next, "a.yaml", &service("a", "10.0.0.2"));
    fs::rename(&next, &folder).unwrap();
    assert_eq!(put(&running.all().await), ["a=10.0.0.2"]);
    write(&folder, "a.yaml", &service("a", "10.0.0.3"));
    assert_eq!(put(&running.all().await), ["a=10.0.0.3"]);
}

#[tokio::test]
async fn a_folder_that_is_missing_at_the_start_is_an_error() {
    let dir = TempDir::new().unwrap();
    for (path, said) in [
        (dir.path().join("none"), "expected a folder"),
        (dir.path().join("file"), "is not a folder"),
    ] {
        write(dir.path(), "file", "");
        let options = Options {
            folder: path,
            selections: Kind::FOR_PROXY.map(Selection::all).to_vec(),
            keep: Keep::ALL,
        };
        let error = validate(&options).unwrap_err().to_string();
        assert!(
            error.starts_with("--manifests ") && error.contains(said),
            "{error}"
        );
    }
}

#[tokio::test]
async fn nothing_wakes_while_nothing_changes() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("a", "10.0.0.1"));
    let mut running = Running::start(dir.path());
    running.first_list().await;
    running.nothing().await;
    let before = wakeups();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The test's own timer is one of them.
    let woken = wakeups() - before;
    assert!(woken <= 4, "{woken} wake-ups in two seconds");
    running.nothing().await;
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
    let dir = TempDir::new().unwrap();
    let mut running = Running::start(dir.path());
    running.first_list().await;
    running.updates.close();
    write(dir.path(), "a.yaml", &service("a", "10.0.0.1"));
    let task = std::mem::replace(&mut running.task, tokio::spawn(async { unreachable!() }));
    let end = timeout(PATIENCE, task).await.unwrap().unwrap();
    assert!(matches!(end, SourceError::NobodyListens));
}

#[test]
fn names_read_well() {
    let problem = Problem {
        place: "a.yaml, document 2".to_owned(),
        field: "spec.ports[1].port".to_owned(),
        message: "0 is not a port".to_owned(),
    };
    assert_eq!(
        problem.to_string(),
        "a.yaml, document 2: spec.ports[1].port: 0 is not a port"
    );
    assert_eq!(ObjectName::new("default", "web").to_string(), "default/web");
}
