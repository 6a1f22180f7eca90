//! What is counted about each upstream, under CoreDNS' names.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

use super::question::Ignored;
use crate::metrics::registry;

/// The value of the label `proxy_name`.
const PROXY_NAME: &str = "forward";
/// The upper bounds of the duration's buckets, in seconds: 0.25 ms and doubled 15 times.
const DURATION_BUCKETS: usize = 16;
const DURATION_FIRST_BUCKET_SECONDS: f64 = 0.000_25;

/// The rcodes that upstreams send, at their numbers; others are named by number.
const RCODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE",
];

/// The families that all upstreams share.
#[derive(Debug)]
struct Families {
    duration: HistogramVec,
    healthcheck_failures: IntCounterVec,
    cache_hits: IntCounterVec,
    cache_misses: IntCounterVec,
    ignored: IntCounterVec,
}

impl Families {
    /// The one set of this process. An error is a name that another family has: a mistake in the code.
    fn get() -> Result<&'static Self, prometheus::Error> {
        static FAMILIES: OnceLock<Families> = OnceLock::new();
        if let Some(families) = FAMILIES.get() {
            return Ok(families);
        }
        let families = Self::new()?;
        if FAMILIES.set(families).is_ok()
            && let Some(families) = FAMILIES.get()
        {
            families.register()?;
        }
        FAMILIES.get().ok_or(prometheus::Error::AlreadyReg)
    }

    fn new() -> Result<Self, prometheus::Error> {
        let counter =
            |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        Ok(Self {
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "coredns_proxy_request_duration_seconds",
                    "How long a request took that an upstream answered.",
                )
                .buckets(prometheus::exponential_buckets(
                    DURATION_FIRST_BUCKET_SECONDS,
                    2.0,
                    DURATION_BUCKETS,
                )?),
                &["proxy_name", "to", "rcode"],
            )?,
            healthcheck_failures: counter(
                "coredns_proxy_healthcheck_failures_total",
                "Health checks that an upstream did not answer.",
                &["proxy_name", "to"],
            )?,
            cache_hits: counter(
                "coredns_proxy_conn_cache_hits_total",
                "Requests sent over a socket that was already open.",
                &["proxy_name", "to", "proto"],
            )?,
            cache_misses: counter(
                "coredns_proxy_conn_cache_misses_total",
                "Requests that a socket was opened for.",
                &["proxy_name", "to", "proto"],
            )?,
            ignored: counter(
                "switchyard_dns_forward_replies_ignored_total",
                "Messages from an upstream that answer no query that waits for it.",
                &["to", "reason"],
            )?,
        })
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let registry = registry();
        registry.register(Box::new(self.duration.clone()))?;
        registry.register(Box::new(self.healthcheck_failures.clone()))?;
        registry.register(Box::new(self.cache_hits.clone()))?;
        registry.register(Box::new(self.cache_misses.clone()))?;
        registry.register(Box::new(self.ignored.clone()))
    }
}

/// Sockets found open and sockets opened, for one transport.
#[derive(Debug)]
pub(super) struct SocketCache {
    pub(super) hits: IntCounter,
    pub(super) misses: IntCounter,
}

/// One upstream's counters, found by their labels once.
#[derive(Debug)]
pub(super) struct UpstreamMetrics {
    to: Box<str>,
    families: &'static Families,
    by_rcode: [OnceLock<Histogram>; RCODES.len()],
    pub(super) healthcheck_failures: IntCounter,
    pub(super) udp: SocketCache,
    pub(super) tcp: SocketCache,
    pub(super) tls: SocketCache,
}

impl UpstreamMetrics {
    /// `to` is the upstream's address and port.
    pub(super) fn new(to: &str) -> Result<Arc<Self>, prometheus::Error> {
        let families = Families::get()?;
        let cache = |proto| SocketCache {
            hits: families
                .cache_hits
                .with_label_values(&[PROXY_NAME, to, proto]),
            misses: families
                .cache_misses
                .with_label_values(&[PROXY_NAME, to, proto]),
        };
        Ok(Arc::new(Self {
            to: to.into(),
            families,
            by_rcode: Default::default(),
            healthcheck_failures: families
                .healthcheck_failures
                .with_label_values(&[PROXY_NAME, to]),
            udp: cache("udp"),
            tcp: cache("tcp"),
            tls: cache("tcp-tls"),
        }))
    }

    /// Records a reply with this rcode (its four bits in the header).
    pub(super) fn observe(&self, rcode: u8, took: Duration) {
        let rcode = usize::from(rcode);
        match (self.by_rcode.get(rcode), RCODES.get(rcode)) {
            (Some(known), Some(name)) => {
                known
                    .get_or_init(|| self.duration(name))
                    .observe(took.as_secs_f64());
            }
            _ => self
                .duration(&rcode.to_string())
                .observe(took.as_secs_f64()),
        }
    }

    fn duration(&self, rcode: &str) -> Histogram {
        self.families
            .duration
            .with_label_values(&[PROXY_NAME, &self.to, rcode])
    }

    /// Counts a message that answers no waiting query.
    pub(super) fn count_ignored(&self, reason: Ignored) {
        self.families
            .ignored
            .with_label_values(&[&*self.to, reason.label()])
            .inc();
    }
}
