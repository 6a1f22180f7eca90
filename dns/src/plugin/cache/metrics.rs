//! `coredns_cache_*`. Each shard counts under its lock; whoever asks for the metrics adds up.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::store::Store;
use crate::metrics::registry;

/// Every cache there is.
#[derive(Clone, Debug, Default)]
struct Stores {
    stores: Arc<Mutex<Vec<Weak<Store>>>>,
    /// The families as they are without series: their descriptions.
    empty: Option<Arc<Families>>,
}

#[derive(Debug)]
struct Families {
    gauges: [IntGaugeVec; 2],
    counters: [IntCounterVec; 8],
}

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        let by_type = ["server", "type", "zones", "view"];
        let plain = ["server", "zones", "view"];
        let gauge = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let counter =
            |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        Ok(Self {
            gauges: [
                gauge("coredns_cache_entries", "Replies kept.", &by_type)?,
                gauge(
                    "switchyard_dns_cache_octets",
                    "Memory that the kept replies take.",
                    &plain,
                )?,
            ],
            counters: [
                counter(
                    "coredns_cache_hits_total",
                    "Queries answered by a kept reply.",
                    &by_type,
                )?,
                counter(
                    "coredns_cache_evictions_total",
                    "Replies thrown out for others.",
                    &by_type,
                )?,
                counter(
                    "coredns_cache_requests_total",
                    "Queries for the cache's zones.",
                    &plain,
                )?,
                counter(
                    "coredns_cache_misses_total",
                    "Queries that no kept reply answered.",
                    &plain,
                )?,
                counter(
                    "coredns_cache_prefetch_total",
                    "Kept replies asked for again in the background.",
                    &plain,
                )?,
                counter(
                    "coredns_cache_drops_total",
                    "Replies not kept because they can't be read.",
                    &plain,
                )?,
                counter(
                    "coredns_cache_served_stale_total",
                    "Queries answered by a reply past its time.",
                    &plain,
                )?,
                counter(
                    "switchyard_dns_cache_refreshes_skipped_total",
                    "Kept replies not asked for again because too many were at that time.",
                    &plain,
                )?,
            ],
        })
    }

    fn add(&self, store: &Store) {
        let counts = store.counts();
        let [server, zones] = &store.labels;
        let by_type = |kind| [server.as_str(), kind, zones.as_str(), ""];
        let plain = [server.as_str(), zones.as_str(), ""];
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let [entries, octets] = &self.gauges;
        for (kind, number) in [
            ("success", counts.success_entries),
            ("denial", counts.denial_entries),
        ] {
            entries.with_label_values(&by_type(kind)).add(gauge(number));
        }
        octets.with_label_values(&plain).add(gauge(counts.octets));
        let [hits, evictions, others @ ..] = &self.counters;
        for (kind, hit, evicted) in [
            ("success", counts.success_hits, counts.success_evictions),
            ("denial", counts.denial_hits, counts.denial_evictions),
        ] {
            hits.with_label_values(&by_type(kind)).inc_by(hit);
            evictions.with_label_values(&by_type(kind)).inc_by(evicted);
        }
        let hit = counts.success_hits + counts.denial_hits;
        let skipped = &store.refreshes_skipped;
        let numbers = [
            counts.requests,
            counts.requests.saturating_sub(hit),
            counts.prefetches,
            counts.drops,
            counts.served_stale,
            skipped.load(std::sync::atomic::Ordering::Relaxed),
        ];
        for (family, number) in others.iter().zip(numbers) {
            family.with_label_values(&plain).inc_by(number);
        }
    }
}

impl Collector for Stores {
    fn desc(&self) -> Vec<&Desc> {
        let families = self.empty.iter();
        let descriptions = families.flat_map(|families| {
            let gauges = families.gauges.iter().flat_map(Collector::desc);
            gauges.chain(families.counters.iter().flat_map(Collector::desc))
        });
        descriptions.collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = Families::new() else {
            return Vec::new();
        };
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|store| {
            store
                .upgrade()
                .inspect(|store| families.add(store))
                .is_some()
        });
        let gauges = families.gauges.iter().flat_map(Collector::collect);
        let counters = families.counters.iter().flat_map(Collector::collect);
        gauges.chain(counters).collect()
    }
}

/// Has the metrics tell of this cache for as long as it is there.
pub(super) fn follow(store: &Arc<Store>) {
    static STORES: OnceLock<Stores> = OnceLock::new();
    let stores = STORES.get_or_init(|| {
        let stores = Stores {
            stores: Arc::default(),
            empty: Families::new().ok().map(Arc::new),
        };
        if let Err(error) = registry().register(Box::new(stores.clone())) {
            tracing::error!(%error, "the metrics of `cache` can't be served");
        }
        stores
    });
    let mut stores = stores.stores.lock().unwrap_or_else(PoisonError::into_inner);
    let store = Arc::downgrade(store);
    if !stores.iter().any(|known| known.ptr_eq(&store)) {
        stores.push(store);
    }
}
