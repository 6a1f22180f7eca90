//! The relay for node ports on localhost, over real sockets on loopback.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use switchyard_cluster::object::{IpFamily, ObjectName, Protocol, TrafficPolicy};
use switchyard_proxy::metrics::Metrics;
use switchyard_proxy::plan::{Frontend, PlanId, ServicePlan, Target};
use switchyard_proxy::relay::{Limits, Relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Where the relay listens in most of these tests.
const RELAY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 7, 7, 7));
/// Small, so that reaching them needs few descriptors.
const LIMITS: Limits = Limits {
    tcp_connections: 100,
    udp_clients: 100,
};
const SOON: Duration = Duration::from_secs(2);

/// What a plan of these tests varies.
#[derive(Clone)]
struct Spec {
    protocol: Protocol,
    node_port: u16,
    affinity_timeout_s: Option<u32>,
    endpoints: Vec<SocketAddr>,
}

impl Spec {
    fn plan(&self) -> Arc<ServicePlan> {
        let target = |socket: &SocketAddr| Target {
            address: socket.ip(),
            port: socket.port(),
            is_local: false,
        };
        let targets: Box<[Target]> = self.endpoints.iter().map(target).collect();
        let family = self
            .endpoints
            .first()
            .map_or(IpFamily::V4, |s| IpFamily::of(s.ip()));
        Arc::new(ServicePlan {
            id: PlanId {
                service: ObjectName::new("ns", format!("svc-{}", self.node_port)),
                port_name: "".into(),
                protocol: self.protocol,
                family,
            },
            port: 80,
            frontends: vec![Frontend::NodePort(self.node_port)],
            affinity_timeout_s: self.affinity_timeout_s,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Local,
            source_ranges: None,
            source_ranges_include_node: false,
            health_check_node_port: None,
            ipvs_scheduler: None,
            any_endpoint: !targets.is_empty(),
            serving: targets.clone(),
            cluster: targets,
            local: Box::default(),
        })
    }
}

struct Bed {
    relay: Relay,
    metrics: Arc<Metrics>,
}

impl Bed {
    fn at(address: IpAddr) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let relay = Relay::new(Handle::current(), address, Arc::clone(&metrics), LIMITS);
        Self { relay, metrics }
    }

    fn reconcile(&mut self, specs: &[Spec]) {
        let plans: Vec<_> = specs.iter().map(Spec::plan).collect();
        self.relay.reconcile(&plans);
    }
}

/// A TCP endpoint that says its name, then echoes.
async fn tcp_endpoint(ip: impl Into<IpAddr>, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((ip.into(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                write.write_all(name.as_bytes()).await.unwrap();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// A UDP endpoint that answers with its name.
async fn udp_endpoint(ip: impl Into<IpAddr>, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind((ip.into(), 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(name.as_bytes(), client).await;
        }
    });
    address
}

async fn free_port(protocol: Protocol, ip: IpAddr) -> SocketAddr {
    match protocol {
        Protocol::Udp => UdpSocket::bind((ip, 0)).await.unwrap().local_addr(),
        _ => TcpListener::bind((ip, 0)).await.unwrap().local_addr(),
    }
    .unwrap()
}

async fn spec(protocol: Protocol, endpoints: &[SocketAddr]) -> (Spec, SocketAddr) {
    let address = free_port(protocol, RELAY).await;
    let spec = Spec {
        protocol,
        node_port: address.port(),
        affinity_timeout_s: None,
        endpoints: endpoints.to_vec(),
    };
    (spec, address)
}

/// Connects and reads the endpoint's name.
async fn who(address: SocketAddr) -> std::io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let mut name = [0; 1];
    timeout(SOON, stream.read_exact(&mut name)).await??;
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}

async fn ask(client: &UdpSocket) -> std::io::Result<String> {
    client.send(b"?").await?;
    let mut buffer = [0; 64];
    let length = timeout(SOON, client.recv(&mut buffer)).await??;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

async fn udp_client(address: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind((address.ip(), 0)).await.unwrap();
    client.connect(address).await.unwrap();
    client
}

#[tokio::test]
async fn tcp_reaches_every_endpoint_and_carries_both_ways_until_both_ends_are_done() {
    let endpoints = [
        tcp_endpoint(Ipv4Addr::LOCALHOST, "a").await,
        tcp_endpoint(Ipv4Addr::LOCALHOST, "b").await,
    ];
    let (spec, address) = spec(Protocol::Tcp, &endpoints).await;
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec]);

    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        seen.insert(who(address).await.unwrap().1);
    }
    assert_eq!(seen.len(), 2, "60 connections reached only {seen:?}");

    let (mut stream, _) = who(address).await.unwrap();
    let sent = vec![7_u8; 1 << 20];
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let (wrote, got) = tokio::join!(
        async {
            write.write_all(&sent).await?;
            write.shutdown().await
        },
        read.read_to_end(&mut received)
    );
    wrote.unwrap();
    got.unwrap();
    assert!(
        received == sent,
        "{} of {} bytes came back",
        received.len(),
        sent.len()
    );
}

