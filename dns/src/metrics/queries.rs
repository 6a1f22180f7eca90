//! What is counted for every query: a cell for each thread, summed when somebody asks.
//!
//! A thread that finishes a query adds to cells that no other thread writes: a load and a
//! store each, no lock and no locked instruction. When a thread ends, the next one goes on
//! with its cells, so that nothing is lost and nothing grows.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::sample::{Family, float};
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

const REQUESTS: Family = Family {
    name: "coredns_dns_requests_total",
    help: "Queries.",
    labels: &["server", "zone", "view", "proto", "family", "type"],
    metric_type: MetricType::COUNTER,
};
const DURATION: Family = Family {
    name: "coredns_dns_request_duration_seconds",
    help: "From a query's arrival until its reply was sent.",
    labels: &["server", "zone", "view"],
    metric_type: MetricType::HISTOGRAM,
};
const REQUEST_SIZE: Family = Family {
    name: "coredns_dns_request_size_bytes",
    help: "Size of queries as they came.",
    labels: &["server", "zone", "view", "proto"],
    metric_type: MetricType::HISTOGRAM,
};
const RESPONSE_SIZE: Family = Family {
    name: "coredns_dns_response_size_bytes",
    help: "Size of replies.",
    labels: &["server", "zone", "view", "proto"],
    metric_type: MetricType::HISTOGRAM,
};
const DO_REQUESTS: Family = Family {
    name: "coredns_dns_do_requests_total",
    help: "Queries with the DO bit.",
    labels: &["server", "zone", "view"],
    metric_type: MetricType::COUNTER,
};
const RESPONSES: Family = Family {
    name: "coredns_dns_responses_total",
    help: "Replies, by code and by the plugin that answered; it is empty where the server did.",
    labels: &["server", "zone", "view", "rcode", "plugin"],
    metric_type: MetricType::COUNTER,
};

/// Sums up at each scrape.
pub(super) struct QueryCollector(Vec<Desc>);

impl QueryCollector {
    pub(super) fn new() -> Self {
        Self(Family::descs(&[
            &REQUESTS,
            &DURATION,
            &REQUEST_SIZE,
            &RESPONSE_SIZE,
            &DO_REQUESTS,
            &RESPONSES,
        ]))
    }
}

impl Collector for QueryCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &*all;
        vec![
            REQUESTS.with(all.iter().flat_map(requests).collect()),
            DURATION.with(all.iter().filter_map(durations).collect()),
            REQUEST_SIZE.with(
                all.iter()
                    .flat_map(|series| sizes(series, &REQUEST_SIZE, |shard| &shard.request_sizes))
                    .collect(),
            ),
            RESPONSE_SIZE.with(
                all.iter()
                    .flat_map(|series| sizes(series, &RESPONSE_SIZE, |shard| &shard.response_sizes))
                    .collect(),
            ),
            DO_REQUESTS.with(all.iter().filter_map(do_requests).collect()),
            RESPONSES.with(all.iter().flat_map(responses).collect()),
        ]
    }
}

impl Series {
    fn sum(&self, cell: impl Fn(&Shard) -> Option<&Cell>) -> u64 {
        let cells = self.shards.iter().filter_map(|shard| cell(shard));
        cells.map(Cell::get).sum()
    }

    /// The cells of a histogram and its sum, over all threads; `None` if nothing was
    /// observed.
    fn histogram<const N: usize>(
        &self,
        of: impl Fn(&Shard) -> Option<&Histogram<N>>,
    ) -> Option<(Vec<u64>, u64)> {
        let count = |index: usize| self.sum(|shard| of(shard)?.counts.get(index));
        let counts: Vec<_> = (0..N).map(count).collect();
        let sum = self.sum(|shard| Some(&of(shard)?.sum));
        counts
            .iter()
            .any(|count| *count > 0)
            .then_some((counts, sum))
    }
}

fn requests(series: &Series) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for (proto, proto_label) in PROTOS.iter().enumerate() {
        for (family, family_label) in FAMILIES.iter().enumerate() {
            for index in 0..=TYPES.len() {
                let rtype = TYPES.get(index).and_then(|rtype| rtype.mnemonic());
                let rtype = rtype.unwrap_or(OTHER_TYPE);
                let cell = |shard: &Shard| shard.requests[proto][family][index].get();
                let count: u64 = series.shards.iter().map(|shard| cell(shard)).sum();
                if count > 0 {
                    let (server, zone) = (&*series.server, &*series.zone);
                    let labels = [server, zone, "", proto_label, family_label, rtype];
                    metrics.push(REQUESTS.counter(&labels, float(count)));
                }
            }
        }
    }
    metrics
}

fn durations(series: &Series) -> Option<Metric> {
    const NS_PER_S: f64 = 1e9;
    let (counts, sum) = series.histogram(|shard| Some(&shard.durations))?;
    let bounds = DURATION_BOUNDS_NS.map(|bound| float(bound) / NS_PER_S);
    let labels = [&*series.server, &*series.zone, ""];
    Some(DURATION.histogram(&labels, &bounds, &counts, float(sum) / NS_PER_S))
}

