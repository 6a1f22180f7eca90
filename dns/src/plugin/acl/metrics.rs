use std::sync::{Arc, LazyLock};

use prometheus::IntCounterVec;

use super::config::Action;
use crate::plugin::counter_vec;

type Family = LazyLock<Option<IntCounterVec>>;

const LABELS: [&str; 3] = ["server", "zone", "view"];

static BLOCKED: Family = LazyLock::new(|| {
    let help = "Queries refused.";
    counter_vec("coredns_acl_blocked_requests_total", help, &LABELS)
});
static FILTERED: Family = LazyLock::new(|| {
    let help = "Queries that got an empty answer.";
    counter_vec("coredns_acl_filtered_requests_total", help, &LABELS)
});
static DROPPED: Family = LazyLock::new(|| {
    let help = "Queries that got no reply.";
    counter_vec("coredns_acl_dropped_requests_total", help, &LABELS)
});
static ALLOWED: Family = LazyLock::new(|| {
    let help = "Queries that went on.";
    counter_vec(
        "coredns_acl_allowed_requests_total",
        help,
        &["server", "view"],
    )
});

/// Counters of one server block.
#[derive(Debug)]
pub(super) struct Metrics {
    server: Arc<str>,
    allowed: Option<prometheus::IntCounter>,
}

impl Metrics {
    pub(super) fn of(server: &Arc<str>) -> Self {
        for family in [&BLOCKED, &FILTERED, &DROPPED] {
            let _registered = LazyLock::force(family);
        }
        let allowed = ALLOWED.as_ref();
        Self {
            server: Arc::clone(server),
            allowed: allowed.map(|family| family.with_label_values(&[&**server, ""])),
        }
    }

    pub(super) fn count_allowed(&self) {
        if let Some(allowed) = &self.allowed {
            allowed.inc();
        }
    }

    pub(super) fn count(&self, action: Action, zone: &str) {
        let family = match action {
            Action::Allow => return self.count_allowed(),
            Action::Block => &BLOCKED,
            Action::Filter => &FILTERED,
            Action::Drop => &DROPPED,
        };
        if let Some(family) = family.as_ref() {
            family.with_label_values(&[&*self.server, zone, ""]).inc();
        }
    }
}
