//! What is counted about forwarding as a whole, under CoreDNS' names.

use std::sync::OnceLock;

use prometheus::IntCounter;

use crate::metrics::registry;

/// The counters that all `forward` lines share.
#[derive(Debug)]
pub(super) struct ForwardMetrics {
    /// Queries for which all upstreams were down.
    pub(super) healthcheck_broken: IntCounter,
    /// Queries refused because of `max_concurrent`.
    pub(super) max_concurrent_rejects: IntCounter,
}

impl ForwardMetrics {
    /// The one set of this process. An error is a name that another metric has: a mistake in
    /// the code.
    pub(super) fn get() -> Result<&'static Self, prometheus::Error> {
        static METRICS: OnceLock<ForwardMetrics> = OnceLock::new();
        if let Some(metrics) = METRICS.get() {
            return Ok(metrics);
        }
        let metrics = Self {
            healthcheck_broken: IntCounter::new(
                "coredns_forward_healthcheck_broken_total",
                "Requests for which all upstreams were down, so that any was asked or none.",
            )?,
            max_concurrent_rejects: IntCounter::new(
                "coredns_forward_max_concurrent_rejects_total",
                "Requests refused because as many as may were waiting already.",
            )?,
        };
        if METRICS.set(metrics).is_ok()
            && let Some(metrics) = METRICS.get()
        {
            registry().register(Box::new(metrics.healthcheck_broken.clone()))?;
            registry().register(Box::new(metrics.max_concurrent_rejects.clone()))?;
        }
        METRICS.get().ok_or(prometheus::Error::AlreadyReg)
    }
}