#[tokio::test]
async fn it_works_at_the_ipv6_loopback_address() {
    let tcp = tcp_endpoint(Ipv6Addr::LOCALHOST, "a").await;
    let udp = udp_endpoint(Ipv6Addr::LOCALHOST, "b").await;
    let localhost = IpAddr::from(Ipv6Addr::LOCALHOST);
    let mut bed = Bed::at(localhost);
    let mut specs = Vec::new();
    for (protocol, endpoint) in [(Protocol::Tcp, tcp), (Protocol::Udp, udp)] {
        specs.push(Spec {
            protocol,
            node_port: free_port(protocol, localhost).await.port(),
            affinity_timeout_s: None,
            endpoints: vec![endpoint],
        });
    }
    bed.reconcile(&specs);
    let [tcp, udp] = [0, 1].map(|i: usize| SocketAddr::new(localhost, specs[i].node_port));
    assert_eq!(who(tcp).await.unwrap().1, "a");
    assert_eq!(ask(&udp_client(udp).await).await.unwrap(), "b");
}

#[tokio::test]
async fn affinity_keeps_the_endpoint() {
    let endpoints = [
        tcp_endpoint(Ipv4Addr::LOCALHOST, "a").await,
        tcp_endpoint(Ipv4Addr::LOCALHOST, "b").await,
    ];
    let (mut spec, address) = spec(Protocol::Tcp, &endpoints).await;
    spec.affinity_timeout_s = Some(600);
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec]);
    let mut seen = BTreeSet::new();
    for _ in 0..30 {
        seen.insert(who(address).await.unwrap().1);
    }
    assert_eq!(seen.len(), 1, "a sticky Service reached {seen:?}");
}

#[tokio::test]
async fn without_endpoints_connections_are_refused_and_open_ones_live_on() {
    let endpoint = tcp_endpoint(Ipv4Addr::LOCALHOST, "a").await;
    let (mut spec, address) = spec(Protocol::Tcp, &[endpoint]).await;
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec.clone()]);
    let (mut open, _) = who(address).await.unwrap();
    assert_eq!(bed.metrics.relay_connections.get(Protocol::Tcp), 1);

    spec.endpoints.clear();
    bed.reconcile(&[spec.clone()]);
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    open.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    timeout(SOON, open.read_exact(&mut echo))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&echo, b"still");

    spec.endpoints.push(endpoint);
    bed.reconcile(&[spec]);
    assert_eq!(who(address).await.unwrap().1, "a");
}

#[tokio::test]
async fn new_connections_follow_a_change_of_endpoints() {
    let a = tcp_endpoint(Ipv4Addr::LOCALHOST, "a").await;
    let b = tcp_endpoint(Ipv4Addr::LOCALHOST, "b").await;
    let (mut spec, address) = spec(Protocol::Tcp, &[a]).await;
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec.clone()]);
    assert_eq!(who(address).await.unwrap().1, "a");
    spec.endpoints = vec![b];
    bed.reconcile(&[spec]);
    for _ in 0..10 {
        assert_eq!(who(address).await.unwrap().1, "b");
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_resets_the_client() {
    let nobody = free_port(Protocol::Tcp, Ipv4Addr::LOCALHOST.into()).await;
    let (spec, address) = spec(Protocol::Tcp, &[nobody]).await;
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec]);
    let error = who(address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_tried_again() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let endpoint = tcp_endpoint(Ipv4Addr::LOCALHOST, "a").await;
        let (spec, address) = spec(protocol, &[endpoint]).await;
        let mut bed = Bed::at(RELAY);
        let taken: Box<dyn std::any::Any> = match protocol {
            Protocol::Udp => Box::new(UdpSocket::bind(address).await.unwrap()),
            _ => Box::new(TcpListener::bind(address).await.unwrap()),
        };
        for _ in 0..2 {
            bed.reconcile(std::slice::from_ref(&spec));
            let failed: Vec<_> = bed
                .relay
                .not_listening()
                .map(|(id, _)| id.to_string())
                .collect();
            assert_eq!(failed, [format!("ns/svc-{}", address.port())]);
            assert_eq!(bed.metrics.relay_not_listening.get(protocol), 1);
        }
        drop(taken);
        bed.reconcile(&[spec]);
        assert_eq!(bed.relay.not_listening().count(), 0);
        assert_eq!(bed.metrics.relay_not_listening.get(protocol), 0);
    }
}

