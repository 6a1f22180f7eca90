//! Rare events without labels, counted by whoever notices them.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::sample::{Family, float};

/// A counter in a static.
#[derive(Debug)]
pub struct Count {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Count {
    const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            value: AtomicU64::new(0),
        }
    }

    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Several more.
    pub fn add(&self, number: u64) {
        self.value.fetch_add(number, Ordering::Relaxed);
    }

    /// How many by now.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    const fn family(&self) -> Family {
        Family {
            name: self.name,
            help: self.help,
            labels: &[],
            metric_type: MetricType::COUNTER,
        }
    }
}

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident = $metric:literal;)+) => {
        $(
            $(#[doc = $doc])+
            pub static $name: Count = Count::new($metric, concat!($($doc),+).trim_ascii());
        )+
        const ALL: &[&Count] = &[$(&$name),+];
    };
}

counts! {
    /// Panics in answering a query, which was then answered with SERVFAIL.
    PANICS = "coredns_panics_total";
    /// Reloads that left the old configuration in force.
    RELOADS_FAILED = "coredns_reload_failed_total";
    /// Self-checks of /health that failed.
    HEALTH_REQUEST_FAILURES = "coredns_health_request_failures_total";
    /// Queries dropped because as many as may were already waiting for an upstream.
    QUERIES_SHED = "switchyard_dns_queries_shed_total";
    /// UDP replies that the kernel did not take.
    REPLIES_NOT_SENT = "switchyard_dns_replies_not_sent_total";
    /// TCP and TLS connections closed at once because a listener had as many as it may.
    CONNECTIONS_REFUSED = "switchyard_dns_connections_refused_total";
    /// HTTP connections closed at once because an endpoint had as many as it may.
    HTTP_REFUSED = "switchyard_dns_http_refused_total";
}

pub(super) struct CountCollector(Vec<Desc>);

impl CountCollector {
    pub(super) fn new() -> Self {
        let families: Vec<_> = ALL.iter().map(|count| count.family()).collect();
        Self(Family::descs(&families.iter().collect::<Vec<_>>()))
    }
}

impl Collector for CountCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let family = |count: &&Count| {
            let family = count.family();
            family.with(vec![family.counter(&[], float(count.get()))])
        };
        ALL.iter().map(family).collect()
    }
}
