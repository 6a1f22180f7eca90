use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::setup;
use crate::corefile::{self, ConfigError};
use crate::plugin::testing::Refuses;
use crate::plugin::{BlockSettings, Chain, Environment, Exchange, Plugin, Setup};
use crate::server::StreamTimeouts;
use crate::wire::{Intake, Rcode};

fn settings(server: &str, zone: &str) -> BlockSettings {
    BlockSettings {
        zones: vec![zone.to_owned()],
        server: server.into(),
        directives: Vec::new(),
        root: "/nowhere".into(),
        bind: Vec::new(),
        tls: None,
        timeouts: StreamTimeouts::default(),
        debug: false,
        metrics: false,
    }
}

fn plugins(
    line: &str,
    mut block: BlockSettings,
    environment: &Environment,
) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let text = format!(". {{\n{line}\n}}");
    let corefile = corefile::parse(&text, "Corefile", "/nowhere".as_ref())?;
    setup(&mut Setup {
        lines: &[&corefile.blocks[0].directives[0]],
        block: &mut block,
        environment,
    })
}

/// A probing server block, and the first query it sent, to a socket that stands for it.
async fn probed(zone: &str, environment: &Environment) -> (Arc<Chain>, Vec<u8>) {
    let (chain, _socket, packet, _from) = probed_at(zone, environment).await;
    (chain, packet)
}

async fn probed_at(
    zone: &str,
    environment: &Environment,
) -> (Arc<Chain>, UdpSocket, Vec<u8>, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let block = settings(&format!("dns://:{port}"), zone);
    let mut plugins = plugins("loop", block, environment).unwrap();
    plugins[0].start();
    plugins.push(Arc::new(Refuses));
    let mut buffer = [0; 512];
    let received = timeout(Duration::from_secs(5), socket.recv_from(&mut buffer)).await;
    let (length, from) = received.unwrap().unwrap();
    (Chain::new(plugins), socket, buffer[..length].to_vec(), from)
}

async fn ask(chain: &Arc<Chain>, packet: &[u8]) -> Rcode {
    let mut exchange = Exchange::default();
    assert_eq!(exchange.request.read(packet), Intake::Query);
    exchange.begin();
    chain.run(&mut exchange).await;
    exchange.reply.rcode
}

#[tokio::test]
async fn a_probe_that_is_seen_three_times_ends_the_process() {
    let environment = Environment::default();
    let (chain, mut probe) = probed("example.org.", &environment).await;
    let fatal = environment.fatal.clone();
    let ended = || timeout(Duration::from_millis(50), fatal.reason());
    for _ in 0..2 {
        assert_eq!(ask(&chain, &probe).await, Rcode::REFUSED, "passed on");
    }
    assert!(ended().await.is_err());
    probe.make_ascii_uppercase();
    assert_eq!(ask(&chain, &probe).await, Rcode::SERVFAIL);
    let reason = ended().await.unwrap();
    assert!(reason.starts_with("plugin/loop: Loop ("), "{reason}");
    assert!(
        reason.contains("detected for zone \"example.org.\", see https"),
        "{reason}"
    );
    assert!(reason.ends_with(".example.org.\""), "{reason}");
}

#[tokio::test]
async fn other_questions_are_not_counted() {
    let environment = Environment::default();
    let (chain, mut probe) = probed(".", &environment).await;
    let length = probe.len();
    probe[length - 3] = 1; // type A
    for _ in 0..5 {
        assert_eq!(ask(&chain, &probe).await, Rcode::REFUSED);
    }
    let hinfo = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x0d\x00\x01";
    for _ in 0..5 {
        assert_eq!(ask(&chain, hinfo).await, Rcode::REFUSED);
    }
    let reason = timeout(Duration::from_millis(50), environment.fatal.reason()).await;
    assert!(reason.is_err());
}

#[tokio::test]
async fn the_watch_ends_a_moment_after_an_answer() {
    let environment = Environment::default();
    let (chain, socket, probe, from) = probed_at(".", &environment).await;
    let mut reply = probe.clone();
    reply[2] |= 0x80;
    socket.send_to(&reply, from).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&chain, &probe).await, Rcode::REFUSED);
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(ask(&chain, &probe).await, Rcode::REFUSED, "the third time");
}

#[test]
fn a_block_for_tls_alone_has_no_probe_and_options_are_refused() {
    let environment = Environment::default();
    let tls = settings("tls://:853", ".");
    assert!(plugins("loop", tls, &environment).unwrap().is_empty());
    for line in ["loop 10s", "loop {\n}"] {
        assert!(
            plugins(line, settings("dns://:53", "."), &environment).is_err(),
            "{line}"
        );
    }
}
