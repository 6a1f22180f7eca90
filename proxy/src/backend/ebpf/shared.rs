//! The maps that outlive a set, and what is kept of them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuArray, PerCpuHashMap};
use switchyard_cluster::object::Protocol;
use switchyard_datapath::layout::{
    Address, AffinityKey, AffinityValue, Connected, CounterKey, Counters, UDP, map_names,
};

use super::flows::{Flows, Pressure, Swept};
use super::former::Former;
use super::identities::Identities;
use super::live::{Programmed, serving};
use super::programs::Loaded;
use super::tables::gone;
use super::{ConntrackTimeouts, DropReason, EbpfError, ServiceTotals};
use crate::plan::{PlanId, ServicePlan};
use crate::sockets::{GivenEndpoint, Janitor, NamespaceSources};

/// Everything that is kept beside the sets of maps.
pub(super) struct Shared {
    pub(super) identities: Identities,
    pub(super) flows: Flows,
    affinity: aya::maps::HashMap<MapData, AffinityKey, AffinityValue>,
    counters: PerCpuHashMap<MapData, CounterKey, Counters>,
    drops: PerCpuArray<MapData, u64>,
    connected: OwnedFd,
    janitor: Janitor,
    /// Which UDP endpoints may keep their sockets and flows.
    serving: Arc<Mutex<HashSet<GivenEndpoint>>>,
    /// The same by Service, as it was last followed.
    followed: HashMap<u32, HashSet<GivenEndpoint>>,
    destroyed: Arc<Mutex<u64>>,
    /// What counters that were removed had counted, by Service.
    retired: HashMap<u32, ServiceTotals>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let identities = self.identities.len();
        f.debug_struct("Shared")
            .field("identities", &identities)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes the maps of the first load.
    pub(super) fn of(loaded: &mut Loaded) -> Result<Self, EbpfError> {
        let connected = loaded.descriptor(map_names::CONNECTED)?;
        let counted = loaded.descriptor(map_names::CONNECTED)?;
        let destroyed = Arc::new(Mutex::new(0));
        let total = Arc::clone(&destroyed);
        let recall = move |show: &mut dyn FnMut(u64, GivenEndpoint)| {
            switchyard_kernel::entries(connected.as_fd(), |cookie: &u64, to: &Connected| {
                if to.protocol == UDP {
                    show(*cookie, given(to));
                }
            })
        };
        let janitor = Janitor::start(NamespaceSources::default(), Box::new(recall), move |pass| {
            *total.lock().unwrap_or_else(PoisonError::into_inner) +=
                pass.destroyed.values().sum::<u64>();
        });
        Ok(Self {
            identities: Identities::of(loaded.shared(map_names::IDENTITIES)?),
            flows: Flows::of(loaded)?,
            affinity: loaded.shared(map_names::AFFINITY)?,
            counters: loaded.shared(map_names::COUNTERS)?,
            drops: loaded.shared(map_names::DROPS)?,
            connected: counted,
            janitor: janitor.map_err(EbpfError::system(
                "starting the thread that looks after UDP sockets",
            ))?,
            serving: Arc::default(),
            followed: HashMap::new(),
            destroyed,
            retired: HashMap::new(),
        })
    }

    /// Follows what one plan is now (`None`: gone): sockets on endpoints that no longer serve
    /// are told. True if there are such endpoints. What it was before is what was followed last,
    /// whatever came between.
    pub(super) fn follow(&mut self, index: u32, plan: Option<&ServicePlan>) -> bool {
        let after: HashSet<GivenEndpoint> = plan
            .iter()
            .flat_map(|plan| udp_endpoints(index, plan))
            .collect();
        let before = self.followed.remove(&index).unwrap_or_default();
        let gone: Vec<GivenEndpoint> = before.difference(&after).copied().collect();
        let come: Vec<GivenEndpoint> = after.difference(&before).copied().collect();
        if !after.is_empty() {
            self.followed.insert(index, after);
        }
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        for endpoint in &gone {
            serving.remove(endpoint);
        }
        serving.extend(&come);
        drop(serving);
        self.janitor.serving(&come);
        self.janitor.stale(&gone);
        !gone.is_empty()
    }

