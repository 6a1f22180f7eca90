use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use super::MetricsError;

/// The one check there is: that the server answers.
const CHECK: &str = "ping";
/// Which of the server's health pages has that check.
const PAGE: &str = "healthz";

/// What `/metrics/slis` shows: what came of health checks of the metrics server, under the names
/// that every program of Kubernetes has for them.
#[derive(Debug)]
pub struct Slis {
    registry: Registry,
    last: IntGaugeVec,
    total: IntCounterVec,
}

impl Slis {
    /// Without any check so far.
    ///
    /// # Errors
    /// A metric that can't be registered: a mistake in the program.
    pub fn new() -> Result<Self, MetricsError> {
        let last = Opts::new(
            "kubernetes_healthcheck",
            "What came of the last health check: 1 if all was well.",
        );
        let total = Opts::new(
            "kubernetes_healthchecks_total",
            "Health checks, by what came of them.",
        );
        let slis = Self {
            registry: Registry::new(),
            last: IntGaugeVec::new(last, &["name", "type"])?,
            total: IntCounterVec::new(total, &["name", "status", "type"])?,
        };
        slis.registry.register(Box::new(slis.last.clone()))?;
        slis.registry.register(Box::new(slis.total.clone()))?;
        Ok(slis)
    }

    /// Somebody asked the server whether it answers, and it does.
    pub fn answered(&self) {
        self.last.with_label_values(&[CHECK, PAGE]).set(1);
        let total = self.total.with_label_values(&[CHECK, "success", PAGE]);
        total.inc();
    }

    /// All series in the text format, version 0.0.4.
    ///
    /// # Errors
    /// A metric that can't be written as text.
    pub fn render(&self) -> Result<String, MetricsError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}
