//! Samples for collectors that keep their numbers themselves.

use prometheus::core::Desc;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// A metric that a collector of ours has, whatever it keeps the numbers in.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) metric_type: MetricType,
}

impl Family {
    /// For [`prometheus::core::Collector::desc`]. Names and labels are constants that
    /// Prometheus allows, so none is ever left out; a test sees to it.
    pub(super) fn descs(families: &[&Self]) -> Vec<Desc> {
        let desc = |family: &&Self| {
            let labels = family.labels.iter().copied().map(str::to_owned).collect();
            let (name, help) = (family.name.to_owned(), family.help.to_owned());
            Desc::new(name, help, labels, std::collections::HashMap::new()).ok()
        };
        families.iter().filter_map(desc).collect()
    }

    pub(super) fn with(&self, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.metric_type);
        family.set_metric(metrics);
        family
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut pairs: Vec<_> = self.labels.iter().zip(values).map(pair).collect();
        pairs.sort_by(|one, other| one.name().cmp(other.name()));
        Metric::from_label(pairs)
    }

    pub(super) fn counter(&self, values: &[&str], count: f64) -> Metric {
        let mut counter = Counter::default();
        counter.set_value(count);
        let mut metric = self.labelled(values);
        metric.set_counter(counter);
        metric
    }

    pub(super) fn gauge(&self, values: &[&str], value: f64) -> Metric {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = self.labelled(values);
        metric.set_gauge(gauge);
        metric
    }

    /// `counts` has one more than `bounds`: what is larger than the last bound.
    pub(super) fn histogram(
        &self,
        values: &[&str],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) -> Metric {
        let mut cumulative = 0;
        let buckets = bounds.iter().zip(counts).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut metric = self.labelled(values);
        metric.set_histogram(histogram);
        metric
    }
}

/// Numbers past 2⁵³ are rounded, as every number of Prometheus is.
pub(super) fn float(number: u64) -> f64 {
    let high = u32::try_from(number >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high).mul_add(2_f64.powi(32), f64::from(low))
}
