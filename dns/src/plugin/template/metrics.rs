use std::sync::LazyLock;

use prometheus::IntCounterVec;

use super::language::Data;
use crate::plugin::counter_vec;
use crate::wire::{Class, Rtype};

/// Whose template it is, for labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels<'a> {
    pub(super) server: &'a str,
    pub(super) data: &'a Data,
}

const QUESTION: [&str; 5] = ["server", "zone", "view", "class", "type"];
const PART: [&str; 7] = [
    "server", "zone", "view", "class", "type", "section", "template",
];

static MATCHES: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    counter_vec(
        "coredns_template_matches_total",
        "Questions that a template matched.",
        &QUESTION,
    )
});

static TEMPLATE_FAILURES: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Templates that failed while they ran.";
    counter_vec("coredns_template_template_failures_total", help, &PART)
});

static RECORD_FAILURES: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Outputs of templates that are no records.";
    counter_vec("coredns_template_rr_failures_total", help, &PART)
});

/// Makes the families known, also before there is anything to count.
pub(super) fn register() {
    for family in [&MATCHES, &TEMPLATE_FAILURES, &RECORD_FAILURES] {
        LazyLock::force(family);
    }
}

impl Labels<'_> {
    /// Numbers without a name have no label of their own, so that clients cannot make any.
    fn question(&self) -> [&str; 5] {
        let class = Class::from_text(&self.data.class).and_then(Class::mnemonic);
        let rtype = Rtype::from_text(&self.data.rtype).and_then(Rtype::mnemonic);
        [
            self.server,
            &self.data.zone,
            "",
            class.unwrap_or_default(),
            rtype.unwrap_or_default(),
        ]
    }

    pub(super) fn matched(&self) {
        if let Some(family) = &*MATCHES {
            family.with_label_values(&self.question()).inc();
        }
    }

    pub(super) fn template_failed(&self, section: &str, template: &str) {
        self.failed(TEMPLATE_FAILURES.as_ref(), section, template);
    }

    pub(super) fn record_failed(&self, section: &str, template: &str) {
        self.failed(RECORD_FAILURES.as_ref(), section, template);
    }

    fn failed(&self, family: Option<&IntCounterVec>, section: &str, template: &str) {
        if let Some(family) = family {
            let [server, zone, view, class, rtype] = self.question();
            let labels = [server, zone, view, class, rtype, section, template];
            family.with_label_values(&labels).inc();
        }
    }
}
