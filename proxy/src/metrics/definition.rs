use std::fmt::{self, Write};

/// A metric as it is documented and registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The full name.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub metric_type: MetricType,
    /// The label names.
    pub labels: &'static [&'static str],
    /// What one of it is: `seconds`, `rules`, ...
    pub unit: &'static str,
    /// What it means: the doc comment of its handle.
    pub help: String,
    /// Upper bounds of a histogram's buckets, in the metric's unit.
    pub buckets: Vec<f64>,
}

/// The type of a metric, as the text format names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricType {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// The doc comment of a handle as one line of help.
pub(super) fn help(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The table of `docs/metrics.md`.
#[must_use]
pub fn markdown(definitions: &[Definition]) -> String {
    let mut table =
        String::from("| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n");
    for definition in definitions {
        // Writing to a String can't fail.
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | {} |",
            definition.name,
            definition.metric_type,
            definition.labels.join(", "),
            definition.unit,
            definition.help.replace('|', "\\|"),
        );
    }
    table
}
