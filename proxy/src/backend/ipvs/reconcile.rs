//! Reading what is there, and writing the difference to what should be.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchyard_netlink::ipset::{Entry, Ipset};
use switchyard_netlink::ipvs::{Change, Ipvs as Kernel, ServiceKey};

use super::apply::{Ipvs, Members, Work};
use super::change::Services;
use super::config::Config;
use super::device::Device;
use super::difference::{ServiceChanges, difference, ended};
use super::error::IpvsModeError;
use super::form::{Draining, Fragment, Present};
use super::read::{self, Ownership};
use super::rules;
use super::sets::Set;
use crate::backend::holders::Holders;
use crate::backend::xtables::{Batch, Tables, Tampering, Tool, ToolError};
use crate::backend::{Report, Written};
use crate::plan::{PlanId, ServicePlan, is_api_server};

/// Rules are read and compared this often even if nothing hints at a difference.
const RULES_PERIOD: Duration = Duration::from_secs(3600);

/// What all plans want, added up.
#[derive(Default)]
struct Sum {
    services: Services,
    members: BTreeMap<Set, Holders<Entry>>,
    addresses: Holders<IpAddr>,
    elsewhere: HashSet<IpAddr>,
    /// Of the API server's Service.
    first: Vec<ServiceKey>,
    first_addresses: Vec<IpAddr>,
}

impl Ipvs {
    /// One family. Makes the device and the sets, and tries whether rules can match sets;
    /// touches nothing else.
    ///
    /// # Errors
    /// What the mode needs and the machine lacks.
    pub fn open(config: Config, tool: Tool) -> Result<Self, IpvsModeError> {
        let (device, _) = Device::ensure()?;
        let mut ipvs = Self {
            kernel: Kernel::open()?,
            ipset: Ipset::open()?,
            device,
            programmed: HashMap::new(),
            members: BTreeMap::new(),
            addresses: Holders::default(),
            draining: Draining::new(),
            specs: BTreeMap::new(),
            refused: BTreeMap::new(),
            said_elsewhere: HashSet::new(),
            tampering: Tampering::new(&tool),
            rules_read: None,
            earlier: HashSet::new(),
            config,
            tool,
        };
        ipvs.make_sets()?;
        let set = Set::ClusterIp.name(ipvs.config.family);
        ipvs.tool
            .probe(&format!("-m set --match-set {set} dst,dst -j RETURN"))
            .map_err(IpvsModeError::NoSetMatch)?;
        Ok(ipvs)
    }

    /// Reads all that is ours, compares it with `plans` and writes the difference: at start
    /// this adopts what an earlier run or the reference left, later it repairs.
    ///
    /// # Errors
    /// When something can't be read or written. What was written until then stays; the next
    /// try goes on from there.
    pub fn reconcile(
        &mut self,
        config: Config,
        plans: &[Arc<ServicePlan>],
    ) -> Result<Report, IpvsModeError> {
        // Anew each time: sockets may have outlived the modules they talk to.
        self.kernel = Kernel::open()?;
        self.ipset = Ipset::open()?;
        let (device, is_new) = Device::ensure()?;
        self.device = device;
        let family = config.family;
        let held_addresses = self.device.addresses(family)?;
        let config = config.with_held(held_addresses.elsewhere);
        let rules_are_known = config == self.config && self.rules_are_known();
        self.note_earlier(&config);
        self.config = config;
        let plans: Vec<&Arc<ServicePlan>> = plans
            .iter()
            .filter(|plan| plan.id.family == family)
            .collect();
        self.sweep()?;
        let sum = self.sum(&plans);
        let mut repaired = usize::from(is_new) + self.ensure_sets(&sum.members)?;
        let tables = if rules_are_known {
            None
        } else {
            Some(Tables::read(&self.tool)?)
        };
        let held_members = read::members(&mut self.ipset, &self.config)?;
        let ownership = Ownership::of(&held_members, held_addresses.ours, self.earlier.clone());
        self.say_elsewhere(sum.elsewhere.iter());
        let present = read::services(
            &mut self.kernel,
            &self.config,
            &ownership,
            &sum.services.wanted,
        )?;
        let services = difference(&present, &sum.services.wanted, &sum.first);
        let mut work = sum.work(services, &held_members, &ownership.addresses);
        // A service that stays keeps its address.
        work.addresses_going
            .retain(|address| !self.config.is_excluded(*address));
        let size = work.size();
        repaired += size - ended_by_themselves(&work.services, &present);
        self.members = sum.members;
        self.addresses = sum.addresses;
        self.draining = work.services.draining.clone();
        self.refused.clear();
        self.programmed = plans
            .iter()
            .map(|plan| (plan.id.clone(), Arc::clone(plan)))
            .collect();
        let first = (sum.first, sum.first_addresses);
        repaired += self.write_all(&work, tables.as_ref(), &sum.services, &first)?;
        self.tampering.settle();
        if tables.is_some() {
            self.rules_read = Some(Instant::now());
        }
        self.earlier.clear();
        for id in self.refused.keys() {
            self.programmed.remove(id);
        }
        Ok(Report {
            written: Written::Changes(size),
            repaired,
        })
    }

