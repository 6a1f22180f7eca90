//! Flows that are over: what the kernel's programs remember, and when it may be forgotten.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aya::maps::{MapData, MapError};
use nix::errno::Errno;
use switchyard_datapath::layout::{Address, FlowKey, FlowValue, TCP, UDP, flow_flags, map_names};

use super::kept::is_kept;
use super::programs::Loaded;
use super::tables::gone;
use super::{ConntrackTimeouts, EbpfError};

/// A flow that was closed by both sides, or reset.
const CLOSED: Duration = Duration::from_secs(10);
/// A connection that was not answered.
const UNANSWERED_TCP: Duration = Duration::from_secs(60);
/// A refusal.
const REFUSED: Duration = Duration::from_secs(5);
/// What no connection needs any more, where it is in the way of others.
const UNDER_PRESSURE: Duration = Duration::from_secs(1);
/// A flow that was closed by both sides, or reset, while another mode masquerades as well: it may
/// choose the same port.
const CLOSED_WHILE_DRAINING: Duration = Duration::from_millis(200);
/// Defaults of the timeouts an operator may set: the reference's, and the kernel's.
const TCP_ESTABLISHED: Duration = Duration::from_secs(24 * 3600);
const TCP_CLOSE_WAIT: Duration = Duration::from_secs(3600);
const UNANSWERED_UDP: Duration = Duration::from_secs(30);
const UDP_STREAM: Duration = Duration::from_secs(120);

/// `BPF_NOEXIST`.
const ONLY_NEW: u64 = 1;

/// What all entries of a flow say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    last_ns: u64,
    /// Flags of what goes to the endpoint, and of what comes back.
    there: u16,
    back: u16,
    protocol: u8,
    vip: Address,
    is_stale: bool,
}

/// What flows are in the way of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressure {
    /// Nothing.
    None,
    /// There is no room for new ones.
    Room,
    /// Another mode takes the new ones.
    Draining,
}

/// What a walk through FLOWS found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Entries that stay.
    pub(super) entries: usize,
    /// Flows that were forgotten.
    pub(super) expired: u64,
    /// VIPs that live connections were made to.
    pub(super) vips: HashSet<Address>,
}

/// The map of flows.
#[derive(Debug)]
pub(super) struct Flows {
    map: aya::maps::HashMap<MapData, FlowKey, FlowValue>,
    /// The same map, to be read many entries at a time.
    descriptor: OwnedFd,
}

impl Flows {
    pub(super) fn of(loaded: &mut Loaded) -> Result<Self, EbpfError> {
        Ok(Self {
            descriptor: loaded.descriptor(map_names::FLOWS)?,
            map: loaded.shared(map_names::FLOWS)?,
        })
    }

    /// Forgets every flow that was idle for too long, and those over UDP whose endpoint is
    /// stale. Under pressure also those that nobody is likely to come back to.
    pub(super) fn sweep(
        &mut self,
        now_ns: u64,
        timeouts: &ConntrackTimeouts,
        pressure: Pressure,
        is_stale: impl Fn(u32, &Address, u16) -> bool,
    ) -> Result<Swept, EbpfError> {
        let mut flows: HashMap<u64, Seen> = HashMap::new();
        let mut entries = 0;
        self.walk(|key, value| {
            entries += 1;
            if is_kept(value) {
                return;
            }
            let seen = flows.entry(value.id).or_default();
            seen.add(key, value);
            let is_request = value.flags & flow_flags::REQUEST != 0;
            if is_request {
                seen.vip = key.destination;
            }
            if key.protocol == UDP && is_request && value.flags & flow_flags::REFUSED == 0 {
                seen.is_stale |= is_stale(value.service, &value.address, value.port);
            }
        })?;
        let mut vips = HashSet::new();
        flows.retain(|_, seen| {
            let is_over = seen.is_over(now_ns, timeouts, pressure);
            if !is_over && seen.is_connected() {
                vips.insert(seen.vip);
            }
            is_over
        });
        if flows.is_empty() {
            return Ok(Swept {
                entries,
                expired: 0,
                vips,
            });
        }
        let mut over: Vec<FlowKey> = Vec::new();
        self.walk(|key, value| {
            if flows.contains_key(&value.id) {
                over.push(*key);
            }
        })?;
        let mut failed = Ok(());
        for key in &over {
            // It may have gone by itself meanwhile.
            failed = failed.and(self.remove(key));
        }
        failed?;
        Ok(Swept {
            entries: entries.saturating_sub(over.len()),
            expired: u64::try_from(flows.len()).unwrap_or(0),
            vips,
        })
    }

    /// Takes over entries that are not there yet. Those there is no room for are lost, as new ones
    /// would be.
    pub(super) fn adopt(&mut self, entries: &[(FlowKey, FlowValue)]) -> Result<(), EbpfError> {
        for (key, value) in entries {
            self.insert_new(key, value)?;
        }
        Ok(())
    }

    /// Adds an entry; false where there is one already, or no room.
    pub(super) fn insert_new(
        &mut self,
        key: &FlowKey,
        value: &FlowValue,
    ) -> Result<bool, EbpfError> {
        match self.map.insert(key, value, ONLY_NEW) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if is_there_or_full(&error.io_error) => Ok(false),
            Err(error) => Err(EbpfError::map(map_names::FLOWS, error)),
        }
    }

    /// An entry.
    pub(super) fn get(&self, key: &FlowKey) -> Result<Option<FlowValue>, EbpfError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(EbpfError::map(map_names::FLOWS, error)),
        }
    }

    /// Removes an entry, if it is there.
    pub(super) fn remove(&mut self, key: &FlowKey) -> Result<(), EbpfError> {
        gone(map_names::FLOWS, self.map.remove(key))
    }

    /// Hands over every entry.
    pub(super) fn walk(&self, show: impl FnMut(&FlowKey, &FlowValue)) -> Result<(), EbpfError> {
        switchyard_kernel::entries(self.descriptor.as_fd(), show)
            .map_err(EbpfError::system(format!("reading {}", map_names::FLOWS)))
    }
}

