//! Telling secondaries that a zone has changed (RFC 1996).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use crate::plugin::Plugin;
use crate::wire::{Class, Name, Rtype};

/// How often serials are looked at: a zone that changes all the time is told of this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a secondary has to acknowledge, each time.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Times a secondary is told before it is left alone until the next change.
const TRIES_MAX: u32 = 3;

/// A zone and the serial its secondaries know of.
#[derive(Debug)]
pub(super) struct Told {
    zone: Name,
    secondaries: Vec<SocketAddr>,
    serial: Option<u32>,
}

impl Told {
    pub(super) const fn new(zone: Name, secondaries: Vec<SocketAddr>) -> Self {
        Self {
            zone,
            secondaries,
            serial: None,
        }
    }
}

/// Looks at the zones until aborted.
pub(super) async fn run(mut told: Vec<Told>, below: Vec<Arc<dyn Plugin>>) {
    loop {
        for told in &mut told {
            let serial = below
                .iter()
                .find_map(|plugin| plugin.zone_serial(&told.zone));
            if serial.is_none() || serial == told.serial {
                continue;
            }
            told.serial = serial;
            for secondary in &told.secondaries {
                if !tell(&told.zone, *secondary).await {
                    tracing::warn!(zone = %told.zone, %secondary, "no answer to NOTIFY");
                }
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// Says whether the secondary has acknowledged.
async fn tell(zone: &Name, secondary: SocketAddr) -> bool {
    let local: SocketAddr = match secondary {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let id = fastrand::u16(..);
    let message = message(zone, id);
    for _ in 0..TRIES_MAX {
        let Ok(socket) = UdpSocket::bind(local).await else {
            return false;
        };
        let told = async {
            socket.connect(secondary).await?;
            socket.send(&message).await?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).await?;
            std::io::Result::Ok(
                answer
                    .get(..length)
                    .is_some_and(|answer| acknowledges(answer, id)),
            )
        };
        if let Ok(Ok(true)) = timeout(ANSWER_PATIENCE, told).await {
            return true;
        }
    }
    false
}

fn message(zone: &Name, id: u16) -> Vec<u8> {
    let mut message = Vec::new();
    // Opcode NOTIFY, AA.
    for word in [id, 4 << 11 | 0x0400, 1, 0, 0, 0] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(zone.as_wire());
    message.extend_from_slice(&Rtype::SOA.0.to_be_bytes());
    message.extend_from_slice(&Class::IN.0.to_be_bytes());
    message
}

fn acknowledges(answer: &[u8], id: u16) -> bool {
    let reply = answer
        .get(2)
        .is_some_and(|flags| flags & 0xF8 == 0x80 | 4 << 3);
    answer.starts_with(&id.to_be_bytes()) && reply
}
