//! Setting everything up, and the loop that drives the agent.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use switchyard_cluster::journal::Journal;
use switchyard_cluster::object::{IpFamily, Kind};
use switchyard_cluster::source;
use switchyard_cluster::store::Store;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use super::choice::{self, Choice};
use super::draining::Draining;
use super::error::{StartError, system};
use super::events::{self, Teller};
use super::facts::Facts;
use super::housekeeping::Exporter;
use super::leftovers::Leftovers;
use super::pending::Pending;
use super::reload::{Reload, unusable_or_changed};
use super::serve::serve;
use super::source::{api_options, check_source, ended_source, start_source};
use super::worker::Worker;
use super::{Agent, Done, finished, following, host, node, privileges};
use crate::addresses::AddressWatch;
use crate::backend::{Backend, Mode, ebpf};
use crate::conntrack::{ConntrackCleaner, NodePortDestinations};
use crate::devices::DeviceWatch;
use crate::health::{ServiceChecks, SharedState, State};
use crate::metrics::Metrics;
use crate::plan::{NodeContext, PlanTable};
use crate::relay::{Limits, Relay};
use crate::settings::Settings;
use crate::stations::StationWatch;

/// How long a stop waits for a sync that is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// When it is said what the start still waits for, and how often again.
const WAITING_NOTICE: Duration = Duration::from_secs(10);

/// Why the agent stopped, with nothing being wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A signal asked for it.
    Stopped,
    /// The configuration file says something else now: to be started anew, with that.
    Restart,
}

/// Runs until a signal ends it, or a change of the configuration file. The rules stay.
///
/// # Errors
/// When it can't start, or can't go on.
pub async fn run(settings: Settings, reload: Option<Reload>) -> Result<End, StartError> {
    host::check_privileges()?;
    host::raise_limits();
    host::set_oom_score(settings.oom_score_adj);
    let metrics = Arc::new(Metrics::new()?);
    let api = api_options(&settings, Some(metrics.request_observer()));
    let (teller, writing) = Teller::start(&settings.node_name, api.as_ref(), &metrics).await?;
    let end = drive(settings, reload, metrics, teller).await;
    events::finish(writing, end.is_err()).await;
    end
}