fn is_there_or_full(error: &std::io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EEXIST | Errno::E2BIG))
}

impl Seen {
    fn add(&mut self, key: &FlowKey, value: &FlowValue) {
        self.last_ns = self.last_ns.max(value.seen_ns);
        self.protocol = key.protocol;
        let there = flow_flags::REQUEST | flow_flags::MASQUERADE;
        if value.flags & there != 0 {
            self.there |= value.flags;
        } else {
            self.back |= value.flags;
        }
    }

    fn is_over(&self, now_ns: u64, timeouts: &ConntrackTimeouts, pressure: Pressure) -> bool {
        let idle = Duration::from_nanos(now_ns.saturating_sub(self.last_ns));
        let spare_after = match pressure {
            Pressure::None => Duration::MAX,
            Pressure::Draining if self.is_closed() => CLOSED_WHILE_DRAINING,
            Pressure::Room | Pressure::Draining => UNDER_PRESSURE,
        };
        let is_spare = !self.lasts() && idle > spare_after;
        self.is_stale || is_spare || idle > self.limit(timeouts)
    }

    /// Whether somebody may come back to it: it was answered, and is neither closed nor one
    /// question with its answer.
    const fn lasts(&self) -> bool {
        self.back & flow_flags::STREAM != 0 && !self.is_closed()
    }

    const fn is_closed(&self) -> bool {
        let any = self.there | self.back;
        any & (flow_flags::RST | flow_flags::REFUSED) != 0
            || self.there & self.back & flow_flags::FIN != 0
    }

    /// A TCP connection that was answered, and closed by nobody.
    const fn is_connected(&self) -> bool {
        let ended = flow_flags::FIN | flow_flags::RST | flow_flags::REFUSED;
        self.protocol == TCP
            && self.back & flow_flags::STREAM != 0
            && (self.there | self.back) & ended == 0
    }

    fn limit(&self, timeouts: &ConntrackTimeouts) -> Duration {
        let either = |set: Duration, default| if set.is_zero() { default } else { set };
        let any = self.there | self.back;
        let both = self.there & self.back;
        if any & flow_flags::REFUSED != 0 {
            return REFUSED;
        }
        let is_answered = self.back & flow_flags::STREAM != 0;
        if self.protocol != TCP {
            return if is_answered {
                either(timeouts.udp_stream, UDP_STREAM)
            } else {
                either(timeouts.udp, UNANSWERED_UDP)
            };
        }
        if any & flow_flags::RST != 0 || both & flow_flags::FIN != 0 {
            CLOSED
        } else if any & flow_flags::FIN != 0 {
            either(timeouts.tcp_close_wait, TCP_CLOSE_WAIT)
        } else if is_answered {
            either(timeouts.tcp_established, TCP_ESTABLISHED)
        } else {
            UNANSWERED_TCP
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_lives_as_long_as_its_state_says() {
        use flow_flags::{FIN, REFUSED, REPLY, REQUEST, RST, STREAM};
        let none = ConntrackTimeouts::default();
        for (protocol, there, back, seconds) in [
            (TCP, REQUEST, REPLY, 60),
            (TCP, REQUEST | STREAM, REPLY, 60),
            (TCP, REQUEST | STREAM, REPLY | STREAM, 24 * 3600),
            (TCP, REQUEST | STREAM | FIN, REPLY | STREAM, 3600),
            (TCP, REQUEST | STREAM | FIN, REPLY | STREAM | FIN, 10),
            (TCP, REQUEST | STREAM, REPLY | RST, 10),
            (UDP, REQUEST | STREAM, REPLY, 30),
            (UDP, REQUEST, REPLY | STREAM, 120),
            (UDP, REQUEST | REFUSED, REPLY | REFUSED, 5),
        ] {
            let seen = Seen {
                last_ns: 7,
                there,
                back,
                protocol,
                vip: Address::ANY,
                is_stale: false,
            };
            let limit_ns = seconds * 1_000_000_000;
            assert!(
                !seen.is_over(7 + limit_ns, &none, Pressure::None),
                "{seen:?}"
            );
            assert!(
                seen.is_over(8 + limit_ns, &none, Pressure::None),
                "{seen:?}"
            );
            let two_seconds = 2_000_000_000;
            let lasts = seen.back & STREAM != 0
                && (there | back) & (RST | REFUSED) == 0
                && there & back & FIN == 0;
            for pressure in [Pressure::Room, Pressure::Draining] {
                let is_over = seen.is_over(7 + two_seconds, &none, pressure);
                assert_eq!(is_over, !lasts, "{seen:?}");
            }
            let is_closed = !lasts && back & STREAM != 0 || (there | back) & (RST | REFUSED) != 0;
            let soon = 7 + 300_000_000;
            assert!(!seen.is_over(soon, &none, Pressure::Room), "{seen:?}");
            let is_over = seen.is_over(soon, &none, Pressure::Draining);
            assert_eq!(is_over, is_closed, "{seen:?}");
        }
    }
}
