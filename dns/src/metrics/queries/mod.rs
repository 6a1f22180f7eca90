//! What is counted for every query: a cell for each thread, summed when somebody asks.
//!
//! A thread that finishes a query adds to cells that no other thread writes: a load and a
//! store each, no lock and no locked instruction. When a thread ends, the next one goes on
//! with its cells, so that nothing is lost and nothing grows.

mod collector;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub(super) use collector::QueryCollector;

use crate::plugin::Exchange;
use crate::wire::{Rcode, Rtype, Transport};

/// Seconds: 0.25 ms and doubled 15 times.
const DURATION_BOUNDS_NS: [u64; 16] = {
    let mut bounds = [250_000; 16];
    let mut index = 1;
    while index < bounds.len() {
        bounds[index] = bounds[index - 1] * 2;
        index += 1;
    }
    bounds
};
/// Octets of messages.
const SIZE_BOUNDS: [u64; 14] = [
    0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000,
];
/// Label `zone` of what no server block answers for.
pub(crate) const DROPPED: &str = "dropped";
/// The types that have a cell, frequent ones first; all others share the last one.
const TYPES: [Rtype; 18] = [
    Rtype::A,
    Rtype::AAAA,
    Rtype::SRV,
    Rtype::PTR,
    Rtype::MX,
    Rtype::SOA,
    Rtype::CNAME,
    Rtype::TXT,
    Rtype::NS,
    Rtype::DS,
    Rtype::DNSKEY,
    Rtype::RRSIG,
    Rtype::NSEC,
    Rtype::NSEC3,
    Rtype::HTTPS,
    Rtype::IXFR,
    Rtype::AXFR,
    Rtype::ANY,
];
const OTHER_TYPE: &str = "other";
/// The codes that have a cell; all others share the last one.
const RCODES: [Rcode; 13] = [
    Rcode::NOERROR,
    Rcode::FORMERR,
    Rcode::SERVFAIL,
    Rcode::NXDOMAIN,
    Rcode::NOTIMP,
    Rcode::REFUSED,
    Rcode::YXDOMAIN,
    Rcode::YXRRSET,
    Rcode::NXRRSET,
    Rcode::NOTAUTH,
    Rcode::NOTZONE,
    Rcode::BADVERS,
    Rcode::BADCOOKIE,
];
const OTHER_RCODE: &str = "other";
/// Plugins of one server block that answer; should there be more, they share the last cell.
const ANSWERING_PLUGINS_CAPACITY: usize = 24;
const PROTOS: [&str; 2] = ["udp", "tcp"];
const FAMILIES: [&str; 2] = ["1", "2"];

/// One zone of one listener, of those that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesId(usize);

#[derive(Debug)]
struct Series {
    server: Arc<str>,
    zone: Arc<str>,
    /// One for each thread that has ever counted at the same time as the others.
    shards: Vec<Arc<Shard>>,
    /// Those whose threads have ended.
    free: Vec<Arc<Shard>>,
}

static ALL: Mutex<Vec<Series>> = Mutex::new(Vec::new());

thread_local! {
    static LOCAL: RefCell<Local> = const { RefCell::new(Local(Vec::new())) };
}

/// A thread's shards, by series.
struct Local(Vec<Option<Arc<Shard>>>);

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// By protocol, family, type.
    requests: [[[Cell; TYPES.len() + 1]; 2]; 2],
    dnssec_ok: Cell,
    /// In nanoseconds.
    durations: Histogram<17>,
    request_sizes: [Histogram<15>; 2],
    response_sizes: [Histogram<15>; 2],
    responses: [Responses; ANSWERING_PLUGINS_CAPACITY],
}

/// Written by one thread only.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

#[derive(Debug)]
struct Histogram<const N: usize> {
    counts: [Cell; N],
    sum: Cell,
}

#[derive(Debug, Default)]
struct Responses {
    plugin: OnceLock<&'static str>,
    by_rcode: [Cell; RCODES.len() + 1],
}

