//! What the agent counts, as Prometheus reads it.
//!
//! The `kubeproxy_…` metrics have the reference's names, types, labels and buckets, so that
//! dashboards and alerts go on working; those of our own are called `switchyard_…`. To add
//! one: a line in the list of [`Metrics`] with its doc comment, which is also its help text,
//! then the table of `docs/metrics.md` (a test says how to write it anew).

mod accounting;
mod definition;
mod handle;
mod label;
mod slis;

pub use definition::{Definition, MetricType, markdown};
pub use handle::{
    Amount, ApiDurations, ApiRequests, BuildInfo, Bytes, Counter, CpuTime, Durations, ForeignTotal,
    ServicePortTotal, Timestamp,
};
pub use label::{Direction, HealthCode, Label, Table};
pub use slis::Slis;

use std::sync::Arc;

use prometheus::{Registry, TextEncoder};
use switchyard_cluster::object::{IpFamily, Kind, Protocol};
use switchyard_cluster::source::api::{RequestDone, RequestObserver};

use crate::backend::ebpf::{DropReason, MapName};
use crate::backend::iptables::nfacct_names;
use handle::Handle;

/// The content type of [`Metrics::render`]: the text format, version 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics could not be registered or written.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// 1 ms, then twice as much each time: 15 buckets up to 16.384 s.
fn sync_buckets() -> Vec<f64> {
    std::iter::successors(Some(0.001), |bound| Some(bound * 2.0))
        .take(15)
        .collect()
}

/// A quarter and a half second, each second of the first minute, each fifth of the second,
/// each thirtieth up to five minutes.
fn programming_buckets() -> Vec<f64> {
    let seconds = (1_u32..60)
        .chain((60..120).step_by(5))
        .chain((120..=300).step_by(30));
    [0.25, 0.5]
        .into_iter()
        .chain(seconds.map(f64::from))
        .collect()
}

/// 5 ms to a minute, as the reference measures requests to the API server.
fn request_buckets() -> Vec<f64> {
    vec![
        0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
    ]
}

macro_rules! metrics {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $handle:ty = $name:literal, $unit:literal $(, $buckets:expr)?;
    )+) => {
        /// Every metric of the agent. Handles are cheap to use and safe to share.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            definitions: Vec<Definition>,
            $($(#[doc = $doc])+ pub $field: $handle,)+
        }

        impl Metrics {
            /// Registers every metric in a registry of its own.
            ///
            /// # Errors
            /// Two metrics with one name, or a name that Prometheus does not allow.
            pub fn new() -> Result<Self, MetricsError> {
                let registry = Registry::new();
                let mut definitions = Vec::new();
                $(
                    let buckets = Vec::<Vec<f64>>::from([$($buckets)?]).concat();
                    let definition = Definition {
                        name: $name,
                        metric_type: <$handle>::TYPE,
                        labels: <$handle>::LABELS,
                        unit: $unit,
                        help: definition::help(concat!($($doc),+)),
                        buckets,
                    };
                    let $field = <$handle>::register(&registry, &definition)?;
                    definitions.push(definition);
                )+
                Ok(Self { registry, definitions, $($field),+ })
            }
        }
    };
}

