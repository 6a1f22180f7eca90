//! Listening and its end, over real sockets of the loopback interface.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Handle;

use super::{ListenAddress, Listeners, Plan, Route, Routes, StreamTimeouts};
use crate::plugin::{Chain, Exchange, Plugin, Position, Step};
use crate::wire::Name;

/// A query for `x.`, type A.
const QUERY: &[u8] = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01";

/// Answers after a while.
#[derive(Debug)]
struct Slow(Duration);

impl Plugin for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        if self.0.is_zero() {
            exchange.answer();
            return Step::Answered;
        }
        Step::Wait
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, _: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(async {
            tokio::time::sleep(self.0).await;
            exchange.answer();
            Step::Answered
        })
    }
}

/// A port that is free for both UDP and TCP.
fn free() -> SocketAddr {
    loop {
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = udp.local_addr().expect("it is bound");
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn listening(wait: Duration, queries_max: Option<u64>) -> (Listeners, SocketAddr) {
    let address = free();
    let chain = Chain::new(vec![Arc::new(Slow(wait))]);
    let route = Route::new(&Name::ROOT, chain, &"dns://:1".into());
    let plan = Plan {
        routes: Routes::new(vec![route]),
        tls: None,
        timeouts: StreamTimeouts {
            queries_max,
            ..StreamTimeouts::default()
        },
    };
    let listen = ListenAddress {
        address,
        tls: false,
    };
    let mut listeners = Listeners::new(Handle::current());
    let applied = listeners.apply(HashMap::from([(listen, plan)]));
    applied.expect("the port is free");
    (listeners, address)
}

async fn udp(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let socket = socket.expect("a port");
    socket.connect(server).await.expect("it is local");
    socket
}

async fn ask(stream: &mut TcpStream) {
    let length = u16::try_from(QUERY.len()).expect("it is short");
    let framed = [&length.to_be_bytes(), QUERY].concat();
    stream.write_all(&framed).await.expect("it is open");
}

async fn reply(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.ok()?;
    Some(reply)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_when_the_server_stops_is_answered() {
    let (listeners, address) = listening(Duration::from_millis(400), None);
    let client = udp(address).await;
    client.send(QUERY).await.expect("sent");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    ask(&mut stream).await;
    // Both are with the plugin by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(listeners.stop(Duration::from_secs(5)).await);
    let mut buffer = [0; 512];
    let received = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer));
    let length = received.await.expect("a reply").expect("received");
    assert_eq!(buffer[..length][..2], QUERY[..2]);
    assert_eq!(reply(&mut stream).await.expect("a reply")[..2], QUERY[..2]);
    assert_eq!(reply(&mut stream).await, None, "the connection ends then");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_does_not_wait_longer_than_it_should() {
    let (listeners, address) = listening(Duration::from_secs(60), None);
    udp(address).await.send(QUERY).await.expect("sent");
    // A connection that says nothing does not hold it up.
    let _idle = TcpStream::connect(address).await.expect("it listens");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!listeners.stop(Duration::from_millis(300)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let (listeners, address) = listening(Duration::ZERO, None);
    let mut idle = TcpStream::connect(address).await.expect("it listens");
    ask(&mut idle).await;
    assert!(reply(&mut idle).await.is_some());
    assert!(listeners.stop(Duration::from_secs(3)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_carries_as_many_queries_as_it_may() {
    let (_listeners, address) = listening(Duration::ZERO, Some(2));
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    for _ in 0..2 {
        ask(&mut stream).await;
        assert!(reply(&mut stream).await.is_some());
    }
    assert_eq!(reply(&mut stream).await, None);
}