impl Cell {
    fn add(&self, number: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(number), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| Cell::default()),
            sum: Cell::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    fn observe(&self, bounds: &[u64], value: u64) {
        let bucket = bounds.iter().position(|bound| value <= *bound);
        if let Some(count) = self.counts.get(bucket.unwrap_or(bounds.len())) {
            count.add(1);
        }
        self.sum.add(value);
    }
}

/// The series of these labels; the same for the same ones.
pub(crate) fn series(server: &Arc<str>, zone: &Arc<str>) -> SeriesId {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let known = all
        .iter()
        .position(|series| series.server == *server && series.zone == *zone);
    SeriesId(known.unwrap_or_else(|| {
        all.push(Series {
            server: Arc::clone(server),
            zone: Arc::clone(zone),
            shards: Vec::new(),
            free: Vec::new(),
        });
        all.len() - 1
    }))
}

/// Counts a query that is finished, and its reply if there is one; not its duration.
pub(crate) fn count(series: SeriesId, exchange: &Exchange, replied: bool) {
    with_shard(series, |shard| shard.count(exchange, replied));
}

/// How long a query took from its arrival.
pub(crate) fn observe_duration(series: SeriesId, took: Duration) {
    let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    with_shard(series, |shard| {
        shard.durations.observe(&DURATION_BOUNDS_NS, nanoseconds);
    });
}

fn with_shard(series: SeriesId, act: impl FnOnce(&Shard)) {
    // Fails only while the thread is ending; nothing is answered then.
    let _counted = LOCAL.try_with(|local| {
        let mut local = local.borrow_mut();
        if let Some(shard) = local.shard(series) {
            act(shard);
        }
    });
}

impl Local {
    fn shard(&mut self, SeriesId(index): SeriesId) -> Option<&Shard> {
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        let place = self.0.get_mut(index)?;
        if place.is_none() {
            let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
            let series = all.get_mut(index)?;
            let shard = series.free.pop().unwrap_or_else(|| {
                let new = Arc::<Shard>::default();
                series.shards.push(Arc::clone(&new));
                new
            });
            *place = Some(shard);
        }
        place.as_deref()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        for (series, shard) in all.iter_mut().zip(self.0.drain(..)) {
            series.free.extend(shard);
        }
    }
}

impl Shard {
    fn count(&self, exchange: &Exchange, replied: bool) {
        let request = &exchange.request;
        let proto = usize::from(request.transport != Transport::Udp);
        let family = usize::from(request.source.is_ipv6());
        let rtype = request.readable_question().map(|question| question.rtype);
        let of_family = self.requests.get(proto).and_then(|all| all.get(family));
        if let Some(cell) = of_family.and_then(|all| all.get(type_index(rtype))) {
            cell.add(1);
        }
        if request.dnssec_ok() {
            self.dnssec_ok.add(1);
        }
        let observe = |sizes: &[Histogram<15>; 2], octets: usize| {
            if let (Some(sizes), Ok(octets)) = (sizes.get(proto), u64::try_from(octets)) {
                sizes.observe(&SIZE_BOUNDS, octets);
            }
        };
        observe(&self.request_sizes, request.octets().len());
        if replied {
            observe(&self.response_sizes, exchange.reply.octets().len());
            self.count_response(exchange.answered_by, exchange.reply.rcode);
        }
    }

    fn count_response(&self, plugin: &'static str, rcode: Rcode) {
        let own = |responses: &&Responses| {
            let name = *responses.plugin.get_or_init(|| plugin);
            std::ptr::eq(name, plugin) || name == plugin
        };
        let responses = self.responses.iter().find(own);
        let Some(responses) = responses.or(self.responses.last()) else {
            return;
        };
        let index = RCODES.iter().position(|known| *known == rcode);
        if let Some(cell) = responses.by_rcode.get(index.unwrap_or(RCODES.len())) {
            cell.add(1);
        }
    }
}

fn type_index(rtype: Option<Rtype>) -> usize {
    let known = TYPES.iter().position(|known| rtype == Some(*known));
    known.unwrap_or(TYPES.len())
}
