use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use super::super::{HealthCheck, How, Upstream, UpstreamOptions};
use super::{impatient, query, reply_to, upstream};

fn checked(socket: &UdpSocket, check: HealthCheck) -> Arc<Upstream> {
    let options = UpstreamOptions {
        health: check,
        ..UpstreamOptions::default()
    };
    Upstream::new(socket.local_addr().unwrap(), options).unwrap()
}

fn quick() -> HealthCheck {
    HealthCheck {
        interval: Duration::from_millis(20),
        ..HealthCheck::default()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nothing_is_checked_while_all_is_well() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let _upstream = checked(&socket, quick());
    sleep(Duration::from_millis(200)).await;
    assert!(socket.try_recv(&mut [0; 512]).is_err());
}

#[tokio::test]
async fn an_upstream_that_refuses_is_down_until_it_answers_again() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let upstream = checked(&socket, quick());
    drop(socket);
    upstream.check_health();
    upstream.check_health();
    until("down", || upstream.is_down()).await;

    let socket = UdpSocket::bind(address).await.unwrap();
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
    assert_eq!(
        buffer[2..length],
        [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1],
        ". IN NS, RD"
    );
    let mut refusal = buffer[..length].to_vec();
    refusal[2] |= 0x80;
    refusal[3] = 5;
    socket.send_to(&refusal, from).await.unwrap();
    until("up", || !upstream.is_down()).await;
    sleep(Duration::from_millis(200)).await;
    assert!(
        socket.try_recv(&mut buffer).is_err(),
        "checks end when it is healthy"
    );
}

#[tokio::test]
async fn a_reply_to_a_query_says_that_it_is_up() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let slow_checks = HealthCheck {
        max_fails: 1,
        interval: Duration::from_secs(60),
        ..quick()
    };
    let upstream = checked(&socket, slow_checks);
    drop(socket);
    upstream.check_health();
    until("down", || upstream.is_down()).await;
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        socket
            .send_to(&reply_to(&buffer[..length]), from)
            .await
            .unwrap();
    });
    upstream
        .exchange(&query("www"), How::Udp, super::patient())
        .await
        .unwrap();
    assert!(!upstream.is_down());
}

#[tokio::test]
async fn an_upstream_that_is_never_down_is_never_checked() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let upstream = checked(
        &socket,
        HealthCheck {
            max_fails: 0,
            ..quick()
        },
    );
    upstream.check_health();
    sleep(Duration::from_millis(100)).await;
    assert!(socket.try_recv(&mut [0; 512]).is_err());
    assert!(!upstream.is_down());
}

#[tokio::test]
async fn a_check_asks_what_it_was_told_to() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let check = HealthCheck {
        recursion_desired: false,
        domain: b"\x07example\x00".to_vec().into(),
        ..quick()
    };
    let upstream = checked(&socket, check);
    upstream.check_health();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[2..12], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&buffer[12..length], b"\x07example\x00\x00\x02\x00\x01");
}

#[tokio::test]
async fn checks_end_with_the_upstream() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let upstream = checked(&socket, quick());
    drop(socket);
    upstream.check_health();
    until("down", || upstream.is_down()).await;
    drop(upstream);
    sleep(Duration::from_millis(50)).await;
    let socket = UdpSocket::bind(address).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    assert!(socket.try_recv(&mut [0; 512]).is_err());
    let other = self::upstream(address);
    assert!(
        other
            .exchange(&query("www"), How::Udp, impatient())
            .await
            .is_err()
    );
}
