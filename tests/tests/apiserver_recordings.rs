//! The stand-in API server answers as the recorded exchanges of a real one do.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use switchyard_tests::apiserver::{RESOURCES, Resource, Settings, StandIn};
use tokio::time::timeout;

/// No answer of the stand-in takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// One recorded exchange.
struct Recording {
    path: String,
    status: u16,
    body: String,
}

fn recording(name: &str) -> Recording {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/kube-apiserver-1.36")
        .join(format!("{name}.http"));
    let text = fs::read_to_string(&file).unwrap();
    let (head, body) = text.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let request = lines.next().unwrap();
    let status = lines.next().unwrap();
    Recording {
        path: request.split_whitespace().nth(1).unwrap().to_owned(),
        status: status.split_whitespace().nth(1).unwrap().parse().unwrap(),
        body: body.to_owned(),
    }
}

impl Recording {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn events(&self) -> Vec<Value> {
        events(&self.body)
    }
}

fn events(body: &str) -> Vec<Value> {
    let lines = body.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn services() -> &'static Resource {
    &RESOURCES[0]
}

fn slices() -> &'static Resource {
    Resource::of_kind("EndpointSlice", "discovery.k8s.io/v1").unwrap()
}

async fn plain() -> StandIn {
    let settings = Settings {
        tls: false,
        ..Settings::default()
    };
    StandIn::start(settings).await.unwrap()
}

/// Puts an object at the version it was recorded with.
fn load(server: &StandIn, resource: &Resource, object: &Value) {
    let version: u64 = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    server.skip_to(version - 1);
    assert_eq!(server.set(resource, object.clone()), version);
}

/// The six Services of the recordings, as the streamed list has them.
fn load_services(server: &StandIn) {
    for event in recording("watch-list").events() {
        if event["type"] == "ADDED" {
            load(server, services(), &event["object"]);
        }
    }
}

async fn ask(server: &StandIn, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", server.url()));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let asking = async {
        let answer = client.request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    timeout(PATIENCE, asking).await.expect("an answer")
}

async fn put(server: &StandIn, path: &str, object: &Value) -> u16 {
    let body = Full::new(Bytes::from(object.to_string()));
    let request = Request::put(format!("{}{path}", server.url()))
        .body(body)
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn pages() {
    let server = plain().await;
    load_services(&server);
    server.skip_to(228);
    for name in ["list-page-1", "list-page-2"] {
        let recorded = recording(name);
        let (status, body) = ask(&server, "GET", &recorded.path, None).await;
        assert_eq!(status, recorded.status, "{name}");
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            recorded.json(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_list_with_a_selector() {
    let server = plain().await;
    let recorded = recording("list-endpointslices");
    for item in recorded.json()["items"].as_array().unwrap() {
        load(&server, slices(), item);
    }
    let (status, body) = ask(&server, "GET", &recorded.path, None).await;
    assert_eq!(status, recorded.status);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        recorded.json()
    );
}

#[tokio::test]
async fn a_bad_continue_token() {
    let server = plain().await;
    let recorded = recording("bad-continue");
    let (status, body) = ask(&server, "GET", &recorded.path, None).await;
    assert_eq!(status, recorded.status);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        recorded.json()
    );
}

#[tokio::test]
async fn a_wrong_token() {
    let server = plain().await;
    server.accept_tokens(&["right"]);
    let recorded = recording("unauthorized");
    let (status, body) = ask(&server, "GET", &recorded.path, Some("wrong")).await;
    assert_eq!(status, recorded.status);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        recorded.json()
    );
    let (status, _) = ask(&server, "GET", &recorded.path, Some("right")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_streamed_list() {
    let server = plain().await;
    load_services(&server);
    server.skip_to(235);
    let recorded = recording("watch-list");
    let (status, body) = ask(&server, "GET", &recorded.path, None).await;
    assert_eq!(status, recorded.status);
    let mut answered = events(&body);
    // The bookmark before the end that the recorded one was too short for.
    answered.truncate(recorded.events().len());
    assert_eq!(answered, recorded.events());
}

#[tokio::test]
async fn a_watch_that_is_too_old() {
    let server = plain().await;
    load_services(&server);
    server.skip_to(241);
    server.expire();
    let recorded = recording("watch-too-old");
    let (status, body) = ask(&server, "GET", &recorded.path, None).await;
    assert_eq!(status, recorded.status);
    assert_eq!(events(&body), recorded.events());
}

#[tokio::test]
async fn a_watch() {
    let server = plain().await;
    load_services(&server);
    server.skip_to(229);
    let recorded = recording("watch");
    let path = recorded
        .path
        .replace("timeoutSeconds=8", "timeoutSeconds=3");
    let events_recorded = recorded.events();
    let changes = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let object = "/api/v1/namespaces/default/services/s9";
        assert_eq!(
            put(&server, object, &events_recorded[0]["object"]).await,
            201
        );
        assert_eq!(
            put(&server, object, &events_recorded[1]["object"]).await,
            200
        );
        assert_eq!(ask(&server, "DELETE", object, None).await.0, 200);
        server.skip_to(234);
    };
    let ((status, body), ()) = tokio::join!(ask(&server, "GET", &path, None), changes);
    assert_eq!(status, recorded.status);
    assert_eq!(events(&body), events_recorded);
}

#[tokio::test]
async fn objects_that_begin_or_cease_to_match_are_added_and_deleted() {
    let server = plain().await;
    let labelled = |labels: Value| json!({"metadata": {"name": "a", "labels": labels}});
    let start = server.set(services(), labelled(json!({"x": "1"})));
    server.set(services(), labelled(json!({})));
    server.set(services(), labelled(json!({"y": "1"})));
    server.set(services(), labelled(json!({"x": "1"})));
    let path = format!(
        "/api/v1/services?watch=true&labelSelector=%21x&timeoutSeconds=1&resourceVersion={start}"
    );
    let (_, body) = ask(&server, "GET", &path, None).await;
    let kinds: Vec<Value> = events(&body)
        .iter()
        .map(|event| event["type"].clone())
        .collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
}

#[tokio::test]
async fn single_objects() {
    let server = plain().await;
    let path = "/api/v1/nodes/node1";
    assert_eq!(ask(&server, "GET", path, None).await.0, 404);
    assert_eq!(put(&server, path, &json!({"metadata": {}})).await, 201);
    let (status, body) = ask(&server, "GET", path, None).await;
    let node: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &node["kind"]), (200, &json!("Node")));
    assert_eq!(ask(&server, "DELETE", path, None).await.0, 200);
    assert_eq!(ask(&server, "GET", path, None).await.0, 404);
    assert_eq!(put(&server, path, &json!([])).await, 400);
    assert_eq!(ask(&server, "GET", "/api/v1/widgets", None).await.0, 404);
}
