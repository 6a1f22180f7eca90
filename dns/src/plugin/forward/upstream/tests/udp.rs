use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::super::{ExchangeError, How, Upstream, UpstreamOptions};
use super::{expected, impatient, patient, query, reply_to, upstream};

async fn server() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A server that sends, for each query, the messages that `answer` makes of it.
async fn serving<F>(answer: F) -> SocketAddr
where
    F: Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
{
    let (socket, address) = server().await;
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            for message in answer(&buffer[..length]) {
                socket.send_to(&message, from).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn a_reply_comes_back_with_the_query_s_id() {
    let address = serving(|query| vec![reply_to(query)]).await;
    let upstream = upstream(address);
    let query = query("www");
    let reply = upstream
        .exchange(&query, How::Udp, patient())
        .await
        .unwrap();
    assert_eq!(reply, expected(&query));
}

#[tokio::test]
async fn the_id_on_the_wire_is_not_the_client_s() {
    let (socket, address) = server().await;
    let upstream = upstream(address);
    let mut ids = HashSet::new();
    for _ in 0..8 {
        let query = query("www");
        assert!(
            upstream
                .exchange(&query, How::Udp, Instant::now())
                .await
                .is_err()
        );
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(buffer[2..length], query[2..]);
        ids.insert([buffer[0], buffer[1]]);
    }
    assert!(ids.len() >= 7, "{} different ids in 8 queries", ids.len());
}

#[tokio::test]
async fn a_silent_upstream_takes_the_time_given_and_no_more() {
    let (_socket, address) = server().await;
    let started = Instant::now();
    let outcome = upstream(address)
        .exchange(&query("www"), How::Udp, impatient())
        .await;
    assert!(
        matches!(outcome, Err(ExchangeError::Timeout { ignored: 0 })),
        "{outcome:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn lies_before_the_right_reply_are_ignored() {
    let address = serving(|query| {
        let mut wrong_id = reply_to(query);
        wrong_id[0] ^= 0x55;
        let mut wrong_name = reply_to(query);
        wrong_name[13] ^= 1;
        let mut wrong_type = reply_to(query);
        let type_at = query.len() - 3;
        wrong_type[type_at] = 28;
        let no_question = vec![query[0], query[1], 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        vec![
            wrong_id,
            wrong_name,
            wrong_type,
            query.to_vec(),
            no_question,
            vec![],
            query[..7].to_vec(),
            reply_to(query),
        ]
    })
    .await;
    let query = query("www");
    let reply = upstream(address)
        .exchange(&query, How::Udp, patient())
        .await
        .unwrap();
    assert_eq!(reply, expected(&query));
}

#[tokio::test]
async fn an_upstream_that_only_lies_is_named_as_such_when_the_time_is_out() {
    let address = serving(|query| {
        let mut wrong_name = reply_to(query);
        wrong_name[13] ^= 1;
        vec![wrong_name.clone(), wrong_name]
    })
    .await;
    let outcome = upstream(address)
        .exchange(&query("www"), How::Udp, impatient())
        .await;
    let Err(error @ ExchangeError::Timeout { ignored: 2 }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        error.to_string(),
        "no reply in time (2 replies did not match the query)"
    );
}

#[tokio::test]
async fn a_reply_from_another_port_is_not_taken() {
    let (socket, address) = server().await;
    let (stranger, _) = server().await;
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let mut poisoned = reply_to(&buffer[..length]);
        *poisoned.last_mut().unwrap() = 66;
        stranger.send_to(&poisoned, from).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        socket
            .send_to(&reply_to(&buffer[..length]), from)
            .await
            .unwrap();
    });
    let query = query("www");
    let reply = upstream(address)
        .exchange(&query, How::Udp, patient())
        .await
        .unwrap();
    assert_eq!(reply, expected(&query));
}

#[tokio::test]
async fn the_name_may_come_back_in_another_case() {
    let address = serving(|query| {
        let mut reply = reply_to(query);
        reply[13..16].make_ascii_uppercase();
        vec![reply]
    })
    .await;
    let reply = upstream(address)
        .exchange(&query("www"), How::Udp, patient())
        .await
        .unwrap();
    assert_eq!(&reply[13..16], b"WWW");
}

#[tokio::test]
async fn a_truncated_reply_is_passed_on() {
    let address = serving(|query| {
        let mut reply = query.to_vec();
        reply[2] |= 0x82;
        vec![reply]
    })
    .await;
    let reply = upstream(address)
        .exchange(&query("www"), How::Udp, patient())
        .await
        .unwrap();
    assert_eq!(reply[2] & 2, 2, "TC");
}

#[tokio::test]
async fn a_reply_far_beyond_the_size_asked_for_is_passed_on_as_truncated() {
    let address = serving(|query| {
        let mut reply = reply_to(query);
        reply.resize(9000, 0);
        vec![reply]
    })
    .await;
    let query = query("www");
    let reply = upstream(address)
        .exchange(&query, How::Udp, patient())
        .await
        .unwrap();
    assert_eq!(reply[2] & 2, 2, "TC");
    assert_eq!(
        reply[4..12],
        [0, 1, 0, 0, 0, 0, 0, 0],
        "only the question is left"
    );
    assert_eq!(reply[12..], query[12..]);
}

#[tokio::test]
async fn a_refused_port_fails_all_queries_on_it_at_once() {
    let (socket, address) = server().await;
    drop(socket);
    let upstream = upstream(address);
    let started = Instant::now();
    let asked = (0..64).map(|at| {
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move {
            upstream
                .exchange(&query(&format!("n{at}")), How::Udp, patient())
                .await
        })
    });
    for outcome in futures::future::join_all(asked).await {
        let outcome = outcome.unwrap();
        assert!(
            matches!(outcome, Err(ExchangeError::Refused)),
            "{outcome:?}"
        );
    }
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn five_hundred_queries_at_once_share_a_few_sockets() {
    let (socket, address) = server().await;
    let answering = tokio::spawn(async move {
        let mut asked = Vec::new();
        let mut buffer = [0; 512];
        while asked.len() < 500 {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            asked.push((buffer[..length].to_vec(), from));
        }
        let ports: HashSet<u16> = asked.iter().map(|(_, from)| from.port()).collect();
        // Last come, first served; in portions that the receive buffers hold.
        for portion in asked.rchunks(50) {
            for (query, from) in portion.iter().rev() {
                socket.send_to(&reply_to(query), from).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        ports
    });
    let upstream = upstream(address);
    let mut asked = Vec::new();
    for at in 0..500 {
        let upstream = Arc::clone(&upstream);
        asked.push(tokio::spawn(async move {
            let query = query(&format!("n{at}"));
            let reply = upstream
                .exchange(&query, How::Udp, patient())
                .await
                .unwrap();
            assert_eq!(reply, expected(&query));
        }));
        if at % 50 == 0 {
            // The server's receive buffer does not hold all of them.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    for done in futures::future::join_all(asked).await {
        done.unwrap();
    }
    let ports = answering.await.unwrap();
    assert!(
        (4..=8).contains(&ports.len()),
        "{} source ports",
        ports.len()
    );
}

#[tokio::test]
async fn sockets_change_their_ports_and_are_closed_when_idle() {
    let address = serving(|query| vec![reply_to(query)]).await;
    let options = UpstreamOptions {
        expire: Duration::from_millis(100),
        ..UpstreamOptions::default()
    };
    let upstream = Upstream::new(address, options).unwrap();
    let query = query("www");
    // More than QUERIES_PER_SOCKET for each of the sockets.
    for _ in 0..9000 {
        upstream
            .exchange(&query, How::Udp, patient())
            .await
            .unwrap();
    }
    let hits = upstream.metrics.udp.hits.get();
    let opened = upstream.metrics.udp.misses.get();
    assert_eq!(hits + opened, 9000);
    assert!((9..=24).contains(&opened), "{opened} sockets opened");
    assert!(
        upstream.udp.open_sockets() <= 9,
        "{} sockets open",
        upstream.udp.open_sockets()
    );
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(upstream.udp.open_sockets(), 0);
    upstream
        .exchange(&query, How::Udp, patient())
        .await
        .unwrap();
    assert_eq!(upstream.udp.open_sockets(), 1);
    drop(upstream);
}

#[tokio::test]
async fn a_query_that_is_given_up_frees_its_id() {
    let (_socket, address) = server().await;
    let upstream = upstream(address);
    for _ in 0..2000 {
        let outcome = upstream
            .exchange(&query("www"), How::Udp, Instant::now())
            .await;
        assert!(
            matches!(outcome, Err(ExchangeError::Timeout { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(upstream.udp.in_flight(), 0);
}

#[tokio::test]
async fn queries_leave_from_the_address_that_was_asked_for() {
    let (socket, address) = server().await;
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
    let options = UpstreamOptions {
        source: Some(source),
        ..UpstreamOptions::default()
    };
    let upstream = Upstream::new(address, options).unwrap();
    assert!(
        upstream
            .exchange(&query("www"), How::Udp, impatient())
            .await
            .is_err()
    );
    let (_, from) = socket.recv_from(&mut [0; 512]).await.unwrap();
    assert_eq!(from.ip(), source);
}

#[tokio::test]
async fn what_is_no_query_is_not_sent() {
    let (_socket, address) = server().await;
    let upstream = upstream(address);
    for message in [
        &[][..],
        &[0; 11],
        &reply_to(&query("www")),
        &query("www")[..15],
    ] {
        let outcome = upstream.exchange(message, How::Udp, patient()).await;
        assert!(
            matches!(outcome, Err(ExchangeError::NotAQuery)),
            "{outcome:?}"
        );
    }
}
