//! The agent: follows the cluster, plans, and has the backend write.
//!
//! One task owns all state and never blocks; the [`worker`] writes on a thread of its own.
//! While it writes, changes gather in [`pending`] and go out together; when it is idle they
//! go out at once.

mod choice;
mod cleanup;
mod draining;
mod error;
mod events;
mod facts;
mod following;
mod host;
mod housekeeping;
mod init;
mod journal;
mod judge;
mod leftovers;
mod node;
mod observe;
mod pending;
mod privileges;
mod reload;
mod serve;
mod source;
mod start;
mod sync;
mod worker;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use switchyard_cluster::journal::Journal;
use switchyard_cluster::object::{IpFamily, IpvsScheduler, Kind, ObjectName};
use switchyard_cluster::store::{Change, Store};
use switchyard_cluster::update::Update;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

use crate::addresses::LocalAddresses;
use crate::backend::ebpf::Housekeeping;
use crate::backend::{BackendError, Mode, ipvs};
use crate::conntrack::{ConntrackCleaner, NodePortDestinations};
use crate::devices::Devices;
use crate::health::{Moment, ServiceChecks, SharedState};
use crate::metrics::Metrics;
use crate::plan::{Conflict, NodeContext, PlanId, PlanTable};
use crate::relay::Relay;
use crate::settings::{Settings, Source};
use crate::stations::{STATIONS_MAX, Stations};
use draining::Draining;
use events::Teller;
use facts::{Facts, node_port_addresses};
use housekeeping::Exporter;
use leftovers::Leftovers;
use pending::{Pending, Taken};
use worker::{Outcome, Worker};

pub use cleanup::cleanup;
pub use error::StartError;
pub use init::init;
pub(crate) use node::context as node_context;
pub use reload::Reload;
pub(crate) use source::{check_source, start_source};
pub use start::{End, run};

/// Updates taken in before anything else gets a turn.
const UPDATES_PER_TURN: usize = 1024;
/// Above so many endpoints a family counts as large, as with the reference; below so many it
/// no longer does.
const LARGE_ENDPOINTS: Range<usize> = 800..1000;
/// The kernel is read and compared this often even if nothing hints at a difference.
const AUDIT_PERIOD: Duration = Duration::from_secs(3600);
/// Pause before a failed sync is tried again; doubles up to the sync period.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest rest after a sync when the operator names none.
const REST_MAX: Duration = Duration::from_secs(1);

/// Everything the agent knows and does.
struct Agent {
    mode: Mode,
    settings: Arc<Settings>,
    families: Vec<IpFamily>,
    store: Store,
    source_journal: Journal,
    node: NodeContext,
    node_was_seen: bool,
    local_addresses: Arc<LocalAddresses>,
    /// Followed in ebpf mode only.
    devices: Arc<Devices>,
    /// Followed where programs forward.
    stations: Arc<Stations>,
    /// Devices or stations came or went, and the worker has not heard of it.
    devices_wait: bool,
    table: PlanTable,
    /// Ports that do without an address, by their Service, as they were last said.
    conflicts: HashMap<ObjectName, Vec<Conflict>>,
    pending: Pending,
    /// `None` while it works.
    worker: Option<Worker>,
    not_before: Instant,
    failures: u32,
    /// Service ports the kernel did not take. What it holds of them is not known well enough
    /// to write only a difference.
    refused: HashSet<PlanId>,
    refused_failures: u32,
    retry_refused_at: Option<Instant>,
    last_audit: Instant,
    /// When a repair was last said.
    repair_said: Option<Instant>,
    /// Changes of endpoints before this do not count for the programming latency.
    started_unix_ns: i64,
    announced_sync: bool,
    /// Families whose rules were compared with the kernel since the start.
    adopted: HashSet<IpFamily>,
    /// Removes what another mode may have left in the kernel.
    leftovers: Leftovers,
    /// Tells at the Node and at Services what an operator should see.
    teller: Teller,
    /// Service ports of which was told that the kernel does not take them.
    not_programmed_told: HashSet<PlanId>,
    /// What another mode may have left in the kernel is gone, or going.
    leftovers_removed: bool,
    /// Connections of another mode go on, and what they need of it stays.
    hands_over: bool,
    /// Flows of ebpf mode, which is not in force, are still under way; as rules were last written.
    drains: bool,
    /// The same, as it is.
    draining: Draining,
    housekeep_at: Instant,
    exporter: Exporter,
    /// Families with so many endpoints that single ones get no comments.
    large: HashSet<IpFamily>,
    /// What the kernel's IPVS has, in ipvs mode.
    schedulers: Arc<[IpvsScheduler]>,
    health: SharedState,
    metrics: Arc<Metrics>,
    checks: ServiceChecks,
    /// Node ports on localhost, one for each loopback address that rules can't serve.
    relays: Vec<Relay>,
    /// Not in ebpf mode, whose flows conntrack does not translate.
    conntrack: Option<ConntrackCleaner>,
}

