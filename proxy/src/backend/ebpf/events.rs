//! What the programs tell of refusals: into the log, but no more of it than a person reads.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use switchyard_datapath::layout::{Address, Event};

use super::DropReason;

/// Events read in one round.
const EVENTS_PER_ROUND: usize = 1024;
/// Lines in one round; the rest is counted.
const LINES_PER_ROUND: usize = 8;
/// The same refusal (reason, Service, destination) is said so often.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Refusals that are remembered as said.
const SAID_MAX: usize = 4096;

/// Reads the ring of refusals.
pub(super) struct Events {
    ring: RingBuf<MapData>,
    said: HashMap<(u8, u32, Address, u16), Instant>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("said", &self.said.len())
            .finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn of(ring: RingBuf<MapData>) -> Self {
        Self {
            ring,
            said: HashMap::new(),
        }
    }

    /// Logs what is new. `name` tells a Service port by its index.
    pub(super) fn tell(&mut self, now: Instant, name: impl Fn(u32) -> Option<String>) {
        let (mut lines, mut unsaid) = (0, 0);
        if self.said.len() > SAID_MAX {
            self.said
                .retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
        }
        for _ in 0..EVENTS_PER_ROUND {
            let Some(event) = self.ring.next().and_then(|bytes| parse(&bytes)) else {
                break;
            };
            let key = (
                event.reason,
                event.service,
                event.destination,
                event.destination_port,
            );
            let is_known = self
                .said
                .get(&key)
                .is_some_and(|at| now.duration_since(*at) < AGAIN_AFTER);
            if is_known {
                continue;
            }
            if lines == LINES_PER_ROUND || self.said.len() > SAID_MAX {
                unsaid += 1;
                continue;
            }
            lines += 1;
            self.said.insert(key, now);
            say(&event, name(event.service).as_deref());
        }
        if unsaid > 0 {
            tracing::info!("and {unsaid} more refusals of other kinds; metrics count all of them");
        }
    }
}

fn say(event: &Event, service: Option<&str>) {
    let to = socket(event.destination, event.destination_port);
    let from = (event.source != Address::ANY).then(|| socket(event.source, event.source_port));
    let reason = reason(event.reason).map_or("unknown", DropReason::as_str);
    tracing::info!(
        reason,
        service_port = service.unwrap_or("none"),
        from = from.as_deref().unwrap_or("a socket here"),
        to,
        protocol = event.protocol,
        device = event.device,
        "{}",
        if event.told == 1 {
            "refused"
        } else {
            "dropped"
        }
    );
}

fn socket(address: Address, port: u16) -> String {
    SocketAddr::new(IpAddr::from(address), u16::from_be(port)).to_string()
}

/// The reason of a number.
fn reason(number: u8) -> Option<DropReason> {
    let mut all = DropReason::ALL.into_iter();
    all.find(|reason| reason.number() == u32::from(number))
}

fn parse(bytes: &[u8]) -> Option<Event> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let short = |at: usize| {
        let bytes = bytes.get(at..at + 2)?;
        Some(u16::from_ne_bytes(bytes.try_into().ok()?))
    };
    let address = |at: usize| {
        Some(Address([
            word(at)?,
            word(at + 4)?,
            word(at + 8)?,
            word(at + 12)?,
        ]))
    };
    Some(Event {
        source: address(0)?,
        destination: address(16)?,
        source_port: short(32)?,
        destination_port: short(34)?,
        protocol: *bytes.get(36)?,
        reason: *bytes.get(37)?,
        told: *bytes.get(38)?,
        reserved: 0,
        device: word(40)?,
        service: word(44)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_are_laid_out() {
        let mut bytes = [0_u8; 48];
        bytes[10..12].copy_from_slice(&[0xff; 2]);
        bytes[12..16].copy_from_slice(&[10, 0, 0, 9]);
        bytes[34..36].copy_from_slice(&443_u16.to_be_bytes());
        bytes[37] = 3;
        bytes[44..48].copy_from_slice(&7_u32.to_ne_bytes());
        let event = parse(&bytes).unwrap();
        assert_eq!(IpAddr::from(event.source), IpAddr::from([10, 0, 0, 9]));
        assert_eq!(u16::from_be(event.destination_port), 443);
        assert_eq!(event.service, 7);
        assert_eq!(reason(event.reason), Some(DropReason::UnknownPort));
        assert_eq!(parse(&bytes[..47]), None);
    }
}