    /// Follows all plans: those that are not among them are gone, and their indexes free.
    pub(super) fn follow_all(&mut self, programmed: &HashSet<Programmed>) -> bool {
        let mut has_gone = false;
        for programmed in programmed {
            has_gone |= self.follow(programmed.index, Some(&programmed.plan));
        }
        let there: HashSet<u32> = programmed.iter().map(|at| at.index).collect();
        let followed = self.followed.keys();
        let gone: Vec<u32> = followed
            .copied()
            .filter(|index| !there.contains(index))
            .collect();
        for index in gone {
            has_gone |= self.follow(index, None);
        }
        self.identities.retain(|index| there.contains(&index));
        has_gone
    }

    /// Looks at all sockets: what changed while no agent ran is found so.
    pub(super) fn look_at_all_sockets(&self) {
        let serving = Arc::clone(&self.serving);
        self.janitor.retain(move |endpoint| {
            let serving = serving.lock().unwrap_or_else(PoisonError::into_inner);
            serving.contains(&endpoint)
        });
    }

    /// Takes over the flows of an agent of an earlier schema, if there was one.
    pub(super) fn carry_over(&mut self, former: Option<&Former>) -> Result<(), EbpfError> {
        match former {
            Some(former) => former.copy_flows(&mut self.flows),
            None => Ok(()),
        }
    }

    /// Forgets flows that are over.
    pub(super) fn sweep_flows(
        &mut self,
        timeouts: &ConntrackTimeouts,
        with_stale: bool,
        pressure: Pressure,
    ) -> Result<Swept, EbpfError> {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        self.flows.sweep(
            monotonic_ns(),
            timeouts,
            pressure,
            |service, address, port| {
                with_stale && !serving.contains(&given_endpoint(service, *address, port))
            },
        )
    }