metrics! {
    /// Time one sync of a family took, whether full or partial.
    sync_duration: Durations<IpFamily> =
        "kubeproxy_sync_proxy_rules_duration_seconds", "seconds", sync_buckets();
    /// Time a sync took that compared everything with the kernel.
    sync_full_duration: Durations<IpFamily> =
        "kubeproxy_sync_full_proxy_rules_duration_seconds", "seconds", sync_buckets();
    /// Time a sync took that wrote only what had changed.
    sync_partial_duration: Durations<IpFamily> =
        "kubeproxy_sync_partial_proxy_rules_duration_seconds", "seconds", sync_buckets();
    /// When a sync of this family last succeeded (seconds since 1970).
    last_sync: Timestamp<IpFamily> =
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds", "seconds";
    /// When a sync of this family was last asked for (seconds since 1970).
    last_queued: Timestamp<IpFamily> =
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "seconds";
    /// From the change in the cluster (annotation
    /// endpoints.kubernetes.io/last-change-trigger-time) until the kernel had it.
    network_programming_duration: Durations<IpFamily> =
        "kubeproxy_network_programming_duration_seconds", "seconds", programming_buckets();
    /// Changes of endpoints that wait to be written.
    endpoint_changes_pending: Amount<()> =
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending", "changes";
    /// Changes of endpoints seen.
    endpoint_changes: Counter<()> =
        "kubeproxy_sync_proxy_rules_endpoint_changes_total", "changes";
    /// Changes of Services that wait to be written.
    service_changes_pending: Amount<()> =
        "kubeproxy_sync_proxy_rules_service_changes_pending", "changes";
    /// Changes of Services seen.
    service_changes: Counter<()> =
        "kubeproxy_sync_proxy_rules_service_changes_total", "changes";
    /// Services with a Local traffic policy and no endpoint on this node.
    no_local_endpoints: Amount<(Direction, IpFamily)> =
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total", "services";
    /// Answers at /healthz of the health port, by status.
    healthz: Counter<HealthCode> = "kubeproxy_proxy_healthz_total", "answers";
    /// Answers at /livez of the health port, by status.
    livez: Counter<HealthCode> = "kubeproxy_proxy_livez_total", "answers";
    /// Rules of ours in a table, after the last sync.
    iptables_rules: Amount<(Table, IpFamily)> =
        "kubeproxy_sync_proxy_rules_iptables_total", "rules";
    /// Rules that the last sync wrote to a table.
    iptables_rules_last: Amount<(Table, IpFamily)> =
        "kubeproxy_sync_proxy_rules_iptables_last", "rules";
    /// Batches that iptables-restore refused.
    iptables_restore_failures: Counter<IpFamily> =
        "kubeproxy_sync_proxy_rules_iptables_restore_failures_total", "batches";
    /// Transactions of nftables mode that failed.
    nftables_sync_failures: Counter<IpFamily> =
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", "transactions";
    /// Times that chains of nftables mode which nothing leads to any more could not be deleted;
    /// they are tried again.
    nftables_cleanup_failures: Counter<IpFamily> =
        "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total", "transactions";
    /// Batches with only the changed chains that iptables-restore refused.
    iptables_partial_restore_failures: Counter<IpFamily> =
        "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total", "batches";
    /// Packets dropped because conntrack calls them INVALID; absent where the kernel does not
    /// count them (nfacct).
    ct_state_invalid_dropped: ForeignTotal<()> =
        "kubeproxy_iptables_ct_state_invalid_dropped_packets_total", "packets";
    /// Packets accepted at node ports of a loopback address; absent where the kernel does not
    /// count them (nfacct).
    localhost_nodeports_accepted: ForeignTotal<()> =
        "kubeproxy_iptables_localhost_nodeports_accepted_packets_total", "packets";
    /// Time one clean-up of stale UDP flows took.
    conntrack_reconcile_duration: Durations<IpFamily> =
        "kubeproxy_conntrack_reconciler_sync_duration_seconds", "seconds", sync_buckets();
    /// Stale UDP flows deleted from conntrack.
    conntrack_deleted: Counter<IpFamily> =
        "kubeproxy_conntrack_reconciler_deleted_entries_total", "flows";
    /// Requests to the API server, by the answer's status; `<error>`: there was none.
    api_requests: ApiRequests = "rest_client_requests_total", "requests";
    /// Time from a request to the API server to the head of its answer.
    api_request_duration: ApiDurations =
        "rest_client_request_duration_seconds", "seconds", request_buckets();
    /// 1, with what is running as labels.
    build_info: BuildInfo = "switchyard_build_info", "1";
    /// Rules and chains, or map elements and programs, that were not as we left them and were
    /// put right. In ebpf mode one repair is of all families, and counts for each.
    reconcile_repairs: Counter<IpFamily> = "switchyard_reconcile_repairs_total", "repairs";
    /// Objects the store holds.
    objects: Amount<Kind> = "switchyard_objects", "objects";
    /// Objects seen with something in them that could not be used.
    object_problems: Counter<Kind> = "switchyard_object_problems_total", "objects";
    /// 1 while the source can't follow this kind, else 0.
    source_trouble: Amount<Kind> = "switchyard_source_trouble", "0 or 1";
    /// Service ports that the kernel refused, until a sync succeeds with them.
    services_not_programmed: Amount<IpFamily> =
        "switchyard_services_not_programmed", "service ports";
    /// Open connections (TCP) and clients (UDP) of the relay for node ports on localhost.
    relay_connections: Amount<Protocol> = "switchyard_relay_connections", "connections";
    /// Connections and datagrams that the relay refused because it had as many as it may.
    relay_refused: Counter<Protocol> = "switchyard_relay_refused_total", "connections";
    /// Node ports that the relay could not listen on, mostly because somebody else does.
    relay_not_listening: Amount<Protocol> = "switchyard_relay_not_listening", "ports";
    /// Health-check node ports that could not be listened on.
    health_check_not_listening: Amount<()> = "switchyard_health_check_not_listening", "ports";
    /// Changes of the configuration file that could not be used, the configuration before them
    /// having stayed in force.
    config_reload_failures: Counter<()> = "switchyard_config_reload_failures_total", "changes";
    /// Events that were not written: there were too many, or the API server did not take them.
    events_lost: Counter<()> = "switchyard_events_lost_total", "events";
    /// Connections closed unanswered because a server of ours had as many as it may.
    http_refused: Counter<()> = "switchyard_http_refused_total", "connections";
    /// Elements an eBPF map holds (ebpf mode).
    ebpf_map_entries: Amount<MapName> = "switchyard_ebpf_map_entries", "elements";
    /// Elements an eBPF map has room for.
    ebpf_map_limit: Amount<MapName> = "switchyard_ebpf_map_limit", "elements";
    /// Packets that programs dropped or refused, by reason.
    drops: ForeignTotal<DropReason> = "switchyard_drops_total", "packets";
    /// Flows forgotten because they were idle for too long or their endpoint is gone.
    flows_expired: Counter<()> = "switchyard_flows_expired_total", "flows";
    /// Sockets closed because the endpoint they were connected to is gone.
    stale_sockets_destroyed: Counter<()> = "switchyard_stale_sockets_destroyed_total", "sockets";
    /// Connections (TCP) and flows (UDP) to a Service port that has had any.
    service_connections: ServicePortTotal = "switchyard_service_connections_total", "connections";
    /// Packets to and from a Service port, as far as they pass devices; what is translated at
    /// a socket is not seen packet by packet.
    service_packets: ServicePortTotal = "switchyard_service_packets_total", "packets";
    /// Bytes of those packets.
    service_bytes: ServicePortTotal = "switchyard_service_bytes_total", "bytes";
    /// CPU time of the process, user and system.
    process_cpu: CpuTime = "process_cpu_seconds_total", "seconds";
    /// When the process started (seconds since 1970).
    process_started: Timestamp<()> = "process_start_time_seconds", "seconds";
    /// Resident memory of the process.
    process_resident: Bytes = "process_resident_memory_bytes", "bytes";
    /// Address space of the process.
    process_virtual: Bytes = "process_virtual_memory_bytes", "bytes";
    /// Limit of the process's address space.
    process_virtual_max: Bytes = "process_virtual_memory_max_bytes", "bytes";
    /// Open file descriptors of the process.
    process_open_fds: Amount<()> = "process_open_fds", "descriptors";
    /// Limit of the process's file descriptors.
    process_max_fds: Amount<()> = "process_max_fds", "descriptors";
    /// Bytes received in the process's network namespace.
    process_network_received: ForeignTotal<()> = "process_network_receive_bytes_total", "bytes";
    /// Bytes sent in the process's network namespace.
    process_network_sent: ForeignTotal<()> = "process_network_transmit_bytes_total", "bytes";
}