    /// Whether the rules are what they were when they were last compared, as far as can be told
    /// without reading them.
    fn rules_are_known(&mut self) -> bool {
        let read = self.rules_read.map(|at| at.elapsed());
        !self.tampering.is_suspected() && read.is_some_and(|ago| ago < RULES_PERIOD)
    }

    /// Remembers the services that this run wrote, where a new configuration may give others: with
    /// another address of the node, for example.
    fn note_earlier(&mut self, config: &Config) {
        if *config == self.config {
            return;
        }
        let plans = self.programmed.values();
        let services = plans.flat_map(|plan| self.compile(plan).services);
        let keys: Vec<ServiceKey> = services.map(|service| service.service.key).collect();
        self.earlier.extend(keys);
    }

    fn sum(&self, plans: &[&Arc<ServicePlan>]) -> Sum {
        let mut sum = Sum::default();
        // An address that a Service has by itself counts before one that has its node port.
        let (mut vips, mut node_ports) = (Vec::new(), Vec::new());
        for plan in plans {
            let fragment = self.compile(plan);
            sum.add(&plan.id, &fragment);
            for service in fragment.services {
                let list = if service.service.key.address.port() == plan.port {
                    &mut vips
                } else {
                    &mut node_ports
                };
                list.push((&plan.id, service));
            }
        }
        for (id, service) in vips.into_iter().chain(node_ports) {
            let key = service.service.key;
            if let std::collections::btree_map::Entry::Vacant(place) =
                sum.services.wanted.entry(key)
            {
                place.insert(service);
                sum.services.owners.insert(key, id.clone());
            }
        }
        sum
    }

    /// All of it, in an order in which a new node reaches the API server first, and in which one
    /// that was in iptables mode is served all the while: its rules translate before IPVS gets
    /// to see anything, so they go last. Returns how many chains and jumps were not right.
    fn write_all(
        &mut self,
        work: &Work,
        tables: Option<&Tables>,
        services: &Services,
        (first, first_addresses): &(Vec<ServiceKey>, Vec<IpAddr>),
    ) -> Result<usize, IpvsModeError> {
        self.add_members(&work.members_coming)?;
        let (early, late) = match tables {
            Some(tables) if translates(tables, &self.config) => (None, Some(tables)),
            tables => (tables, None),
        };
        let mut chains = 0;
        if let Some(tables) = early {
            chains += self.write_rules(tables)?;
        }
        let (api, rest): (Vec<Change>, Vec<Change>) = work
            .services
            .coming
            .iter()
            .partition(|change| first.contains(&change.service()));
        self.change_blaming(&api, services)?;
        let coming = |these: bool| -> Vec<IpAddr> {
            let all = work.addresses_coming.iter().copied();
            all.filter(|address| first_addresses.contains(address) == these)
                .collect()
        };
        self.device.add(&coming(true))?;
        self.change_blaming(&rest, services)?;
        self.device.add(&coming(false))?;
        if let Some(tables) = late {
            chains += self.write_rules(tables)?;
        }
        self.remove(work)?;
        Ok(chains)
    }

    fn write_rules(&self, tables: &Tables) -> Result<usize, ToolError> {
        let mut batch = Batch::default();
        let mut differing = 0;
        for fixed in rules::chains(&self.config) {
            if tables.table(fixed.table).differs(&fixed.chain) {
                batch.write_chains(fixed.table, std::iter::once(&fixed.chain));
                differing += 1;
            }
        }
        differing += batch.insert_missing(&rules::jumps(), tables);
        self.restore(batch)?;
        Ok(differing)
    }

