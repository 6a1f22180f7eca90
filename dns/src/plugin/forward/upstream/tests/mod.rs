//! Upstreams that misbehave, over loopback sockets.

mod health;
mod tcp;
mod tls;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Upstream, UpstreamOptions};

/// A query for the A record of `<label>.example.`, with id 0x0102 and RD.
pub(super) fn query(label: &str) -> Vec<u8> {
    let mut message = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.push(u8::try_from(label.len()).unwrap());
    message.extend_from_slice(label.as_bytes());
    message.extend_from_slice(b"\x07example\x00\x00\x01\x00\x01");
    message
}

/// A right reply to `query`: one A record, 192.0.2.1.
pub(super) fn reply_to(query: &[u8]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message[7] = 1;
    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    message
}

/// What the caller must get for `query`: the same with its own id.
pub(super) fn expected(query: &[u8]) -> Vec<u8> {
    reply_to(query)
}

pub(super) fn upstream(to: SocketAddr) -> Arc<Upstream> {
    Upstream::new(to, UpstreamOptions::default()).unwrap()
}

/// Long enough for anything on loopback that is going to happen.
pub(super) fn patient() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// For what is not going to happen.
pub(super) fn impatient() -> Instant {
    Instant::now() + Duration::from_millis(150)
}
