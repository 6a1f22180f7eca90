use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::super::{ExchangeError, How, Upstream, UpstreamOptions};
use super::{expected, impatient, patient, query, reply_to, upstream};

/// A server that runs `serve` for each connection, and how many there were.
async fn serving<F, S>(serve: S) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = Option<()>> + Send + 'static,
    S: Fn(TcpStream) -> F + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream));
        }
    });
    (address, accepted)
}

/// The next query on a connection; `None` when the client closed.
async fn read_query(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

async fn write_reply(stream: &mut TcpStream, reply: &[u8]) -> Option<()> {
    let mut frame = u16::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(reply);
    stream.write_all(&frame).await.ok()
}

async fn answer_each(mut stream: TcpStream) -> Option<()> {
    loop {
        let query = read_query(&mut stream).await?;
        write_reply(&mut stream, &reply_to(&query)).await?;
    }
}

/// Asks `count` queries at once; how many were answered, and rightly.
async fn ask_at_once(upstream: &Arc<Upstream>, count: usize) -> usize {
    let asked = (0..count).map(|at| {
        let upstream = Arc::clone(upstream);
        tokio::spawn(async move {
            let query = query(&format!("n{at}"));
            upstream
                .exchange(&query, How::Tcp, patient())
                .await
                .map(|reply| {
                    assert_eq!(reply, expected(&query));
                })
        })
    });
    let outcomes = futures::future::join_all(asked).await;
    outcomes
        .into_iter()
        .filter(|outcome| outcome.as_ref().unwrap().is_ok())
        .count()
}

#[tokio::test]
async fn one_connection_serves_queries_one_after_another() {
    let (address, accepted) = serving(answer_each).await;
    let upstream = upstream(address);
    for at in 0..20 {
        let query = query(&format!("n{at}"));
        let reply = upstream
            .exchange(&query, How::Tcp, patient())
            .await
            .unwrap();
        assert_eq!(reply, expected(&query));
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
    assert_eq!(upstream.metrics.tcp.hits.get(), 19);
    assert_eq!(upstream.metrics.tcp.misses.get(), 1);
}

#[tokio::test]
async fn replies_may_come_in_any_order() {
    let (address, accepted) = serving(|mut stream| async move {
        loop {
            // All that are on their way, then backwards.
            let mut queries = vec![read_query(&mut stream).await?];
            while let Ok(query) =
                tokio::time::timeout(Duration::from_millis(50), read_query(&mut stream)).await
            {
                queries.push(query?);
            }
            for query in queries.iter().rev() {
                write_reply(&mut stream, &reply_to(query)).await?;
            }
        }
    })
    .await;
    let upstream = upstream(address);
    assert_eq!(ask_at_once(&upstream, 500).await, 500);
    assert!(
        accepted.load(Ordering::Relaxed) <= 32,
        "{accepted:?} connections"
    );
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_works_too() {
    let (address, _) = serving(|mut stream| async move {
        let query = read_query(&mut stream).await?;
        write_reply(&mut stream, &reply_to(&query)).await
    })
    .await;
    let upstream = upstream(address);
    assert_eq!(ask_at_once(&upstream, 200).await, 200, "all at once");
    for at in 0..20 {
        let query = query(&format!("n{at}"));
        upstream
            .exchange(&query, How::Tcp, patient())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_server_that_works_on_one_query_at_a_time_works_too() {
    let (address, _) = serving(|mut stream| async move {
        loop {
            let query = read_query(&mut stream).await?;
            sleep(Duration::from_millis(20)).await;
            write_reply(&mut stream, &reply_to(&query)).await?;
        }
    })
    .await;
    let upstream = upstream(address);
    let started = Instant::now();
    assert_eq!(ask_at_once(&upstream, 128).await, 128);
    assert!(
        started.elapsed() < Duration::from_millis(1000),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let (address, accepted) = serving(|mut stream| async move {
        let query = read_query(&mut stream).await?;
        write_reply(&mut stream, &reply_to(&query)).await?;
        // Reads the next query whole and goes away, as one that gave up just then.
        read_query(&mut stream).await.map(|_| ())
    })
    .await;
    let upstream = upstream(address);
    for at in 0..4 {
        let query = query(&format!("n{at}"));
        let reply = upstream
            .exchange(&query, How::Tcp, patient())
            .await
            .unwrap();
        assert_eq!(reply, expected(&query));
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_server_that_resets_every_connection_fails_the_query_at_once() {
    let (address, accepted) = serving(|mut stream| async move {
        read_query(&mut stream).await?;
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .ok()
    })
    .await;
    let upstream = upstream(address);
    let started = Instant::now();
    let outcome = upstream.exchange(&query("www"), How::Tcp, patient()).await;
    assert!(matches!(outcome, Err(ExchangeError::Closed)), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn half_a_length_prefix_and_then_the_end_is_an_error_at_once() {
    let (address, _) = serving(|mut stream| async move {
        read_query(&mut stream).await?;
        stream.write_all(&[0]).await.ok()
    })
    .await;
    let outcome = upstream(address)
        .exchange(&query("www"), How::Tcp, patient())
        .await;
    assert!(matches!(outcome, Err(ExchangeError::Closed)), "{outcome:?}");
}

#[tokio::test]
async fn half_a_length_prefix_and_then_silence_takes_the_time_given_and_a_new_connection() {
    let (address, accepted) = serving(|mut stream| async move {
        read_query(&mut stream).await?;
        stream.write_all(&[0]).await.ok()?;
        sleep(Duration::from_secs(60)).await;
        None
    })
    .await;
    let upstream = upstream(address);
    for _ in 0..2 {
        let outcome = upstream
            .exchange(&query("www"), How::Tcp, impatient())
            .await;
        assert!(
            matches!(outcome, Err(ExchangeError::Timeout { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_reply_in_single_bytes_is_put_together() {
    let (address, _) = serving(|mut stream| async move {
        let reply = reply_to(&read_query(&mut stream).await?);
        let mut frame = u16::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(&reply);
        stream.set_nodelay(true).ok()?;
        for byte in frame {
            stream.write_u8(byte).await.ok()?;
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_secs(60)).await;
        None
    })
    .await;
    let query = query("www");
    let reply = upstream(address)
        .exchange(&query, How::Tcp, patient())
        .await
        .unwrap();
    assert_eq!(reply, expected(&query));
}

#[tokio::test]
async fn lies_over_tcp_are_ignored_as_well() {
    let (address, _) = serving(|mut stream| async move {
        let query = read_query(&mut stream).await?;
        let mut wrong_id = reply_to(&query);
        wrong_id[1] ^= 1;
        let mut wrong_name = reply_to(&query);
        wrong_name[13] ^= 1;
        for message in [&wrong_id[..], &wrong_name, &query, &[], &reply_to(&query)] {
            write_reply(&mut stream, message).await?;
        }
        sleep(Duration::from_secs(60)).await;
        None
    })
    .await;
    let query = query("www");
    let reply = upstream(address)
        .exchange(&query, How::Tcp, patient())
        .await
        .unwrap();
    assert_eq!(reply, expected(&query));
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_refused_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outcome = upstream(address)
        .exchange(&query("www"), How::Tcp, patient())
        .await;
    assert!(
        matches!(outcome, Err(ExchangeError::Refused)),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while() {
    let (address, accepted) = serving(answer_each).await;
    let options = UpstreamOptions {
        expire: Duration::from_millis(100),
        ..UpstreamOptions::default()
    };
    let upstream = Upstream::new(address, options).unwrap();
    upstream
        .exchange(&query("www"), How::Tcp, patient())
        .await
        .unwrap();
    assert_eq!(upstream.stream.open_connections(), 1);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(upstream.stream.open_connections(), 0);
    upstream
        .exchange(&query("www"), How::Tcp, patient())
        .await
        .unwrap();
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_connection_over_its_age_takes_no_more_queries() {
    let (address, accepted) = serving(answer_each).await;
    let options = UpstreamOptions {
        max_age: Some(Duration::from_millis(100)),
        ..UpstreamOptions::default()
    };
    let upstream = Upstream::new(address, options).unwrap();
    for _ in 0..2 {
        upstream
            .exchange(&query("www"), How::Tcp, patient())
            .await
            .unwrap();
        upstream
            .exchange(&query("www"), How::Tcp, patient())
            .await
            .unwrap();
        sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn idle_connections_beyond_the_limit_are_closed() {
    let (address, _) = serving(|mut stream| async move {
        loop {
            let query = read_query(&mut stream).await?;
            sleep(Duration::from_millis(50)).await;
            write_reply(&mut stream, &reply_to(&query)).await?;
        }
    })
    .await;
    let options = UpstreamOptions {
        max_idle_connections: 2,
        ..UpstreamOptions::default()
    };
    let upstream = Upstream::new(address, options).unwrap();
    assert_eq!(ask_at_once(&upstream, 32).await, 32);
    assert_eq!(upstream.stream.open_connections(), 2);
}

#[tokio::test]
async fn replies_longer_than_any_datagram_come_whole() {
    let (address, _) = serving(|mut stream| async move {
        loop {
            let mut reply = reply_to(&read_query(&mut stream).await?);
            reply.resize(65_535, 7);
            write_reply(&mut stream, &reply).await?;
        }
    })
    .await;
    let upstream = upstream(address);
    for _ in 0..3 {
        let reply = upstream
            .exchange(&query("www"), How::Tcp, patient())
            .await
            .unwrap();
        assert_eq!(reply.len(), 65_535);
    }
}
