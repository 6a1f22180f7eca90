//! The HTTP servers of the agent, asked over real sockets on loopback.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use switchyard_cluster::object::{IpFamily, ObjectName};
use switchyard_proxy::health::metrics_server::Guard;
use switchyard_proxy::health::{
    Bind, MAX_CONNECTIONS, Moment, ServiceChecks, SharedState, State, metrics_server, proxy_health,
};
use switchyard_proxy::metrics::{HealthCode, Metrics, Slis};
use switchyard_proxy::plan::HealthCheck;
use switchyard_proxy::settings::configuration::Configuration;
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
        Bind::new("health server", address),
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

async fn serve_metrics(address: SocketAddr, metrics: Arc<Metrics>) {
    let (at, slis) = (Bind::new("metrics server", address), Slis::new().unwrap());
    metrics_server::serve(at, Guard::default(), about(), slis, metrics).await;
}

#[tokio::test]
async fn metrics_server_answers_what_it_is_asked() {
    let (address, metrics) = (free_port(Ipv4Addr::LOCALHOST), metrics());
    metrics.service_changes.add((), 36);
    tokio::spawn(serve_metrics(address, metrics));

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
    let slis = get(address, "/metrics/slis").await.unwrap();
    assert_eq!(slis.headers["content-type"], scrape.headers["content-type"]);
    for line in [
        "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1",
        "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 1",
    ] {
        assert!(slis.body.contains(line), "{}", slis.body);
    }
    assert_eq!(get(address, "/nothing").await.unwrap().status, 404);
}

#[tokio::test]
async fn connections_past_the_bound_are_closed_and_counted_and_others_still_answered() {
    let (address, metrics) = (free_port(Ipv4Addr::LOCALHOST), metrics());
    tokio::spawn(serve_metrics(address, Arc::clone(&metrics)));
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
    tokio::spawn(serve_metrics(address, metrics()));
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

fn checks(state: SharedState, metrics: Arc<Metrics>) -> ServiceChecks {
    ServiceChecks::new(Handle::current(), state, metrics)
}

fn local() -> Vec<IpAddr> {
    vec![Ipv4Addr::LOCALHOST.into()]
}

#[tokio::test]
async fn service_check_answers_as_recorded() {
    let state = new_state();
    let mut checks = checks(state.clone(), metrics());
    let address = free_port(Ipv4Addr::LOCALHOST);
    let name = service("load-balancer-local");
    let mut wanted = BTreeMap::from([(name.clone(), check(address.port(), 1))]);
    checks.reconcile(&wanted, local());

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
    checks.reconcile(&wanted, local());
    let empty = get(address, "/").await.unwrap();
    assert_eq!(empty.status, 503);
    assert_eq!(empty.headers["x-load-balancing-endpoint-weight"], "0");
    assert!(empty.body.contains("\"localEndpoints\": 0"));
}

#[tokio::test]
async fn service_check_follows_its_port_and_a_port_passes_from_one_service_to_another() {
    let state = new_state();
    healthy(&state);
    let mut checks = checks(state, metrics());
    let (first, second) = (
        free_port(Ipv4Addr::LOCALHOST),
        free_port(Ipv4Addr::LOCALHOST),
    );
    let wanted = BTreeMap::from([(service("a"), check(first.port(), 1))]);
    checks.reconcile(&wanted, local());
    assert_eq!(get_soon(first, "/").await.status, 200);

    let moved = BTreeMap::from([
        (service("a"), check(second.port(), 1)),
        (service("b"), check(first.port(), 2)),
    ]);
    checks.reconcile(&moved, local());
    assert_eq!(checks.not_listening().count(), 0);
    assert!(get_soon(second, "/").await.body.contains("\"a\""));
    assert!(get_soon(first, "/").await.body.contains("\"b\""));

    checks.reconcile(&BTreeMap::new(), local());
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
    let mut checks = checks(state, Arc::clone(&metrics));
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let wanted = BTreeMap::from([(service("a"), check(address.port(), 1))]);

    for _ in 0..2 {
        checks.reconcile(&wanted, local());
        assert_eq!(
            checks.not_listening().collect::<Vec<_>>(),
            [(&service("a"), address)]
        );
        assert_eq!(metrics.health_check_not_listening.get(()), 1);
    }
    drop(taken);
    checks.reconcile(&wanted, local());
    assert_eq!(metrics.health_check_not_listening.get(()), 0);
    assert_eq!(get_soon(address, "/").await.status, 200);
}

#[tokio::test]
async fn service_check_listens_in_both_families_on_one_port() {
    let state = new_state();
    healthy(&state);
    let everywhere = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut checks = checks(state, metrics());
    let port = free_port(Ipv6Addr::UNSPECIFIED).port();
    let wanted = BTreeMap::from([(service("a"), check(port, 3))]);
    checks.reconcile(&wanted, everywhere);
    assert_eq!(checks.not_listening().count(), 0);
    for ip in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let answer = get_soon(SocketAddr::new(ip, port), "/").await;
        assert_eq!(answer.headers["x-load-balancing-endpoint-weight"], "3");
    }
}