fn sizes(
    series: &Series,
    family: &Family,
    of: impl Fn(&Shard) -> &[Histogram<15>; 2],
) -> Vec<Metric> {
    let metric = |(proto, label): (usize, &&str)| {
        let (counts, sum) = series.histogram(|shard| of(shard).get(proto))?;
        let labels = [&*series.server, &*series.zone, "", label];
        Some(family.histogram(&labels, &SIZE_BOUNDS.map(float), &counts, float(sum)))
    };
    PROTOS.iter().enumerate().filter_map(metric).collect()
}

fn do_requests(series: &Series) -> Option<Metric> {
    let count = series.sum(|shard| Some(&shard.dnssec_ok));
    let labels = [&*series.server, &*series.zone, ""];
    (count > 0).then(|| DO_REQUESTS.counter(&labels, float(count)))
}

/// Shards may know the plugins in different orders: sum by name.
fn responses(series: &Series) -> Vec<Metric> {
    let mut sums = std::collections::BTreeMap::<(&str, &str), u64>::new();
    for responses in series.shards.iter().flat_map(|shard| &shard.responses) {
        let Some(plugin) = responses.plugin.get() else {
            continue;
        };
        for (index, cell) in responses.by_rcode.iter().enumerate() {
            let rcode = RCODES.get(index).and_then(|rcode| rcode.mnemonic());
            *sums
                .entry((rcode.unwrap_or(OTHER_RCODE), plugin))
                .or_default() += cell.get();
        }
    }
    let counted = sums.into_iter().filter(|(_, count)| *count > 0);
    let metric = |((rcode, plugin), count)| {
        let labels = [&*series.server, &*series.zone, "", rcode, plugin];
        RESPONSES.counter(&labels, float(count))
    };
    counted.map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::registry;
    use crate::wire::{Intake, Request};

    const QUERY: &[u8] =
        b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x1C\x00\x01";

    fn answered(by: &'static str, rcode: Rcode) -> Exchange {
        let mut exchange = Exchange::default();
        assert_eq!(exchange.request.read(QUERY), Intake::Query);
        exchange.begin();
        exchange.answer().rcode = rcode;
        exchange.answered_by = by;
        let request: &Request = &exchange.request;
        exchange.reply.finish(request, 512);
        exchange
    }

    #[test]
    fn threads_count_apart_and_are_summed() {
        let id = series(&"dns://:1".into(), &"threads.test.".into());
        let work = move || {
            for _ in 0..1000 {
                count(id, &answered("kubernetes", Rcode::NOERROR), true);
                count(id, &answered("", Rcode::SERVFAIL), true);
                count(id, &answered("", Rcode::NOERROR), false);
                observe_duration(id, Duration::from_micros(300));
            }
        };
        // Twice, so that the second two go on where the first two have ended.
        for _ in 0..2 {
            let threads = [std::thread::spawn(work), std::thread::spawn(work)];
            for thread in threads {
                thread.join().expect("it does not panic");
            }
        }
        let text = registry().render().expect("it can be written");
        let zone = "server=\"dns://:1\",view=\"\",zone=\"threads.test.\"";
        let proto = "proto=\"udp\"";
        for line in [
            format!(
                "coredns_dns_requests_total{{family=\"1\",{proto},server=\"dns://:1\",type=\"AAAA\",view=\"\",zone=\"threads.test.\"}} 12000\n"
            ),
            format!(
                "coredns_dns_responses_total{{plugin=\"kubernetes\",rcode=\"NOERROR\",{zone}}} 4000\n"
            ),
            format!("coredns_dns_responses_total{{plugin=\"\",rcode=\"SERVFAIL\",{zone}}} 4000\n"),
            format!("coredns_dns_request_duration_seconds_bucket{{{zone},le=\"0.00025\"}} 0\n"),
            format!("coredns_dns_request_duration_seconds_bucket{{{zone},le=\"0.0005\"}} 4000\n"),
            format!("coredns_dns_request_duration_seconds_count{{{zone}}} 4000\n"),
            format!("coredns_dns_request_duration_seconds_sum{{{zone}}} 1.2\n"),
            format!(
                "coredns_dns_request_size_bytes_sum{{{proto},{zone}}} {}\n",
                12_000 * QUERY.len()
            ),
            format!("coredns_dns_response_size_bytes_bucket{{{proto},{zone},le=\"100\"}} 8000\n"),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        assert!(!text.contains("coredns_dns_responses_total{plugin=\"\",rcode=\"NOERROR\""));
        let shards = ALL.lock().expect("no test panics with it")[id.0]
            .shards
            .len();
        assert!(shards <= 2, "{shards} shards for two threads at a time");
    }

    #[test]
    fn series_are_the_same_for_the_same_labels() {
        let one = series(&"dns://:2".into(), &"a.".into());
        assert_eq!(series(&"dns://:2".into(), &"a.".into()), one);
        assert_ne!(series(&"dns://:2".into(), &"b.".into()), one);
    }
}
