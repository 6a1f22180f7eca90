use std::sync::PoisonError;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::{
    ALL, Cell, DURATION_BOUNDS_NS, FAMILIES, Histogram, OTHER_RCODE, OTHER_TYPE, PROTOS, RCODES,
    SIZE_BOUNDS, Series, Shard, TYPES,
};
use crate::metrics::sample::{Family, float};

const REQUESTS: Family = Family {
    name: "coredns_dns_requests_total",
    help: "Queries.",
    labels: &["server", "zone", "view", "proto", "family", "type"],
    metric_type: MetricType::COUNTER,
};
const DURATION: Family = Family {
    name: "coredns_dns_request_duration_seconds",
    help: "From a query's arrival until its reply was sent.",
    labels: &["server", "zone", "view"],
    metric_type: MetricType::HISTOGRAM,
};
const REQUEST_SIZE: Family = Family {
    name: "coredns_dns_request_size_bytes",
    help: "Size of queries as they came.",
    labels: &["server", "zone", "view", "proto"],
    metric_type: MetricType::HISTOGRAM,
};
const RESPONSE_SIZE: Family = Family {
    name: "coredns_dns_response_size_bytes",
    help: "Size of replies.",
    labels: &["server", "zone", "view", "proto"],
    metric_type: MetricType::HISTOGRAM,
};
const DO_REQUESTS: Family = Family {
    name: "coredns_dns_do_requests_total",
    help: "Queries with the DO bit.",
    labels: &["server", "zone", "view"],
    metric_type: MetricType::COUNTER,
};
const RESPONSES: Family = Family {
    name: "coredns_dns_responses_total",
    help: "Replies, by code and by the plugin that answered; it is empty where the server did.",
    labels: &["server", "zone", "view", "rcode", "plugin"],
    metric_type: MetricType::COUNTER,
};

/// Sums up at each scrape.
pub(in crate::metrics) struct QueryCollector(Vec<Desc>);

impl QueryCollector {
    pub(in crate::metrics) fn new() -> Self {
        Self(Family::descs(&[
            &REQUESTS,
            &DURATION,
            &REQUEST_SIZE,
            &RESPONSE_SIZE,
            &DO_REQUESTS,
            &RESPONSES,
        ]))
    }
}

impl Collector for QueryCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &*all;
        vec![
            REQUESTS.with(all.iter().flat_map(requests).collect()),
            DURATION.with(all.iter().filter_map(durations).collect()),
            REQUEST_SIZE.with(
                all.iter()
                    .flat_map(|series| sizes(series, &REQUEST_SIZE, |shard| &shard.request_sizes))
                    .collect(),
            ),
            RESPONSE_SIZE.with(
                all.iter()
                    .flat_map(|series| sizes(series, &RESPONSE_SIZE, |shard| &shard.response_sizes))
                    .collect(),
            ),
            DO_REQUESTS.with(all.iter().filter_map(do_requests).collect()),
            RESPONSES.with(all.iter().flat_map(responses).collect()),
        ]
    }
}

impl Series {
    fn sum(&self, cell: impl Fn(&Shard) -> Option<&Cell>) -> u64 {
        let cells = self.shards.iter().filter_map(|shard| cell(shard));
        cells.map(Cell::get).sum()
    }

    /// The cells of a histogram and its sum, over all threads; `None` if nothing was
    /// observed.
    fn histogram<const N: usize>(
        &self,
        of: impl Fn(&Shard) -> Option<&Histogram<N>>,
    ) -> Option<(Vec<u64>, u64)> {
        let count = |index: usize| self.sum(|shard| of(shard)?.counts.get(index));
        let counts: Vec<_> = (0..N).map(count).collect();
        let sum = self.sum(|shard| Some(&of(shard)?.sum));
        counts
            .iter()
            .any(|count| *count > 0)
            .then_some((counts, sum))
    }
}

fn requests(series: &Series) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for (proto, proto_label) in PROTOS.iter().enumerate() {
        for (family, family_label) in FAMILIES.iter().enumerate() {
            for index in 0..=TYPES.len() {
                let rtype = TYPES.get(index).and_then(|rtype| rtype.mnemonic());
                let rtype = rtype.unwrap_or(OTHER_TYPE);
                let cell = |shard: &Shard| shard.requests[proto][family][index].get();
                let count: u64 = series.shards.iter().map(|shard| cell(shard)).sum();
                if count > 0 {
                    let (server, zone) = (&*series.server, &*series.zone);
                    let labels = [server, zone, "", proto_label, family_label, rtype];
                    metrics.push(REQUESTS.counter(&labels, float(count)));
                }
            }
        }
    }
    metrics
}

fn durations(series: &Series) -> Option<Metric> {
    const NS_PER_S: f64 = 1e9;
    let (counts, sum) = series.histogram(|shard| Some(&shard.durations))?;
    let bounds = DURATION_BOUNDS_NS.map(|bound| float(bound) / NS_PER_S);
    let labels = [&*series.server, &*series.zone, ""];
    Some(DURATION.histogram(&labels, &bounds, &counts, float(sum) / NS_PER_S))
}

fn sizes(
    series: &Series,
    family: &Family,
    of: impl Fn(&Shard) -> &[Histogram<15>; 2],
) -> Vec<Metric> {
    let metric = |(proto, label): (usize, &&str)| {
        let (counts, sum) = series.histogram(|shard| of(shard).get(proto))?;
        let labels = [&*series.server, &*series.zone, "", label];
        Some(family.histogram(&labels, &SIZE_BOUNDS.map(float), &counts, float(sum)))
    };
    PROTOS.iter().enumerate().filter_map(metric).collect()
}

fn do_requests(series: &Series) -> Option<Metric> {
    let count = series.sum(|shard| Some(&shard.dnssec_ok));
    let labels = [&*series.server, &*series.zone, ""];
    (count > 0).then(|| DO_REQUESTS.counter(&labels, float(count)))
}

/// Shards may know the plugins in different orders: sum by name.
fn responses(series: &Series) -> Vec<Metric> {
    let mut sums = std::collections::BTreeMap::<(&str, &str), u64>::new();
    for responses in series.shards.iter().flat_map(|shard| &shard.responses) {
        let Some(plugin) = responses.plugin.get() else {
            continue;
        };
        for (index, cell) in responses.by_rcode.iter().enumerate() {
            let rcode = RCODES.get(index).and_then(|rcode| rcode.mnemonic());
            *sums
                .entry((rcode.unwrap_or(OTHER_RCODE), plugin))
                .or_default() += cell.get();
        }
    }
    let counted = sums.into_iter().filter(|(_, count)| *count > 0);
    let metric = |((rcode, plugin), count)| {
        let labels = [&*series.server, &*series.zone, "", rcode, plugin];
        RESPONSES.counter(&labels, float(count))
    };
    counted.map(metric).collect()
}