    /// Sockets that were destroyed since this was last asked.
    pub(super) fn take_destroyed(&self) -> u64 {
        let mut destroyed = self
            .destroyed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *destroyed)
    }

    /// How many connected sockets are remembered.
    pub(super) fn connected_sockets(&self) -> Result<usize, EbpfError> {
        let mut count = 0;
        let name = map_names::CONNECTED;
        switchyard_kernel::entries(self.connected.as_fd(), |_: &u64, _: &Connected| count += 1)
            .map_err(EbpfError::system(format!("reading {name}")))?;
        Ok(count)
    }

    /// Forgets clients whose affinity has timed out, or whose Service is gone. Returns how many
    /// stay.
    pub(super) fn sweep_affinity(
        &mut self,
        programmed: &HashSet<Programmed>,
    ) -> Result<usize, EbpfError> {
        let timeout_s = |service| {
            let plan = programmed.get(self.identities.name(service)?)?;
            plan.plan.affinity_timeout_s
        };
        let (now_ns, mut stay, mut over) = (monotonic_ns(), 0, Vec::new());
        for entry in &self.affinity {
            let (key, value) = entry.map_err(|error| EbpfError::map(map_names::AFFINITY, error))?;
            let age = Duration::from_nanos(now_ns.saturating_sub(value.used_ns));
            let limit = timeout_s(key.service).map(|limit| Duration::from_secs(limit.into()));
            if limit.is_some_and(|limit| age <= limit) {
                stay += 1;
            } else {
                over.push(key);
            }
        }
        for key in over {
            // It may have gone by itself meanwhile.
            let _ = self.affinity.remove(&key);
        }
        Ok(stay)
    }

    /// What every Service port carried. Counters of endpoints that are gone are removed, their
    /// counts kept. Returns how many counters stay as well.
    pub(super) fn totals(
        &mut self,
        programmed: &HashSet<Programmed>,
    ) -> Result<(Vec<(PlanId, ServiceTotals)>, usize), EbpfError> {
        let mut totals = self.retired.clone();
        let (mut over, mut stay) = (Vec::new(), 0);
        for entry in &self.counters {
            let (key, values) =
                entry.map_err(|error| EbpfError::map(map_names::COUNTERS, error))?;
            let sum = values
                .iter()
                .fold(ServiceTotals::default(), |sum, cpu| ServiceTotals {
                    connections: sum.connections.wrapping_add(cpu.connections),
                    packets: sum.packets.wrapping_add(cpu.packets),
                    bytes: sum.bytes.wrapping_add(cpu.bytes),
                });
            add(totals.entry(key.service).or_default(), sum);
            if self.is_endpoint(programmed, &key) {
                stay += 1;
            } else {
                over.push((key, sum));
            }
        }
        for (key, sum) in over {
            // What stays is counted once more the next time.
            if gone(map_names::COUNTERS, self.counters.remove(&key)).is_ok() {
                add(self.retired.entry(key.service).or_default(), sum);
            }
        }
        let identities = &self.identities;
        self.retired
            .retain(|service, _| identities.name(*service).is_some());
        let named = totals
            .into_iter()
            .filter_map(|(index, totals)| Some((identities.name(index)?.clone(), totals)));
        Ok((named.collect(), stay))
    }

    /// Whether a counter's endpoint still is one of its Service port's.
    fn is_endpoint(&self, programmed: &HashSet<Programmed>, key: &CounterKey) -> bool {
        let id = self.identities.name(key.service);
        let Some(programmed) = id.and_then(|id| programmed.get(id)) else {
            return false;
        };
        let plan = &programmed.plan;
        let lists = [&plan.cluster, &plan.local, &plan.serving];
        lists.into_iter().flatten().any(|target| {
            target.port == u16::from_be(key.port) && Address::from(target.address) == key.address
        })
    }

    /// Refusals by reason.
    pub(super) fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.into_iter();
        all.filter_map(|reason| {
            let values = self.drops.get(&reason.number(), 0).ok()?;
            let sum = values.iter().fold(0_u64, |sum, cpu| sum.wrapping_add(*cpu));
            Some((reason, sum))
        })
        .collect()
    }
}

fn add(to: &mut ServiceTotals, more: ServiceTotals) {
    to.connections = to.connections.wrapping_add(more.connections);
    to.packets = to.packets.wrapping_add(more.packets);
    to.bytes = to.bytes.wrapping_add(more.bytes);
}

fn given(to: &Connected) -> GivenEndpoint {
    given_endpoint(to.service, to.endpoint, to.endpoint_port)
}

/// An endpoint of a map, with its port in network byte order, as the janitor knows it.
fn given_endpoint(service: u32, address: Address, port: u16) -> GivenEndpoint {
    GivenEndpoint {
        service,
        address: SocketAddr::new(address.into(), u16::from_be(port)),
    }
}

fn udp_endpoints(index: u32, plan: &ServicePlan) -> impl Iterator<Item = GivenEndpoint> + '_ {
    let is_udp = plan.id.protocol == Protocol::Udp;
    serving(plan)
        .filter(move |_| is_udp)
        .map(move |(address, port)| given_endpoint(index, address, port))
}

/// The clock that the programs read.
pub(super) fn monotonic_ns() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// When something is next due.
#[derive(Debug)]
pub(super) struct Every {
    period: Duration,
    last: Option<Instant>,
}

impl Every {
    pub(super) const fn new(period: Duration) -> Self {
        Self { period, last: None }
    }

    /// Whether it is due; it then counts as done.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= self.period);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }

    /// Makes it due.
    pub(super) const fn hasten(&mut self) {
        self.last = None;
    }
}