/// Starts everything, and keeps it going.
async fn drive(
    settings: Settings,
    mut reload: Option<Reload>,
    metrics: Arc<Metrics>,
    teller: Teller,
) -> Result<End, StartError> {
    let (updates_in, mut updates) = mpsc::channel(source::UPDATES_CAPACITY);
    let observer = Some(metrics.request_observer());
    check_source(&settings).await?;
    let choice = choice::choose(&settings)?;
    let mut addresses = AddressWatch::open()
        .map_err(|error| system("listing the node's addresses", io::Error::other(error)))?;
    let mut devices = following::devices(&choice)?;
    let mut stations = following::stations(&choice, &settings)?;
    let parts = Parts::new(
        settings,
        choice,
        &addresses,
        (devices.as_ref(), stations.as_ref()),
        reload.is_some(),
    )?;
    let mut source = start_source(&parts.facts.settings, updates_in, observer);
    let mut agent = Agent::new(parts, &addresses, metrics, teller).await?;
    devices = devices.filter(|_| agent.mode == Mode::Ebpf);
    stations = stations.filter(|_| agent.mode == Mode::Ebpf);
    let mut terminated = signals(SignalKind::terminate())?;
    let mut interrupted = signals(SignalKind::interrupt())?;
    let mut ticks = interval(agent.settings.sync_period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running: Option<JoinHandle<Done>> = None;
    let mut notice = Box::pin(sleep(WAITING_NOTICE));
    let end = loop {
        if running.is_none() {
            running = agent.attach();
        }
        let sync_at = agent.may_sync_at();
        let due = sync_at.unwrap_or_else(Instant::now).into();
        let housekeep_at = agent.housekeep_at();
        let housekeeping_due = housekeep_at.unwrap_or_else(Instant::now).into();
        tokio::select! {
            biased;
            _ = terminated.recv() => break End::Stopped,
            _ = interrupted.recv() => break End::Stopped,
            errors = unusable_or_changed(reload.as_mut(), &agent.settings) => match errors {
                None => break End::Restart,
                Some(errors) => agent.refuse_configuration(&errors),
            },
            done = finished(&mut running) => agent.done(done?),
            () = sleep_until(due), if sync_at.is_some() => running = agent.start_sync(),
            Some(update) = updates.recv() => agent.take_in(update, &mut updates),
            ended = &mut source => return Err(ended_source(ended)),
            changed = addresses.changed() => match changed {
                Ok(now) => agent.addresses_changed(now),
                Err(error) => tracing::warn!(%error, "the node's addresses can't be followed"),
            },
            changed = following::news(devices.as_mut()) => match changed {
                Ok(now) => agent.devices_changed(now),
                Err(error) => tracing::warn!(%error, "the node's devices can't be followed"),
            },
            changed = following::news(stations.as_mut()) => match changed {
                Ok(now) => agent.stations_changed(now),
                Err(error) => tracing::warn!(%error, "what is behind bridges can't be followed"),
            },
            () = sleep_until(housekeeping_due), if housekeep_at.is_some() => {
                running = agent.start_housekeeping();
            }
            _ = ticks.tick(), if running.is_none() => running = agent.tick(),
            () = &mut notice, if !agent.announced_sync => {
                agent.say_what_is_missing();
                notice = Box::pin(sleep(WAITING_NOTICE));
            }
        }
    };
    tracing::info!(
        "stopping; the {} stay in the kernel",
        agent.mode.what_stays()
    );
    if running.is_some() {
        // Ended in the middle, the tool might leave a lock or half of the sections.
        let _ = tokio::time::timeout(STOP_PATIENCE, finished(&mut running)).await;
    }
    Ok(end)
}

/// What programs the kernel, got ready while the process may still do everything.
struct Parts {
    backend: Backend,
    facts: Facts,
    leftovers: Leftovers,
}

impl Parts {
    fn new(
        settings: Settings,
        choice: Choice,
        addresses: &AddressWatch,
        (devices, stations): (Option<&DeviceWatch>, Option<&StationWatch>),
        may_restart: bool,
    ) -> Result<Self, StartError> {
        let leftovers = Leftovers::start()
            .map_err(|source| system("starting the thread that removes leftovers", source))?;
        let mut facts = Facts {
            node: node::context(&settings, None),
            settings: Arc::new(settings),
            families: Vec::new(),
            local_addresses: Arc::clone(addresses.current()),
            devices: following::current(devices),
            stations: following::current(stations),
            large: HashSet::new(),
            schedulers: Arc::default(),
            service_cidrs: Vec::new(),
            drains: false,
        };
        let chosen = choice.mode();
        choice.load_modules();
        host::set_up_kernel(&facts.settings, chosen);
        privileges::keep(privileges::at_first(&facts.settings, chosen), may_restart);
        let backend = choice::open(choice, &mut facts)?;
        let mode = backend.mode();
        if mode != chosen {
            host::set_up_kernel(&facts.settings, mode);
            privileges::keep(privileges::needed(mode), may_restart);
        }
        Ok(Self {
            backend,
            facts,
            leftovers,
        })
    }
}

impl Agent {
    async fn new(
        parts: Parts,
        addresses: &AddressWatch,
        metrics: Arc<Metrics>,
        teller: Teller,
    ) -> Result<Self, StartError> {
        let Parts {
            backend,
            facts,
            leftovers,
        } = parts;
        let mode = backend.mode();
        let Facts {
            settings,
            node,
            families,
            local_addresses,
            devices,
            stations,
            large,
            schedulers,
            service_cidrs: _,
            drains: _,
        } = facts;
        let drains = mode != Mode::Ebpf && ebpf::is_attached(&settings.ebpf.bpf_root);
        let health = SharedState::new(State::new(settings.sync_period, &families));
        health.lock().set_node_eligible(true);
        serve(&settings, mode, &health, &metrics, &teller).await?;
        let runtime = Handle::current();
        let checks = ServiceChecks::new(runtime.clone(), health.clone(), Arc::clone(&metrics));
        // Rules alone can't do it all; programs can.
        let (mut relays, mut conntrack) = (Vec::new(), None);
        if mode != Mode::Ebpf {
            relays = start_relays(&settings, mode, &families, &runtime, &metrics);
            conntrack = Some(start_cleaner(&settings, &node, addresses, &metrics)?);
        }
        teller.starting(mode);
        teller.chosen(&settings, mode);
        Ok(Self {
            mode,
            node,
            conntrack,
            worker: Some(Worker::new(backend, families.clone())),
            families,
            store: Store::new(&Kind::FOR_PROXY),
            source_journal: Journal::default(),
            node_was_seen: false,
            local_addresses,
            devices,
            stations,
            devices_wait: false,
            table: PlanTable::default(),
            conflicts: HashMap::new(),
            pending: Pending::default(),
            not_before: Instant::now(),
            failures: 0,
            refused: HashSet::new(),
            refused_failures: 0,
            retry_refused_at: None,
            last_audit: Instant::now(),
            repair_said: None,
            started_unix_ns: unix_ns(),
            announced_sync: false,
            adopted: HashSet::new(),
            leftovers,
            teller,
            not_programmed_told: HashSet::new(),
            leftovers_removed: false,
            hands_over: false,
            drains,
            draining: Draining::new(drains),
            housekeep_at: Instant::now(),
            exporter: Exporter::default(),
            large,
            schedulers,
            health,
            metrics,
            checks,
            relays,
            settings,
        })
    }

    fn say_what_is_missing(&self) {
        let kinds: Vec<&str> = self
            .store
            .waiting_for()
            .iter()
            .map(|kind| kind.as_str())
            .collect();
        tracing::warn!(
            waiting_for = kinds.join(", "),
            "still without the first list of some kinds: nothing is programmed until then, \
             and the {} that are there stay",
            self.mode.what_stays()
        );
    }
}

/// Node ports at loopback addresses that the kernel can't serve: `::1` by no rule, and 127.0.0.1
/// by rules of iptables only.
fn start_relays(
    settings: &Settings,
    mode: Mode,
    families: &[IpFamily],
    runtime: &Handle,
    metrics: &Arc<Metrics>,
) -> Vec<Relay> {
    let loopbacks = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let relayed = loopbacks.into_iter().filter(|address| {
        (address.is_ipv6() || mode != Mode::Iptables)
            && settings.localhost_node_ports
            && families.contains(&IpFamily::of(*address))
            && settings.node_port_addresses.accepts(*address, &[])
    });
    relayed
        .map(|address| {
            let metrics = Arc::clone(metrics);
            Relay::new(runtime.clone(), address, metrics, Limits::default())
        })
        .collect()
}

/// Stale UDP flows are cleaned off the path that writes rules.
fn start_cleaner(
    settings: &Settings,
    node: &NodeContext,
    addresses: &AddressWatch,
    metrics: &Arc<Metrics>,
) -> Result<ConntrackCleaner, StartError> {
    let node_ports = NodePortDestinations {
        local: Arc::clone(addresses.current()),
        accepted: settings.node_port_addresses.clone(),
        node_ips: node.ips.clone(),
        localhost: settings.localhost_node_ports,
    };
    let metrics = Arc::clone(metrics);
    ConntrackCleaner::start(node_ports, move |pass| {
        metrics
            .conntrack_reconcile_duration
            .observe(pass.family, pass.duration);
        metrics.conntrack_deleted.add(pass.family, pass.deleted);
    })
    .map_err(|source| system("starting the thread that cleans conntrack", source))
}

fn signals(kind: SignalKind) -> Result<tokio::signal::unix::Signal, StartError> {
    signal(kind).map_err(|source| system("listening for signals", source))
}

fn unix_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