impl Metrics {
    /// Counts requests to the API server in these metrics.
    #[must_use]
    pub fn request_observer(self: &Arc<Self>) -> RequestObserver {
        let metrics = Arc::clone(self);
        RequestObserver::new(move |request: &RequestDone<'_>| {
            metrics.api_requests.inc(request);
            metrics.api_request_duration.observe(request);
        })
    }

    /// Every metric, in order.
    #[must_use]
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// All series in the text format, version 0.0.4.
    ///
    /// # Errors
    /// A metric that can't be written as text.
    pub fn render(&self) -> Result<String, MetricsError> {
        self.look_at_process();
        accounting::read(&[
            (
                nfacct_names::INVALID_DROPPED,
                &self.ct_state_invalid_dropped,
            ),
            (
                nfacct_names::LOCALHOST_NODE_PORTS,
                &self.localhost_nodeports_accepted,
            ),
        ]);
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }

    fn look_at_process(&self) {
        let reading = switchyard_operation::process::Reading::now();
        if let Some(cpu) = reading.cpu {
            self.process_cpu.set(cpu);
        }
        if let Some(started) = reading.started {
            self.process_started.set((), started);
        }
        for (handle, bytes) in [
            (&self.process_resident, reading.resident_bytes),
            (&self.process_virtual, reading.virtual_bytes),
            (&self.process_virtual_max, reading.max_virtual_bytes),
        ] {
            if let Some(bytes) = bytes {
                handle.set(bytes);
            }
        }
        if let Some(open) = reading.open_fds {
            self.process_open_fds.set((), open);
        }
        if let Some(max) = reading.max_fds {
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            self.process_max_fds.set((), max);
        }
        if let Some((received, sent)) = reading.network_bytes {
            self.process_network_received.set((), received);
            self.process_network_sent.set((), sent);
        }
    }
}
