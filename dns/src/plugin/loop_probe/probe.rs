//! The probe: one query to ourselves.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::Watch;
use crate::wire::{Class, Rtype};

/// How long after the start we try to get an answer from ourselves.
const PROBING_TIME: Duration = Duration::from_secs(30);
/// How long one answer is waited for: longer than the way through a silent upstream.
const ANSWER_PATIENCE: Duration = Duration::from_secs(6);
/// The pause after an attempt without answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long after an answer a copy of the probe may still come in.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Asks until there is an answer, and ends the watch a moment later.
pub(super) async fn run(watch: Arc<Watch>) {
    let deadline = Instant::now() + PROBING_TIME;
    while Instant::now() < deadline {
        match timeout(ANSWER_PATIENCE, ask(&watch)).await {
            Ok(Ok(())) => {
                sleep(AFTERWARDS).await;
                break;
            }
            Ok(Err(_)) | Err(_) => {
                // Not started yet, or an upstream that does not answer: what was seen proves nothing.
                watch.seen.store(0, Ordering::Relaxed);
                sleep(RETRY_PAUSE).await;
            }
        }
    }
    watch.is_over.store(true, Ordering::Relaxed);
}

async fn ask(watch: &Watch) -> io::Result<()> {
    let any: SocketAddr = match watch.ours {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(watch.ours).await?;
    let id = fastrand::u16(..).to_be_bytes();
    let mut query = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(watch.name.as_wire());
    query.extend_from_slice(&Rtype::HINFO.0.to_be_bytes());
    query.extend_from_slice(&Class::IN.0.to_be_bytes());
    socket.send(&query).await?;
    let mut header = [0; 12];
    loop {
        let length = socket.recv(&mut header).await?;
        if length == header.len() && header[..2] == id {
            return Ok(());
        }
    }
}
