//! How long changes take to be answered.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{HistogramOpts, HistogramVec};
use switchyard_cluster::object::ObjectName;
use switchyard_cluster::store::Store;

use crate::metrics::registry;

/// From 1 ms, doubled 19 times.
const BUCKETS: usize = 20;
const FIRST_BUCKET_S: f64 = 0.001;

/// Values of the label.
const KINDS: [&str; 2] = ["cluster_ip", "headless_with_selector"];

/// `coredns_kubernetes_dns_programming_duration_seconds`; `None` if the code has it wrong.
pub(super) fn programming_duration() -> Option<&'static HistogramVec> {
    static HISTOGRAM: OnceLock<Option<HistogramVec>> = OnceLock::new();
    let make = || {
        let buckets = prometheus::exponential_buckets(FIRST_BUCKET_S, 2.0, BUCKETS).ok()?;
        let options = HistogramOpts::new(
            "coredns_kubernetes_dns_programming_duration_seconds",
            "Time from a change of endpoints in the cluster until it is answered.",
        );
        let histogram = HistogramVec::new(options.buckets(buckets), &["service_kind"]).ok()?;
        for kind in KINDS {
            // So that it is there before anything was observed.
            let _zero = histogram.with_label_values(&[kind]);
        }
        if let Err(error) = registry().register(Box::new(histogram.clone())) {
            tracing::error!(%error, "how long changes take is not counted");
        }
        Some(histogram)
    };
    HISTOGRAM.get_or_init(make).as_ref()
}

/// A change of a Service's endpoints that happened then is answered now.
pub(super) fn programmed(store: &Store, service: &ObjectName, trigger_unix_ns: i64) {
    let (Some(histogram), Some(service)) = (programming_duration(), store.service(service)) else {
        return;
    };
    let [cluster_ip, headless] = KINDS;
    let kind = if service.headless {
        headless
    } else {
        cluster_ip
    };
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
        return;
    };
    let trigger = std::time::Duration::from_nanos(u64::try_from(trigger_unix_ns).unwrap_or(0));
    let took = now.saturating_sub(trigger);
    histogram
        .with_label_values(&[kind])
        .observe(took.as_secs_f64());
}