#[tokio::test]
async fn connections_past_the_bound_are_reset_and_counted() {
    let endpoint = tcp_endpoint(Ipv4Addr::LOCALHOST, "a").await;
    let (spec, address) = spec(Protocol::Tcp, &[endpoint]).await;
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec]);
    let mut open = Vec::new();
    for _ in 0..LIMITS.tcp_connections {
        open.push(who(address).await.unwrap().0);
    }
    assert!(who(address).await.is_err());
    assert_eq!(bed.metrics.relay_refused.get(Protocol::Tcp), 1);
    open.clear();
    let mut again = who(address).await;
    for _ in 0..100 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        again = who(address).await;
    }
    assert_eq!(again.unwrap().1, "a");
}

#[tokio::test]
async fn udp_clients_keep_their_endpoint_until_it_no_longer_serves() {
    let a = udp_endpoint(Ipv4Addr::LOCALHOST, "a").await;
    let b = udp_endpoint(Ipv4Addr::LOCALHOST, "b").await;
    let (mut spec, address) = spec(Protocol::Udp, &[a]).await;
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec.clone()]);
    let client = udp_client(address).await;
    assert_eq!(ask(&client).await.unwrap(), "a");

    spec.endpoints = vec![a, b];
    bed.reconcile(&[spec.clone()]);
    for _ in 0..10 {
        assert_eq!(ask(&client).await.unwrap(), "a");
    }
    assert_eq!(bed.metrics.relay_connections.get(Protocol::Udp), 1);

    spec.endpoints = vec![b];
    bed.reconcile(&[spec]);
    assert_eq!(bed.metrics.relay_connections.get(Protocol::Udp), 0);
    assert_eq!(ask(&client).await.unwrap(), "b");
}

#[tokio::test]
async fn udp_without_endpoints_is_refused_and_the_port_can_be_opened_again_at_once() {
    let a = udp_endpoint(Ipv4Addr::LOCALHOST, "a").await;
    let (mut spec, address) = spec(Protocol::Udp, &[a]).await;
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec.clone()]);
    let client = udp_client(address).await;
    assert_eq!(ask(&client).await.unwrap(), "a");

    spec.endpoints.clear();
    bed.reconcile(&[spec.clone()]);
    let refused = ask(&client).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    for _ in 0..20 {
        spec.endpoints = vec![a];
        bed.reconcile(&[spec.clone()]);
        assert_eq!(bed.relay.not_listening().count(), 0);
        spec.endpoints.clear();
        bed.reconcile(&[spec.clone()]);
    }
}

#[tokio::test]
async fn udp_clients_past_the_bound_are_dropped_and_counted() {
    let a = udp_endpoint(Ipv4Addr::LOCALHOST, "a").await;
    let (spec, address) = spec(Protocol::Udp, &[a]).await;
    let mut bed = Bed::at(RELAY);
    bed.reconcile(&[spec]);
    let mut clients = Vec::new();
    for _ in 0..LIMITS.udp_clients {
        let client = udp_client(address).await;
        assert_eq!(ask(&client).await.unwrap(), "a");
        clients.push(client);
    }
    let one_more = udp_client(address).await;
    one_more.send(b"?").await.unwrap();
    let mut buffer = [0; 8];
    let answer = timeout(Duration::from_millis(200), one_more.recv(&mut buffer)).await;
    assert!(answer.is_err(), "answered");
    assert_eq!(bed.metrics.relay_refused.get(Protocol::Udp), 1);
    assert_eq!(ask(&clients[0]).await.unwrap(), "a");
}
