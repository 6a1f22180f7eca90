//! The plugin with upstreams on loopback sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::plugin::testing::{Refuses, TestBlock, block};
use crate::plugin::{Exchange, Outcome};
use crate::wire::{Intake, Rcode, Section, Transport};

/// An upstream that answers both transports with what its function makes of a query; an empty
/// message is not sent.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start(answer: impl Fn(&[u8], Transport) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        let (answer, asked) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let (udp_answer, udp_asked) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                udp_asked.fetch_add(1, Ordering::Relaxed);
                let reply = udp_answer(&buffer[..length], Transport::Udp);
                if !reply.is_empty() {
                    socket.send_to(&reply, from).await.unwrap();
                }
            }
        });
        let tcp_asked = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&tcp_asked));
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(length)];
                        stream.read_exact(&mut query).await.unwrap();
                        asked.fetch_add(1, Ordering::Relaxed);
                        let reply = answer(&query, Transport::Tcp);
                        let length = u16::try_from(reply.len()).unwrap();
                        stream.write_u16(length).await.unwrap();
                        stream.write_all(&reply).await.unwrap();
                    }
                });
            }
        });
        Self { address, asked }
    }

    /// One that answers with an A record 192.0.2.`last`.
    async fn good(last: u8) -> Self {
        Self::start(move |query, _| answer(query, last)).await
    }

    async fn with_rcode(rcode: u8) -> Self {
        Self::start(move |query, _| bare(query, rcode)).await
    }

    async fn silent() -> Self {
        Self::start(|_, _| Vec::new()).await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// An address nobody listens on.
async fn refusing() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

fn question_end(query: &[u8]) -> usize {
    let mut at = 12;
    while query[at] != 0 {
        at += usize::from(query[at]) + 1;
    }
    at + 5
}

/// A reply without records, RA set.
fn bare(query: &[u8], rcode: u8) -> Vec<u8> {
    let mut reply = query[..question_end(query)].to_vec();
    reply[2] |= 0x80;
    reply[3] = 0x80 | rcode;
    reply[6..12].fill(0);
    reply
}

fn answer(query: &[u8], last: u8) -> Vec<u8> {
    let mut reply = bare(query, 0);
    reply[7] = 1;
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    reply
}

/// What came of a question.
#[derive(Debug)]
struct Got {
    outcome: Outcome,
    exchange: Exchange,
    took: Duration,
}

impl Got {
    fn rcode(&self) -> Rcode {
        self.exchange.reply.rcode
    }

    /// The last octets of the addresses in the answer.
    fn addresses(&self) -> Vec<u8> {
        let records = self.exchange.reply.records().unwrap().answer;
        records.iter().map(|record| record.data[3]).collect()
    }

    fn explained(&self) -> (u16, &str) {
        let (code, text) = self.exchange.reply.ede.as_ref().expect("an explanation");
        (code.0, text)
    }
}

fn test_block(directives: &str) -> TestBlock {
    block(".", directives, vec![Arc::new(Refuses)]).unwrap()
}

/// Asks for an A record, with EDNS.
async fn ask(block: &TestBlock, name: &str) -> Got {
    ask_over(block, name, Transport::Udp).await
}

async fn ask_over(block: &TestBlock, name: &str, transport: Transport) -> Got {
    let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(crate::wire::Name::from_text(name).unwrap().as_wire());
    packet.extend_from_slice(&[0, 1, 0, 1]);
    packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    ask_packet(block, &packet, transport).await
}

async fn ask_packet(block: &TestBlock, packet: &[u8], transport: Transport) -> Got {
    let mut exchange = Exchange::default();
    assert_eq!(exchange.request.read(packet), Intake::Query);
    exchange.request.transport = transport;
    exchange.begin();
    let started = Instant::now();
    let outcome = block.chain.run(&mut exchange).await;
    Got {
        outcome,
        exchange,
        took: started.elapsed(),
    }
}

#[tokio::test]
async fn the_upstream_s_reply_is_the_answer() {
    let upstream = Upstream::start(|query, _| {
        let mut reply = answer(query, 7);
        reply[2] |= 4; // AA
        reply[3] |= 0x20; // AD
        reply
    })
    .await;
    let block = test_block(&format!("forward . {}", upstream.address));
    let got = ask(&block, "WWW.example.").await;
    assert_eq!(got.outcome, Outcome::Answered);
    assert_eq!((got.rcode(), got.addresses()), (Rcode::NOERROR, vec![7]));
    let reply = &got.exchange.reply;
    assert!(reply.authoritative && reply.recursion_available && reply.authentic_data);
    assert!(!reply.truncated && reply.ede.is_none() && !got.exchange.failed);
    assert_eq!(got.exchange.answered_by, "forward");
    assert_eq!(&reply.octets()[12..24], b"\x03WWW\x07example");
}

#[tokio::test]
async fn only_names_in_from_and_not_excepted_are_forwarded() {
    let upstream = Upstream::good(1).await;
    let block = test_block(&format!(
        "forward example.org {} {{\nexcept a.example.org EXAMPLE.org\n}}",
        upstream.address
    ));
    for (name, forwarded) in [
        ("example.org.", true),
        ("eXample.org.", true),
        ("b.example.org.", false), // EXAMPLE.org is excepted but for its own name
        ("a.example.org.", false),
        ("notexample.org.", false),
        (".", false),
    ] {
        let expected = if forwarded {
            Rcode::NOERROR
        } else {
            Rcode::REFUSED
        };
        assert_eq!(ask(&block, name).await.rcode(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_silent_upstream_costs_read_timeout_and_then_the_next_is_asked() {
    let (silent, good) = (Upstream::silent().await, Upstream::good(2).await);
    let block = test_block(&format!(
        "forward . {} {} {{\npolicy sequential\nread_timeout 200ms\n}}",
        silent.address, good.address
    ));
    let got = ask(&block, "www.example.").await;
    assert_eq!(got.addresses(), [2]);
    assert!(
        (200..1500).contains(&got.took.as_millis()),
        "{:?}",
        got.took
    );
}

#[tokio::test]
async fn when_all_are_silent_the_client_is_told_who_was() {
    let (one, other) = (Upstream::silent().await, Upstream::silent().await);
    let block = test_block(&format!(
        "forward . {} {} {{\npolicy sequential\nread_timeout 50ms\nmax_fails 0\n}}",
        one.address, other.address
    ));
    let got = ask(&block, "www.example.").await;
    assert_eq!(got.rcode(), Rcode::SERVFAIL);
    let (one_address, other_address) = (one.address, other.address);
    let text = format!("{one_address}: no reply in time; {other_address}: no reply in time");
    assert_eq!(got.explained(), (22, &*text));
    assert_eq!(got.exchange.error.as_deref(), Some(&*text));
    assert_eq!(
        (one.asked(), other.asked()),
        (2, 2),
        "twice each is the default"
    );
}

#[tokio::test]
async fn a_refused_port_costs_no_time() {
    let (refusing, good) = (refusing().await, Upstream::good(2).await);
    let block = test_block(&format!(
        "forward . {refusing} {} {{\npolicy sequential\n}}",
        good.address
    ));
    let got = ask(&block, "www.example.").await;
    assert_eq!(got.addresses(), [2]);
    assert!(got.took < Duration::from_secs(1), "{:?}", got.took);
    let alone = test_block(&format!("forward . {refusing}"));
    let got = ask(&alone, "www.example.").await;
    assert_eq!(got.rcode(), Rcode::SERVFAIL);
    assert_eq!(
        got.explained(),
        (23, &*format!("{refusing}: connection refused"))
    );
}

#[tokio::test]
async fn a_broken_reply_is_no_reply() {
    let broken = Upstream::start(|query, _| {
        let mut reply = answer(query, 9);
        let length = reply.len();
        reply[length - 5] = 200; // the data's length
        reply
    })
    .await;
    let good = Upstream::good(2).await;
    let block = test_block(&format!(
        "forward . {} {} {{\npolicy sequential\n}}",
        broken.address, good.address
    ));
    assert_eq!(ask(&block, "www.example.").await.addresses(), [2]);
    let alone = test_block(&format!("forward . {}", broken.address));
    let got = ask(&alone, "www.example.").await;
    assert_eq!(got.rcode(), Rcode::SERVFAIL);
    let (code, text) = got.explained();
    assert!(
        code == 23 && text.contains("malformed DNS message"),
        "{code} {text}"
    );
}

#[tokio::test]
async fn failover_looks_for_a_better_reply_and_takes_the_last_if_there_is_none() {
    let (servfail, refused) = (Upstream::with_rcode(2).await, Upstream::with_rcode(5).await);
    let good = Upstream::good(3).await;
    let options = "{\npolicy sequential\nfailover SERVFAIL REFUSED\n}";
    let block = test_block(&format!(
        "forward . {} {} {} {options}",
        servfail.address, refused.address, good.address
    ));
    assert_eq!(ask(&block, "www.example.").await.addresses(), [3]);
    let block = test_block(&format!(
        "forward . {} {} {options}",
        servfail.address, refused.address
    ));
    let before = (servfail.asked(), refused.asked());
    assert_eq!(ask(&block, "www.example.").await.rcode(), Rcode::REFUSED);
    assert_eq!(
        (servfail.asked(), refused.asked()),
        (before.0 + 1, before.1 + 1)
    );
}

#[tokio::test]
async fn without_failover_any_reply_is_the_answer() {
    let (nxdomain, good) = (Upstream::with_rcode(3).await, Upstream::good(3).await);
    let block = test_block(&format!(
        "forward . {} {} {{\npolicy sequential\n}}",
        nxdomain.address, good.address
    ));
    assert_eq!(ask(&block, "www.example.").await.rcode(), Rcode::NXDOMAIN);
    assert_eq!(good.asked(), 0);
}

#[tokio::test]
async fn next_hands_over_to_the_next_forward_and_the_last_has_none() {
    let (nxdomain, nodata) = (Upstream::with_rcode(3).await, Upstream::with_rcode(0).await);
    let good = Upstream::good(4).await;
    let block = test_block(&format!(
        "forward . {} {{\nnext NXDOMAIN\n}}\nforward . {} {{\nnext_on_nodata\n}}\nforward . {}",
        nxdomain.address, nodata.address, good.address
    ));
    assert_eq!(ask(&block, "www.example.").await.addresses(), [4]);
    let block = test_block(&format!(
        "forward . {} {{\nnext NXDOMAIN\n}}\nforward . {} {{\nnext NXDOMAIN\n}}",
        nodata.address, nxdomain.address
    ));
    let got = ask(&block, "www.example.").await;
    assert_eq!((got.rcode(), got.exchange.failed), (Rcode::NOERROR, false));
    let block = test_block(&format!(
        "forward . {} {{\nnext NXDOMAIN\n}}",
        nxdomain.address
    ));
    let got = ask(&block, "www.example.").await;
    assert_eq!((got.rcode(), got.exchange.failed), (Rcode::NXDOMAIN, false));
}

#[tokio::test]
async fn more_than_max_concurrent_are_refused() {
    let silent = Upstream::silent().await;
    let block = Arc::new(test_block(&format!(
        "forward . {} {{\nmax_concurrent 2\nread_timeout 300ms\nmax_connect_attempts 1\n}}",
        silent.address
    )));
    let asked = (0..5).map(|_| ask(&block, "www.example."));
    let got = futures::future::join_all(asked).await;
    let with = |rcode| got.iter().filter(|got| got.rcode() == rcode).count();
    assert_eq!((with(Rcode::SERVFAIL), with(Rcode::REFUSED)), (2, 3));
    let refused = got
        .iter()
        .find(|got| got.rcode() == Rcode::REFUSED)
        .unwrap();
    assert!(refused.explained().1.contains("max_concurrent"));
    assert_eq!(
        ask(&block, "www.example.").await.rcode(),
        Rcode::SERVFAIL,
        "there is room again"
    );
}

#[tokio::test]
async fn when_all_are_down_any_is_asked_or_with_failfast_none() {
    for (failfast, explanation) in [
        ("", "refused"),
        ("failfast_all_unhealthy_upstreams", "down"),
    ] {
        let block = test_block(&format!(
            "forward . {} {{\nmax_fails 1\nhealth_check 20ms\n{failfast}\n}}",
            refusing().await
        ));
        assert_eq!(ask(&block, "www.example.").await.rcode(), Rcode::SERVFAIL);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let got = ask(&block, "www.example.").await;
        assert_eq!(got.rcode(), Rcode::SERVFAIL);
        assert!(
            got.explained().1.contains(explanation),
            "{:?}",
            got.explained()
        );
    }
}

/// Truncates over UDP, and is whole over TCP.
async fn truncating() -> Upstream {
    Upstream::start(|query, transport| match transport {
        Transport::Udp => {
            let mut reply = bare(query, 0);
            reply[2] |= 2;
            reply
        }
        Transport::Tcp | Transport::Tls => answer(query, 6),
    })
    .await
}

#[tokio::test]
async fn the_transport_is_the_client_s_unless_said_otherwise() {
    let upstream = truncating().await;
    for (option, client, truncated, asked) in [
        ("", Transport::Udp, true, 1),
        ("", Transport::Tcp, false, 1),
        ("", Transport::Tls, false, 1),
        ("force_tcp", Transport::Udp, false, 1),
        ("prefer_udp", Transport::Udp, false, 2),
        ("prefer_udp", Transport::Tcp, false, 2),
    ] {
        let block = test_block(&format!("forward . {} {{\n{option}\n}}", upstream.address));
        let before = upstream.asked();
        let got = ask_over(&block, "www.example.", client).await;
        assert_eq!(
            got.exchange.reply.truncated, truncated,
            "{option} {client:?}"
        );
        let answers = got.exchange.reply.count(Section::Answer);
        assert_eq!(answers, u16::from(!truncated), "{option} {client:?}");
        assert_eq!(upstream.asked() - before, asked, "{option} {client:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_know_edns_is_asked_without() {
    let old = Upstream::start(|query, _| {
        if query[11] == 1 {
            bare(query, 1)
        } else {
            answer(query, 5)
        }
    })
    .await;
    let block = test_block(&format!("forward . {}", old.address));
    assert_eq!(ask(&block, "www.example.").await.addresses(), [5]);
    assert_eq!(old.asked(), 2);
    let formerr = Upstream::with_rcode(1).await;
    let block = test_block(&format!("forward . {}", formerr.address));
    assert_eq!(ask(&block, "www.example.").await.rcode(), Rcode::FORMERR);
}

#[tokio::test]
async fn what_the_upstream_explains_reaches_clients_with_edns() {
    let bogus = Upstream::start(|query, _| {
        let mut reply = bare(query, 2);
        reply[11] = 1;
        reply.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11]);
        reply.extend_from_slice(&[0, 15, 0, 7, 0, 6]);
        reply.extend_from_slice(b"bogus");
        reply
    })
    .await;
    let block = test_block(&format!("forward . {}", bogus.address));
    let got = ask(&block, "www.example.").await;
    assert_eq!(got.rcode(), Rcode::SERVFAIL);
    assert_eq!(got.explained(), (6, "bogus"));
    assert_eq!(
        got.exchange.reply.count(Section::Additional),
        0,
        "OPT is not handed on"
    );
    let plain = b"\x07\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
    let got = ask_packet(&block, plain, Transport::Udp).await;
    assert_eq!(got.exchange.reply.ede, None);
}

#[tokio::test]
async fn round_robin_and_random_use_all_upstreams() {
    for policy in ["round_robin", "random"] {
        let upstreams = [Upstream::good(1).await, Upstream::good(2).await];
        let block = test_block(&format!(
            "forward . {} {} {{\npolicy {policy}\n}}",
            upstreams[0].address, upstreams[1].address
        ));
        for _ in 0..40 {
            ask(&block, "www.example.").await;
        }
        let asked = [upstreams[0].asked(), upstreams[1].asked()];
        assert!(
            asked.iter().all(|asked| (5..=35).contains(asked)),
            "{policy}: {asked:?}"
        );
        assert_eq!(asked[0] + asked[1], 40);
    }
}

#[test]
fn other_classes_are_forwarded_too() {
    let block = test_block("forward . 192.0.2.1");
    let [forward, ..] = block.chain.plugins() else {
        panic!("no plugin")
    };
    assert!(forward.answers_any_class());
}

#[test]
fn upstreams_by_name_are_looked_up_and_a_name_without_address_is_an_error() {
    let block = test_block("forward . localhost:5353 {\npolicy sequential\n}");
    let debug = format!("{:?}", block.chain.plugins()[0]);
    assert!(
        debug.contains("127.0.0.1:5353") || debug.contains("[::1]:5353"),
        "{debug}"
    );
    let error = super::super::testing::block(".", "forward . no-such-host.invalid", Vec::new());
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("Corefile:2: can't look up `no-such-host.invalid`"),
        "{error}"
    );
}
