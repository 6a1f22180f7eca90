use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};

use super::{count, enabled, process, queries};

/// Every metric of the process. Those of plugins are there once one has been set up.
#[derive(Debug)]
pub struct MetricRegistry {
    registry: Registry,
    definitions: Mutex<Vec<Definition>>,
}

/// A metric as it is documented.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Definition {
    /// The full name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub metric_type: &'static str,
    /// The label names.
    pub labels: Vec<String>,
    /// What it means.
    pub help: String,
}

/// The registry of the process.
pub fn registry() -> &'static MetricRegistry {
    static REGISTRY: LazyLock<MetricRegistry> = LazyLock::new(MetricRegistry::with_our_own);
    &REGISTRY
}

impl MetricRegistry {
    fn with_our_own() -> Self {
        let new = Self {
            registry: Registry::new(),
            definitions: Mutex::default(),
        };
        let ours: [Box<dyn Collector>; 4] = [
            Box::new(queries::QueryCollector::new()),
            Box::new(count::CountCollector::new()),
            Box::new(enabled::EnabledCollector::new()),
            Box::new(process::ProcessCollector::new()),
        ];
        for collector in ours {
            if let Err(error) = new.register(collector) {
                tracing::error!("some metrics will be missing: {error}");
            }
        }
        new
    }

    /// Adds a collector for the life of the process.
    ///
    /// # Errors
    /// Another metric has the name.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        let mut definitions = Vec::new();
        let families = collector.collect();
        for desc in collector.desc() {
            let family = families.iter().find(|family| family.name() == desc.fq_name);
            let metric_type = match family.map(MetricFamily::get_field_type) {
                Some(MetricType::GAUGE) => "gauge",
                Some(MetricType::HISTOGRAM) => "histogram",
                _ => "counter",
            };
            definitions.push(Definition {
                name: desc.fq_name.clone(),
                metric_type,
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            });
        }
        self.registry.register(collector)?;
        let all = self.definitions.lock();
        all.unwrap_or_else(PoisonError::into_inner)
            .extend(definitions);
        Ok(())
    }

    /// What is registered by now, by name.
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        let all = self.definitions.lock();
        let mut all = all.unwrap_or_else(PoisonError::into_inner).clone();
        all.sort();
        all
    }

    /// All series as they are now.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// All series in the text format.
    ///
    /// # Errors
    /// A metric that can't be written as text.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.gather())
    }
}

/// The table of `docs/dns-metrics.md`.
#[must_use]
pub fn markdown(definitions: &[Definition]) -> String {
    let mut table = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for definition in definitions {
        // Writing to a String can't fail.
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} |",
            definition.name,
            definition.metric_type,
            definition.labels.join(", "),
            definition.help.replace('|', "\\|"),
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_is_documented_with_type_and_labels() {
        let counter = prometheus::IntCounterVec::new(
            prometheus::Opts::new("registry_test_total", "Of this test."),
            &["server"],
        );
        let registered = registry().register(Box::new(counter.expect("a fine name")));
        registered.expect("nobody else has it");
        let definitions = registry().definitions();
        let of = |name: &str| {
            let found = definitions.iter().find(|one| one.name == name);
            found.cloned().expect("it is registered")
        };
        let test = of("registry_test_total");
        assert_eq!(
            (test.metric_type, test.labels),
            ("counter", vec!["server".to_owned()])
        );
        assert_eq!(
            of("coredns_dns_request_duration_seconds").metric_type,
            "histogram"
        );
        assert_eq!(of("process_open_fds").metric_type, "gauge");
    }
}
