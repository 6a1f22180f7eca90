//! The HTTP servers of the agent, asked over real sockets on loopback.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use switchyard_cluster::object::{IpFamily, ObjectName};
use switchyard_proxy::health::{
    MAX_CONNECTIONS, Moment, ServiceChecks, SharedState, State, metrics_server, proxy_health,
};
use switchyard_proxy::metrics::{HealthCode, Metrics};
use switchyard_proxy::plan::HealthCheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// An answer: status, headers in lower case, body.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    Some(Answer {
        status: lines.next()?.split(' ').nth(1)?.parse().ok()?,
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    })
}

/// Asks until the server is up, for at most two seconds.
async fn get_soon(address: SocketAddr, path: &str) -> Answer {
    for _ in 0..200 {
        if let Some(answer) = get(address, path).await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unreachable!("{address} does not answer");
}

fn free_port(ip: impl Into<IpAddr>) -> SocketAddr {
    let listener = TcpListener::bind((ip.into(), 0)).unwrap();
    listener.local_addr().unwrap()
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

fn new_state() -> SharedState {
    SharedState::new(State::new(Duration::from_secs(30), &IpFamily::BOTH))
}

fn healthy(state: &SharedState) {
    for family in IpFamily::BOTH {
        state.lock().updated(family, Moment::now());
    }
}

#[tokio::test]
async fn health_answers_only_once_the_rules_are_in_the_kernel_and_the_node_is_eligible() {
    let (address, state, metrics) = (free_port(Ipv4Addr::LOCALHOST), new_state(), metrics());
    tokio::spawn(proxy_health::serve(
        address,
        state.clone(),
        Arc::clone(&metrics),
    ));

    assert_eq!(get_soon(address, "/livez").await.status, 503);
    assert_eq!(get(address, "/healthz").await.unwrap().status, 503);
    healthy(&state);
    assert_eq!(get(address, "/livez").await.unwrap().status, 200);
    assert_eq!(get(address, "/healthz").await.unwrap().status, 503);
    state.lock().set_node_eligible(true);
    let answer = get(address, "/healthz").await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(
        answer.headers["content-length"],
        answer.body.len().to_string()
    );
    assert!(answer.headers["date"].ends_with(" GMT"));
    let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(json["nodeEligible"], true);
    assert_eq!(json["lastUpdated"], json["currentTime"]);
    assert_eq!(json["status"]["IPv6"]["healthy"], true);

    assert_eq!(get(address, "/").await.unwrap().status, 404);
    let counts = [HealthCode::Ok, HealthCode::Unavailable]
        .map(|code| (metrics.healthz.get(code), metrics.livez.get(code)));
    assert_eq!(counts, [(1, 1), (2, 1)]);
}

fn about() -> metrics_server::About {
    metrics_server::About {
        proxy_mode: "iptables",
        configz: "{}".to_owned(),
    }
}

#[tokio::test]
async fn metrics_server_answers_as_recorded() {
    let (address, metrics) = (free_port(Ipv4Addr::LOCALHOST), metrics());
    metrics.service_changes.add((), 36);
    tokio::spawn(metrics_server::serve(address, about(), metrics));

    let ok = get_soon(address, "/healthz").await;
    assert_eq!((ok.status, ok.body.as_str()), (200, "ok"));
    assert_eq!(ok.headers["content-type"], "text/plain; charset=utf-8");
    let mode = get(address, "/proxyMode").await.unwrap();
    assert_eq!((mode.status, mode.body.as_str()), (200, "iptables"));
    let configz = get(address, "/configz").await.unwrap();
    assert_eq!((configz.status, configz.body.as_str()), (200, "{}"));
    assert_eq!(configz.headers["content-type"], "application/json");
    let scrape = get(address, "/metrics").await.unwrap();
    assert!(scrape.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    assert!(
        scrape
            .body
            .contains("\nkubeproxy_sync_proxy_rules_service_changes_total 36\n")
    );
    assert_eq!(get(address, "/nothing").await.unwrap().status, 404);
}

#[tokio::test]
async fn connections_past_the_bound_are_closed_and_counted_and_others_still_answered() {
    let (address, metrics) = (free_port(Ipv4Addr::LOCALHOST), metrics());
    tokio::spawn(metrics_server::serve(
        address,
        about(),
        Arc::clone(&metrics),
    ));
    get_soon(address, "/healthz").await;

    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(get(address, "/healthz").await.is_none());
    assert_eq!(metrics.http_refused.get(()), 1);
    silent.clear();
    assert_eq!(get_soon(address, "/healthz").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_taken_address_is_tried_again() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    tokio::spawn(metrics_server::serve(address, about(), metrics()));
    // Paused time jumps over the waits, so the server has had its chances.
    tokio::time::sleep(Duration::from_secs(12)).await;
    drop(taken);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(get_soon(address, "/healthz").await.status, 200);
}

fn check(node_port: u16, local_endpoints: usize) -> HealthCheck {
    HealthCheck {
        node_port,
        local_endpoints,
    }
}

fn service(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn checks(addresses: Vec<IpAddr>, state: SharedState, metrics: Arc<Metrics>) -> ServiceChecks {
    ServiceChecks::new(Handle::current(), addresses, state, metrics)
}

#[tokio::test]
async fn service_check_answers_as_recorded() {
    let state = new_state();
    let mut checks = checks(vec![Ipv4Addr::LOCALHOST.into()], state.clone(), metrics());
    let address = free_port(Ipv4Addr::LOCALHOST);
    let name = service("load-balancer-local");
    let mut wanted = BTreeMap::from([(name.clone(), check(address.port(), 1))]);
    checks.reconcile(&wanted);

    let unhealthy = get_soon(address, "/").await;
    assert_eq!(unhealthy.status, 503);
    assert!(unhealthy.body.contains("\"serviceProxyHealthy\": false"));
    healthy(&state);
    let answer = get(address, "/any/path").await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["x-load-balancing-endpoint-weight"], "1");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(
        answer.body,
        "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"load-balancer-local\"\n\t},\n\t\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}"
    );

    wanted.insert(name, check(address.port(), 0));
    checks.reconcile(&wanted);
    let empty = get(address, "/").await.unwrap();
    assert_eq!(empty.status, 503);
    assert_eq!(empty.headers["x-load-balancing-endpoint-weight"], "0");
    assert!(empty.body.contains("\"localEndpoints\": 0"));
}

#[tokio::test]
async fn service_check_follows_its_port_and_a_port_passes_from_one_service_to_another() {
    let state = new_state();
    healthy(&state);
    let mut checks = checks(vec![Ipv4Addr::LOCALHOST.into()], state, metrics());
    let (first, second) = (
        free_port(Ipv4Addr::LOCALHOST),
        free_port(Ipv4Addr::LOCALHOST),
    );
    checks.reconcile(&BTreeMap::from([(service("a"), check(first.port(), 1))]));
    assert_eq!(get_soon(first, "/").await.status, 200);

    let moved = BTreeMap::from([
        (service("a"), check(second.port(), 1)),
        (service("b"), check(first.port(), 2)),
    ]);
    checks.reconcile(&moved);
    assert_eq!(checks.not_listening().count(), 0);
    assert!(get_soon(second, "/").await.body.contains("\"a\""));
    assert!(get_soon(first, "/").await.body.contains("\"b\""));

    checks.reconcile(&BTreeMap::new());
    for address in [first, second] {
        assert!(
            TcpStream::connect(address).await.is_err(),
            "{address} is open"
        );
    }
}

#[tokio::test]
async fn service_check_port_that_is_taken_is_tried_at_each_sync() {
    let (state, metrics) = (new_state(), metrics());
    healthy(&state);
    let mut checks = checks(
        vec![Ipv4Addr::LOCALHOST.into()],
        state,
        Arc::clone(&metrics),
    );
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let wanted = BTreeMap::from([(service("a"), check(address.port(), 1))]);

    for _ in 0..2 {
        checks.reconcile(&wanted);
        assert_eq!(
            checks.not_listening().collect::<Vec<_>>(),
            [(&service("a"), address)]
        );
        assert_eq!(metrics.health_check_not_listening.get(()), 1);
    }
    drop(taken);
    checks.reconcile(&wanted);
    assert_eq!(metrics.health_check_not_listening.get(()), 0);
    assert_eq!(get_soon(address, "/").await.status, 200);
}

#[tokio::test]
async fn service_check_listens_in_both_families_on_one_port() {
    let state = new_state();
    healthy(&state);
    let everywhere = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut checks = checks(everywhere, state, metrics());
    let port = free_port(Ipv6Addr::UNSPECIFIED).port();
    checks.reconcile(&BTreeMap::from([(service("a"), check(port, 3))]));
    assert_eq!(checks.not_listening().count(), 0);
    for ip in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let answer = get_soon(SocketAddr::new(ip, port), "/").await;
        assert_eq!(answer.headers["x-load-balancing-endpoint-weight"], "3");
    }
}