/// A finished piece of work of the worker's.
enum Done {
    Synced {
        worker: Worker,
        outcomes: Vec<Outcome>,
        taken: Taken,
        round: Option<Housekeeping>,
    },
    Checked {
        worker: Worker,
        disturbed: Vec<IpFamily>,
    },
    Attached {
        worker: Worker,
        result: Result<(), BackendError>,
    },
    Housekept {
        worker: Worker,
        round: Option<Housekeeping>,
    },
}

impl Agent {
    /// Takes in updates until none is waiting (or it is somebody else's turn).
    fn take_in(&mut self, first: Update, updates: &mut Receiver<Update>) {
        self.update(first);
        for _ in 1..UPDATES_PER_TURN {
            let Ok(update) = updates.try_recv() else {
                break;
            };
            self.update(update);
        }
        if self.store.synced() && !self.announced_sync {
            self.first_lists_are_in();
        }
    }

    fn update(&mut self, update: Update) {
        self.source_journal.tell(&update);
        observe::count(&update, &self.metrics);
        let mut changes = Vec::new();
        self.store.apply(update, &mut |change| changes.push(change));
        for change in changes {
            self.changed(change);
        }
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::Service(name) => {
                self.metrics.service_changes.inc(());
                self.pending.service_changes += 1;
                self.report_scheduler(&name);
                self.mark_dirty(name);
            }
            Change::Endpoints {
                service,
                trigger_unix_ns,
            } => {
                self.metrics.endpoint_changes.inc(());
                self.pending.endpoint_changes += 1;
                let counted = trigger_unix_ns.filter(|trigger| *trigger >= self.started_unix_ns);
                if let Some(trigger) = counted {
                    self.pending.triggered(trigger);
                }
                self.mark_dirty(service);
            }
            Change::Node(name) if *name.name == *self.settings.node_name => self.node_changed(),
            Change::ServiceCidrs if self.mode == Mode::Nftables && self.announced_sync => {
                tracing::info!("the ranges of ClusterIPs changed");
                self.pending.rewrite(self.families.iter().copied());
                self.queued();
            }
            // Namespaces and Pods are not followed.
            Change::Node(_) | Change::ServiceCidrs | Change::Namespace(_) | Change::Pod { .. } => {}
        }
    }

    fn mark_dirty(&mut self, service: ObjectName) {
        self.pending.dirty.insert(service);
        self.queued();
    }

    /// Something waits to be written: health looks at how long.
    fn queued(&self) {
        let now = Moment::now();
        let mut health = self.health.lock();
        for family in &self.families {
            health.queued(*family, now);
            self.metrics.last_queued.set(*family, now.wall.into());
        }
        self.show_pending();
    }

    fn show_pending(&self) {
        let (metrics, pending) = (&self.metrics, &self.pending);
        metrics
            .service_changes_pending
            .set((), pending.service_changes);
        metrics
            .endpoint_changes_pending
            .set((), pending.endpoint_changes);
    }

    fn first_lists_are_in(&mut self) {
        self.announced_sync = true;
        tracing::info!(
            services = self.store.count(Kind::Service),
            endpoint_slices = self.store.count(Kind::EndpointSlice),
            "the first lists of the cluster's objects are in"
        );
        self.pending.rewrite(self.families.iter().copied());
        self.node_changed();
        self.queued();
    }

    /// The node's own object says something new: who is local, what is near, and whether
    /// load balancers may send traffic here.
    fn node_changed(&mut self) {
        let object = self.store.node(&self.settings.node_name).cloned();
        if object.is_none() && self.node_was_seen {
            tracing::warn!(node = %self.settings.node_name, "the Node object is gone");
        }
        self.node_was_seen |= object.is_some();
        let expected = self.node_was_seen || matches!(self.settings.source, Source::Api { .. });
        let eligible = node::is_eligible(object.as_ref(), expected);
        self.health.lock().set_node_eligible(eligible);
        if object.is_none() && self.node_was_seen {
            return; // what was last known of the node stays
        }
        let context = node::context(&self.settings, object.as_deref());
        if context == self.node {
            return;
        }
        if self.announced_sync {
            tracing::info!(
                zone = context.zone.as_deref().unwrap_or("none"), addresses = ?context.ips,
                "the node changed: all Services are planned anew"
            );
        }
        if context.detector != self.node.detector || context.ips != self.node.ips {
            self.pending.rewrite(self.families.iter().copied());
        }
        self.node = context;
        self.tell_conntrack();
        let services: Vec<ObjectName> = self
            .store
            .services()
            .map(|service| service.name.clone())
            .collect();
        self.pending.dirty.extend(services);
        self.queued();
    }

    /// The addresses of the node's interfaces changed.
    fn addresses_changed(&mut self, addresses: Arc<LocalAddresses>) {
        let before = std::mem::replace(&mut self.local_addresses, addresses);
        self.tell_conntrack();
        let accepted =
            |family, addresses: &LocalAddresses| node_port_addresses(&self.node, family, addresses);
        let changed = match self.mode {
            Mode::Ebpf => before != self.local_addresses,
            Mode::Ipvs => {
                // What we put on our own device is no news.
                let ours = ipvs::device_index();
                let routable = |addresses| ipvs::NodeAddresses::of(addresses, ours).routable;
                routable(&before) != routable(&self.local_addresses)
            }
            Mode::Iptables | Mode::Nftables => self.families.iter().any(|family| {
                accepted(*family, &before) != accepted(*family, &self.local_addresses)
            }),
        };
        if changed {
            tracing::info!("the node's addresses changed: node ports follow");
            self.pending.rewrite(self.families.iter().copied());
            self.queued();
        }
    }

    /// The node's network devices changed.
    fn devices_changed(&mut self, devices: Arc<Devices>) {
        tracing::debug!(
            devices = devices.len(),
            "the node's network devices changed"
        );
        self.devices = devices;
        self.devices_wait = true;
    }

    /// Something came behind a bridge of the node, or went.
    fn stations_changed(&mut self, stations: Arc<Stations>) {
        tracing::debug!(stations = stations.len(), "what is behind bridges changed");
        if stations.has_left_out() && !self.stations.has_left_out() {
            tracing::warn!(
                limit = STATIONS_MAX,
                "more is behind bridges than is followed: the rest gets its packets through them"
            );
        }
        self.stations = stations;
        self.devices_wait = true;
    }

    /// What rules and maps depend on besides the plans, as things are now.
    fn facts(&self) -> Facts {
        Facts {
            settings: Arc::clone(&self.settings),
            node: self.node.clone(),
            families: self.families.clone(),
            local_addresses: Arc::clone(&self.local_addresses),
            devices: Arc::clone(&self.devices),
            stations: Arc::clone(&self.stations),
            large: self.large.clone(),
            schedulers: Arc::clone(&self.schedulers),
            service_cidrs: self.service_cidrs(),
            drains: self.drains,
        }
    }

    fn service_cidrs(&self) -> Vec<IpNet> {
        let all = self.store.service_cidrs();
        let mut networks: Vec<IpNet> = all
            .flat_map(|object| object.cidrs.iter().copied())
            .collect();
        networks.sort_unstable();
        networks.dedup();
        networks
    }

    /// The node's addresses, or which of them accept node ports, are others now.
    fn tell_conntrack(&self) {
        if let Some(conntrack) = &self.conntrack {
            conntrack.set_node_ports(self.node_port_destinations());
        }
    }

    fn node_port_destinations(&self) -> NodePortDestinations {
        NodePortDestinations {
            local: Arc::clone(&self.local_addresses),
            accepted: self.node.node_port_addresses.clone(),
            node_ips: self.node.ips.clone(),
            localhost: self.node.localhost_node_ports,
        }
    }

    /// Plans every dirty Service anew.
    fn plan(&mut self) {
        for name in std::mem::take(&mut self.pending.dirty) {
            for change in self.table.replan(&self.store, &name, &self.node) {
                self.pending.add(change);
            }
            self.report_conflicts(name);
        }
    }

    /// Says once which ports of a Service do without an address.
    fn report_conflicts(&mut self, service: ObjectName) {
        let conflicts = self.table.conflicts(&service);
        let known = self.conflicts.get(&service).map_or(&[][..], Vec::as_slice);
        for conflict in conflicts
            .iter()
            .filter(|conflict| !known.contains(conflict))
        {
            tracing::warn!(
                service_port = %conflict.loser, frontend = ?conflict.frontend,
                owner = %conflict.owner,
                "does without an address that an older Service has"
            );
        }
        if conflicts.is_empty() {
            self.conflicts.remove(&service);
        } else {
            self.conflicts.insert(service, conflicts);
        }
    }

    /// Sees which families have grown large or have shrunk: their rules are written anew.
    fn measure(&mut self) {
        if self.mode != Mode::Iptables {
            return;
        }
        for family in self.families.clone() {
            let plans = self.table.plans().filter(|plan| plan.id.family == family);
            let endpoints: usize = plans
                .map(|plan| plan.cluster.len().max(plan.local.len()))
                .sum();
            let changed = if endpoints > LARGE_ENDPOINTS.end {
                self.large.insert(family)
            } else if endpoints < LARGE_ENDPOINTS.start {
                self.large.remove(&family)
            } else {
                false
            };
            if changed {
                let large = self.large.contains(&family);
                tracing::info!(
                    %family, endpoints, large,
                    "rules of single endpoints carry comments only in smaller clusters"
                );
                self.pending.rewrite([family]);
            }
        }
    }

    /// Where health-check node ports are listened on: where node ports are accepted.
    fn health_check_addresses(&self) -> Vec<IpAddr> {
        let of_family = |family: &IpFamily| {
            let accepted = node_port_addresses(&self.node, *family, &self.local_addresses);
            accepted.unwrap_or_else(|| {
                vec![match family {
                    IpFamily::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    IpFamily::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                }]
            })
        };
        // One of a link is none without its link.
        let is_bindable =
            |address: &IpAddr| !matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let all = self.families.iter().flat_map(of_family);
        all.filter(is_bindable).collect()
    }

    /// Follows the plans where no backend does it: health checks and the localhost relay.
    fn follow_up(&mut self) {
        let checks: BTreeMap<_, _> = self
            .table
            .health_checks()
            .map(|(name, check)| (name.clone(), check))
            .collect();
        let addresses = self.health_check_addresses();
        for failure in self.checks.reconcile(&checks, addresses) {
            self.teller.health_check_failed(&failure.service, &failure);
        }
        for relay in &mut self.relays {
            relay.reconcile(self.table.plans());
        }
    }
}

/// Work that is under way, if any.
async fn finished(running: &mut Option<JoinHandle<Done>>) -> Result<Done, StartError> {
    match running {
        Some(handle) => {
            let done = handle
                .await
                .map_err(|error| StartError::Worker(error.to_string()));
            *running = None;
            done
        }
        None => std::future::pending().await,
    }
}
