//! Passing on what the backend's housekeeping did and read.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};

use super::{Agent, Done};
use crate::backend::Mode;
use crate::backend::ebpf::{Housekeeping, ServiceTotals};
use crate::metrics::Metrics;
use crate::plan::PlanId;

/// Time from one round to the next while there is nothing else to do.
const PERIOD: Duration = Duration::from_secs(1);

/// What was passed on last.
#[derive(Debug, Default)]
pub(super) struct Exporter {
    shown: HashMap<PlanId, ServiceTotals>,
}

impl Exporter {
    /// Puts a round into metrics.
    pub(super) fn export(&mut self, round: Housekeeping, metrics: &Metrics) {
        metrics.flows_expired.add((), round.flows_expired);
        metrics
            .stale_sockets_destroyed
            .add((), round.sockets_destroyed);
        for level in round.map_entries {
            metrics.ebpf_map_entries.set(level.map, level.used);
            metrics.ebpf_map_limit.set(level.map, level.limit);
        }
        for (reason, total) in round.drops {
            metrics.drops.set(reason, total);
        }
        if let Some(service_ports) = round.service_ports {
            self.service_ports(service_ports, metrics);
        }
    }

    /// Only what differs is touched: most Service ports are idle most of the time.
    fn service_ports(&mut self, all: Vec<(PlanId, ServiceTotals)>, metrics: &Metrics) {
        let mut gone: HashSet<PlanId> = self.shown.keys().cloned().collect();
        for (id, totals) in all {
            if totals == ServiceTotals::default() {
                continue;
            }
            gone.remove(&id);
            if self.shown.get(&id) == Some(&totals) {
                continue;
            }
            metrics.service_connections.set(&id, totals.connections);
            metrics.service_packets.set(&id, totals.packets);
            metrics.service_bytes.set(&id, totals.bytes);
            self.shown.insert(id, totals);
        }
        for id in gone {
            self.shown.remove(&id);
            metrics.service_connections.remove(&id);
            metrics.service_packets.remove(&id);
            metrics.service_bytes.remove(&id);
        }
    }
}

impl Agent {
    /// When the next round is due: in ebpf mode, while the worker has nothing to do.
    pub(super) fn housekeep_at(&self) -> Option<Instant> {
        let due = self.mode == Mode::Ebpf && self.worker.is_some() && !self.adopted.is_empty();
        due.then_some(self.housekeep_at)
    }

    /// Has the worker do a round.
    pub(super) fn start_housekeeping(&mut self) -> Option<JoinHandle<Done>> {
        let mut worker = self.worker.take()?;
        Some(spawn_blocking(move || Done::Housekept {
            round: worker.housekeep(),
            worker,
        }))
    }

    /// A round is done.
    pub(super) fn housekept(&mut self, round: Option<Housekeeping>) {
        self.housekeep_at = Instant::now() + PERIOD;
        if let Some(round) = round {
            if !round.hands_over {
                self.end_handover();
            }
            self.exporter.export(round, &self.metrics);
        }
    }
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::object::{IpFamily, ObjectName, Protocol};

    use super::*;
    use crate::backend::ebpf::{DropReason, MapLevel, MapName};

    fn id(name: &str) -> PlanId {
        PlanId {
            service: ObjectName::new("ns", name),
            port_name: "http".into(),
            protocol: Protocol::Tcp,
            family: IpFamily::V6,
        }
    }

    fn totals(connections: u64) -> ServiceTotals {
        ServiceTotals {
            connections,
            packets: connections * 10,
            bytes: connections * 1_000,
        }
    }

    fn round(service_ports: Option<Vec<(PlanId, ServiceTotals)>>) -> Housekeeping {
        Housekeeping {
            service_ports,
            ..Housekeeping::default()
        }
    }

    fn series(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = metrics.render().unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn service_ports_are_there_from_their_first_packet_until_they_go() {
        let (metrics, mut exporter) = (Metrics::new().unwrap(), Exporter::default());
        let all = vec![
            (id("a"), totals(2)),
            (id("b"), totals(0)),
            (id("c"), totals(1)),
        ];
        exporter.export(round(Some(all)), &metrics);
        let labels = |name| {
            format!(
                "{{family=\"IPv6\",namespace=\"ns\",port=\"http\",protocol=\"tcp\",service=\"{name}\"}}"
            )
        };
        let connections = "switchyard_service_connections_total";
        assert_eq!(
            series(&metrics, connections),
            [
                format!("{connections}{} 2", labels("a")),
                format!("{connections}{} 1", labels("c"))
            ]
        );
        exporter.export(round(None), &metrics);
        assert_eq!(series(&metrics, connections).len(), 2);
        // One is gone, the other was made anew.
        exporter.export(round(Some(vec![(id("c"), totals(5))])), &metrics);
        let bytes = "switchyard_service_bytes_total";
        let expected = [format!("{bytes}{} 5000", labels("c"))];
        assert_eq!(series(&metrics, bytes), expected);
    }

    #[test]
    fn counts_add_up_and_totals_follow() {
        let (metrics, mut exporter) = (Metrics::new().unwrap(), Exporter::default());
        for total in [7, 9] {
            let round = Housekeeping {
                flows_expired: 3,
                sockets_destroyed: 1,
                map_entries: vec![MapLevel {
                    map: MapName::Flows,
                    used: 5,
                    limit: 8,
                }],
                drops: vec![(DropReason::UnknownPort, total)],
                hands_over: false,
                service_ports: None,
            };
            exporter.export(round, &metrics);
        }
        for line in [
            "switchyard_flows_expired_total 6",
            "switchyard_stale_sockets_destroyed_total 2",
            "switchyard_ebpf_map_entries{map=\"flows\"} 5",
            "switchyard_ebpf_map_limit{map=\"flows\"} 8",
            "switchyard_drops_total{reason=\"unknown_port\"} 9",
        ] {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(series(&metrics, name), [line]);
        }
    }
}