#[tokio::test]
async fn service_check_moves_to_the_addresses_that_accept_node_ports() {
    let state = new_state();
    healthy(&state);
    let mut checks = checks(state, metrics());
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let port = free_port(Ipv4Addr::UNSPECIFIED).port();
    let at = |ip: Ipv4Addr| SocketAddr::from((ip, port));
    let wanted = BTreeMap::from([(service("a"), check(port, 1))]);
    checks.reconcile(&wanted, vec![Ipv4Addr::UNSPECIFIED.into()]);
    assert_eq!(get_soon(at(other), "/").await.status, 200);
    checks.reconcile(&wanted, local());
    assert_eq!(get_soon(at(Ipv4Addr::LOCALHOST), "/").await.status, 200);
    assert!(TcpStream::connect(at(other)).await.is_err());
    checks.reconcile(&wanted, Vec::new());
    assert!(TcpStream::connect(at(Ipv4Addr::LOCALHOST)).await.is_err());
}

/// What the reference answered: path, headers in lower case, body.
fn recorded(text: &str) -> Vec<(String, u16, BTreeMap<String, String>, String)> {
    let exchanges = text.split("GET ").filter(|part| !part.trim().is_empty());
    let read = |exchange: &str| {
        let (what, answer) = exchange.split_once('\n').unwrap();
        let (status, headers, body): (u16, BTreeMap<String, String>, String) =
            serde_json::from_str(answer).unwrap();
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        let headers = headers.into_iter().map(lower).collect();
        (what.to_owned(), status, headers, body)
    };
    exchanges.map(read).collect()
}

/// The names of all fields in order, without the values.
fn fields(json: &str) -> Vec<String> {
    let pieces: Vec<&str> = json.split('"').collect();
    let names = pieces.windows(2).skip(1).step_by(2);
    let names = names.filter(|pair| pair[1].trim_start().starts_with(':'));
    names.map(|pair| pair[0].to_owned()).collect()
}

/// Every exchange that was recorded, with ours beside it: status, names of headers and their
/// values but for times and lengths, and the fields of the body.
#[tokio::test]
async fn every_recorded_page_is_answered_with_the_same_headers_and_fields() {
    let data = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/data/kube-proxy-1.36/http-"
    );
    for mode in ["iptables", "nftables"] {
        let text = std::fs::read_to_string(format!("{data}{mode}.txt")).unwrap();
        let exchanges = recorded(&text);
        assert_eq!(exchanges.len(), 6, "the recording was not read");
        let configz = exchanges
            .iter()
            .find(|(what, ..)| what.contains("configz"))
            .unwrap();
        let ours = Ours::start(mode, configz.3.clone());
        for (what, status, headers, body) in &exchanges {
            let (path, port) = what.split_once(" on ").unwrap();
            let answer = get_soon(ours.at(port), path).await;
            assert_eq!(answer.status, *status, "{what}");
            let without_values = |headers: &BTreeMap<String, String>| {
                let mut headers = headers.clone();
                headers.remove("connection"); // we asked for it
                for varying in ["date", "content-length"] {
                    assert!(headers.insert(varying.to_owned(), String::new()).is_some());
                }
                headers
            };
            assert_eq!(
                without_values(&answer.headers),
                without_values(headers),
                "{what}"
            );
            if body.starts_with('{') {
                assert_eq!(fields(&answer.body), fields(body), "{what}");
                assert_eq!(
                    answer.body.contains('\n'),
                    body.contains('\n'),
                    "{what}: other white space"
                );
            } else {
                assert_eq!(answer.body, *body, "{what}");
            }
        }
    }
}

/// Our three servers, for the ports that the recordings name.
struct Ours {
    addresses: BTreeMap<&'static str, SocketAddr>,
    _checks: ServiceChecks,
}

impl Ours {
    fn start(mode: &'static str, configz: String) -> Self {
        let state = new_state();
        healthy(&state);
        state.lock().set_node_eligible(true);
        let metrics = metrics();
        let free = || free_port(Ipv4Addr::LOCALHOST);
        let addresses = BTreeMap::from([("10256", free()), ("10249", free()), ("32012", free())]);
        let health = Bind::new("health server", addresses["10256"]);
        tokio::spawn(proxy_health::serve(
            health,
            state.clone(),
            Arc::clone(&metrics),
        ));
        let about = metrics_server::About {
            proxy_mode: mode,
            configz,
        };
        let at = Bind::new("metrics server", addresses["10249"]);
        let slis = Slis::new().unwrap();
        let served = metrics_server::serve(at, Guard::default(), about, slis, Arc::clone(&metrics));
        tokio::spawn(served);
        let mut checks = checks(state, metrics);
        let wanted = check(addresses["32012"].port(), 1);
        let wanted = BTreeMap::from([(service("load-balancer-local"), wanted)]);
        checks.reconcile(&wanted, local());
        Self {
            addresses,
            _checks: checks,
        }
    }

    fn at(&self, port: &str) -> SocketAddr {
        self.addresses[port.trim()]
    }
}

/// What `/configz` shows has the recorded fields, all of them and in their order.
#[test]
fn the_configuration_is_shown_with_the_recorded_fields() {
    let recording = include_str!("../../tests/data/kube-proxy-1.36/http-iptables.txt");
    let exchanges = recorded(recording);
    let (.., body) = exchanges
        .iter()
        .find(|(what, ..)| what.contains("configz"))
        .unwrap();
    let ours = Configuration::default().configz().unwrap();
    assert!(fields(body).len() > 60, "{:?}", fields(body));
    assert_eq!(fields(&ours), fields(body));
}