    /// Deletes draining destinations whose connections have ended. Only services that have any
    /// are asked for theirs.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn sweep(&mut self) -> Result<usize, IpvsModeError> {
        let mut changes = Vec::new();
        for (key, draining) in &self.draining {
            let Some(service) = self.kernel.service(key)? else {
                continue;
            };
            let held = read::held_service(&mut self.kernel, service)?;
            changes.extend(ended(*key, draining, &held));
        }
        for failure in self.kernel.apply(&changes)? {
            tracing::debug!(error = %failure.error, "a drained endpoint could not be deleted");
        }
        for change in &changes {
            if let (Some(draining), Some(address)) = (
                self.draining.get_mut(&change.service()),
                change.destination(),
            ) {
                draining.remove(&address);
            }
        }
        self.draining.retain(|_, draining| !draining.is_empty());
        Ok(changes.len())
    }
}

impl Sum {
    /// What leads there from what the kernel holds.
    fn work(
        &self,
        services: ServiceChanges,
        members: &BTreeMap<Set, HashSet<Entry>>,
        addresses: &BTreeSet<IpAddr>,
    ) -> Work {
        let wanted = self.addresses.all();
        let held = addresses.iter().copied();
        Work {
            members_coming: coming(&self.members, members),
            members_going: going(&self.members, members),
            services,
            addresses_coming: wanted
                .filter(|address| !addresses.contains(address))
                .collect(),
            addresses_going: held
                .filter(|address| !self.addresses.contains(*address))
                .collect(),
        }
    }

    fn add(&mut self, id: &PlanId, fragment: &Fragment) {
        for (set, entry) in &fragment.members {
            self.members.entry(*set).or_default().hold(*entry);
        }
        for address in &fragment.addresses {
            self.addresses.hold(*address);
        }
        self.elsewhere.extend(&fragment.elsewhere);
        if is_api_server(id) {
            let keys = fragment.services.iter().map(|service| service.service.key);
            self.first.extend(keys);
            self.first_addresses.extend(&fragment.addresses);
        }
    }
}

/// Whether KUBE-SERVICES holds rules of iptables mode, ours or the reference's.
fn translates(tables: &Tables, config: &Config) -> bool {
    let there = tables.nat.rules(rules::SERVICES);
    let ours = rules::chains(config)
        .into_iter()
        .find(|fixed| fixed.chain.name == rules::SERVICES);
    let first = ours.and_then(|fixed| fixed.chain.rules.into_iter().next());
    !there.is_empty() && first.is_some_and(|rule| !tables.nat.has_rule(rules::SERVICES, &rule))
}

fn coming(wanted: &BTreeMap<Set, Holders<Entry>>, held: &BTreeMap<Set, HashSet<Entry>>) -> Members {
    let mut members = Members::new();
    for (set, wanted) in wanted {
        let missing = wanted
            .all()
            .filter(|entry| !held.get(set).is_some_and(|held| held.contains(entry)));
        let missing: Vec<Entry> = missing.collect();
        if !missing.is_empty() {
            members.insert(*set, missing);
        }
    }
    members
}

fn going(wanted: &BTreeMap<Set, Holders<Entry>>, held: &BTreeMap<Set, HashSet<Entry>>) -> Members {
    let mut members = Members::new();
    for (set, held) in held {
        let surplus = held.iter().copied().filter(|entry| {
            !wanted
                .get(set)
                .is_some_and(|wanted| wanted.contains(*entry))
        });
        let surplus: Vec<Entry> = surplus.collect();
        if !surplus.is_empty() {
            members.insert(*set, surplus);
        }
    }
    members
}

/// Destinations that had been told to drain and now go: nobody's doing but time's.
fn ended_by_themselves(changes: &ServiceChanges, present: &Present) -> usize {
    let is_drained = |change: &&Change| match change {
        Change::DeleteDestination(key, address) => present
            .get(key)
            .and_then(|held| held.destinations.get(address))
            .is_some_and(|held| held.destination.weight == 0),
        _ => false,
    };
    changes.going.iter().filter(is_drained).count()
}
