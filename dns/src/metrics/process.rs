//! The `process_…` metrics that every client library of Prometheus has.

use std::time::UNIX_EPOCH;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use switchyard_operation::process::Reading;

use super::sample::{Family, float};

macro_rules! families {
    ($($const:ident: $type:ident = $name:literal, $help:literal;)+) => {
        $(const $const: Family = Family {
            name: $name,
            help: $help,
            labels: &[],
            metric_type: MetricType::$type,
        };)+
        const ALL: &[&Family] = &[$(&$const),+];
    };
}

families! {
    CPU: COUNTER = "process_cpu_seconds_total", "CPU time of the process, user and system.";
    STARTED: GAUGE = "process_start_time_seconds", "When the process started, in seconds since 1970.";
    RESIDENT: GAUGE = "process_resident_memory_bytes", "Resident memory of the process.";
    VIRTUAL: GAUGE = "process_virtual_memory_bytes", "Address space of the process.";
    VIRTUAL_MAX: GAUGE = "process_virtual_memory_max_bytes", "Limit of the process's address space.";
    OPEN_FDS: GAUGE = "process_open_fds", "Open file descriptors of the process.";
    MAX_FDS: GAUGE = "process_max_fds", "Limit of the process's file descriptors.";
    RECEIVED: COUNTER = "process_network_receive_bytes_total",
        "Bytes received in the process's network namespace.";
    SENT: COUNTER = "process_network_transmit_bytes_total",
        "Bytes sent in the process's network namespace.";
}

/// Reads the process at each scrape.
pub(super) struct ProcessCollector(Vec<Desc>);

impl ProcessCollector {
    pub(super) fn new() -> Self {
        Self(Family::descs(ALL))
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let reading = Reading::now();
        let started = reading
            .started
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let open = reading.open_fds.and_then(|open| u64::try_from(open).ok());
        let values = [
            (CPU, reading.cpu.map(|time| time.as_secs_f64())),
            (STARTED, started.map(|time| time.as_secs_f64())),
            (RESIDENT, reading.resident_bytes.map(float)),
            (VIRTUAL, reading.virtual_bytes.map(float)),
            (VIRTUAL_MAX, reading.max_virtual_bytes.map(float)),
            (OPEN_FDS, open.map(float)),
            (MAX_FDS, reading.max_fds.map(float)),
            (
                RECEIVED,
                reading.network_bytes.map(|(received, _)| float(received)),
            ),
            (SENT, reading.network_bytes.map(|(_, sent)| float(sent))),
        ];
        let family = |(family, value): (Family, Option<f64>)| {
            let sample = value.map(|value| match family.metric_type {
                MetricType::COUNTER => family.counter(&[], value),
                _ => family.gauge(&[], value),
            });
            family.with(sample.into_iter().collect())
        };
        values.into_iter().map(family).collect()
    }
}
