use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use switchyard_operation::build;

use super::sample::Family;

const PLUGIN_ENABLED: Family = Family {
    name: "coredns_plugin_enabled",
    help: "1 for each plugin of each zone whose server block has `prometheus`.",
    labels: &["server", "zone", "view", "name"],
    metric_type: MetricType::GAUGE,
};

const BUILD_INFO: Family = Family {
    name: "coredns_build_info",
    help: "1, with the version of switchyard-dns; goversion is empty.",
    labels: &["version", "revision", "goversion"],
    metric_type: MetricType::GAUGE,
};

static ENABLED: Mutex<Vec<EnabledPlugin>> = Mutex::new(Vec::new());

/// A plugin of one zone of a server block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnabledPlugin {
    /// `dns://:53`.
    pub server: String,
    /// Fully qualified.
    pub zone: String,
    /// The directive's name.
    pub name: &'static str,
}

/// Says which plugins there are now, in place of those there were.
pub fn set_enabled_plugins(mut plugins: Vec<EnabledPlugin>) {
    plugins.sort();
    plugins.dedup();
    *ENABLED.lock().unwrap_or_else(PoisonError::into_inner) = plugins;
}

pub(super) struct EnabledCollector(Vec<Desc>);

impl EnabledCollector {
    pub(super) fn new() -> Self {
        Self(Family::descs(&[&PLUGIN_ENABLED, &BUILD_INFO]))
    }
}

impl Collector for EnabledCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let enabled = ENABLED.lock().unwrap_or_else(PoisonError::into_inner);
        let series = enabled.iter().map(|plugin| {
            let labels = [&*plugin.server, &*plugin.zone, "", plugin.name];
            PLUGIN_ENABLED.gauge(&labels, 1.0)
        });
        let version = [build::VERSION, build::COMMIT, ""];
        vec![
            PLUGIN_ENABLED.with(series.collect()),
            BUILD_INFO.with(vec![BUILD_INFO.gauge(&version, 1.0)]),
        ]
    }
}
