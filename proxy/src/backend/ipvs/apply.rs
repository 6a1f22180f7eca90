//! Writing what changed, and only that: no list is asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use switchyard_netlink::ipset::{Entry, Ipset, SetSpec};
use switchyard_netlink::ipvs::{Ipvs as Kernel, ServiceKey};

use super::compile::compile;
use super::config::Config;
use super::device::Device;
use super::difference::{ServiceChanges, difference};
use super::error::IpvsModeError;
use super::form::{Draining, Fragment, Present, Wanted, as_written};
use super::sets::Set;
use crate::backend::holders::Holders;
use crate::backend::xtables::{Tampering, Tool};
use crate::backend::{Refusal, Report, Written};
use crate::plan::{PlanChange, PlanId, ServicePlan};

/// Members of sets, by set.
pub(super) type Members = BTreeMap<Set, Vec<Entry>>;

/// One IP family: what was programmed, and how to program more.
#[derive(Debug)]
pub struct Ipvs {
    pub(super) config: Config,
    pub(super) tool: Tool,
    pub(super) kernel: Kernel,
    pub(super) ipset: Ipset,
    pub(super) device: Device,
    /// What the kernel holds, as far as we wrote it.
    pub(super) programmed: HashMap<PlanId, Arc<ServicePlan>>,
    pub(super) members: BTreeMap<Set, Holders<Entry>>,
    pub(super) addresses: Holders<IpAddr>,
    /// Destinations of weight 0 that wait for their connections to end.
    pub(super) draining: Draining,
    /// The sets' sizes.
    pub(super) specs: BTreeMap<Set, SetSpec>,
    /// What it should hold but refused.
    pub(super) refused: BTreeMap<PlanId, Refusal>,
    /// VIPs on other interfaces, as they were last said.
    pub(super) said_elsewhere: HashSet<IpAddr>,
    pub(super) tampering: Tampering,
    /// When the rules were last read.
    pub(super) rules_read: Option<Instant>,
    /// Services of earlier configurations that may still be there.
    pub(super) earlier: HashSet<ServiceKey>,
}

/// What is to be written at once.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) members_coming: Members,
    pub(super) members_going: Members,
    pub(super) services: ServiceChanges,
    pub(super) addresses_coming: Vec<IpAddr>,
    pub(super) addresses_going: Vec<IpAddr>,
}

impl Work {
    /// How many members, services, destinations and addresses are written or removed.
    pub(super) fn size(&self) -> usize {
        let members = self
            .members_coming
            .values()
            .chain(self.members_going.values());
        let members: usize = members.map(Vec::len).sum();
        let services = self.services.coming.len() + self.services.going.len();
        members + services + self.addresses_coming.len() + self.addresses_going.len()
    }
}

impl Ipvs {
    /// What the kernel form depends on besides the plans.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The plans the kernel does not hold as they should be, and why.
    #[must_use]
    pub const fn refused(&self) -> &BTreeMap<PlanId, Refusal> {
        &self.refused
    }

    /// Writes the changes.
    ///
    /// # Errors
    /// When one of them, or all, could not be written. Reconcile then: that finds out which
    /// change is to blame, and writes all others.
    pub fn apply(&mut self, changes: &[PlanChange]) -> Result<Report, IpvsModeError> {
        let of_family = || {
            changes
                .iter()
                .filter(|change| change.id.family == self.config.family)
        };
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for change in of_family() {
            old.extend(
                self.programmed
                    .get(&change.id)
                    .map(|plan| self.compile(plan)),
            );
            new.extend(change.new.iter().map(|plan| self.compile(plan)));
        }
        for change in of_family().cloned().collect::<Vec<_>>() {
            match change.new {
                Some(plan) => drop(self.programmed.insert(change.id, plan)),
                None => drop(self.programmed.remove(&change.id)),
            }
        }
        self.say_elsewhere(new.iter().flat_map(|fragment| &fragment.elsewhere));
        let work = self.work(&old, &new);
        let size = work.size();
        self.write(&work)?;
        Ok(Report {
            written: Written::Changes(size),
            repaired: 0,
        })
    }

    pub(super) fn compile(&self, plan: &ServicePlan) -> Fragment {
        compile(plan, &self.config)
    }

    /// What leads from the old fragments to the new ones.
    fn work(&mut self, old: &[Fragment], new: &[Fragment]) -> Work {
        let present: Present = old
            .iter()
            .flat_map(|fragment| &fragment.services)
            .map(|service| (service.service.key, as_written(service, &self.draining)))
            .collect();
        let mut wanted = Wanted::new();
        for service in new.iter().flat_map(|fragment| &fragment.services) {
            let key = service.service.key;
            wanted.entry(key).or_insert_with(|| service.clone());
        }
        let services = difference(&present, &wanted, &[]);
        for key in present.keys() {
            self.draining.remove(key);
        }
        self.draining.extend(services.draining.clone());
        let (before, after) = (members_of(old), members_of(new));
        let (mut members_coming, mut members_going) = (Members::new(), Members::new());
        for set in Set::ALL {
            let of = |members: &Members| members.get(&set).cloned().unwrap_or_default();
            let holders = self.members.entry(set).or_default();
            let (came, gone) = holders.change(&of(&before), &of(&after));
            if !came.is_empty() {
                members_coming.insert(set, came);
            }
            if !gone.is_empty() {
                members_going.insert(set, gone);
            }
        }
        let addresses = |fragments: &[Fragment]| -> Vec<IpAddr> {
            let all = fragments.iter();
            all.flat_map(|fragment| fragment.addresses.iter().copied())
                .collect()
        };
        let (before, after) = (addresses(old), addresses(new));
        let (addresses_coming, addresses_going) = self.addresses.change(&before, &after);
        Work {
            members_coming,
            members_going,
            services,
            addresses_coming,
            addresses_going,
        }
    }

    /// Writes all of it: what lets packets be masqueraded and refused, then services with their
    /// destinations, then the addresses that bring packets there; then what goes.
    fn write(&mut self, work: &Work) -> Result<(), IpvsModeError> {
        self.add_members(&work.members_coming)?;
        self.change_services(&work.services.coming)?;
        self.device.add(&work.addresses_coming)?;
        self.remove(work)
    }

    /// Removes what goes. A VIP is refused before it is served no longer: what listens on the node
    /// is not to be reached through it. It stays an address of ours as long as it has a virtual
    /// service: should we be killed in the middle, that tells whose the service is.
    pub(super) fn remove(&mut self, work: &Work) -> Result<(), IpvsModeError> {
        self.remove_members(&work.members_going, Set::lets_in)?;
        self.change_services(&work.services.going)?;
        self.device.remove(&work.addresses_going)?;
        self.remove_members(&work.members_going, |set| !set.lets_in())
    }

    /// Adds members, to larger sets where they would not fit.
    pub(super) fn add_members(&mut self, members: &Members) -> Result<(), IpvsModeError> {
        let family = self.config.family;
        for (set, entries) in members {
            let name = set.name(family);
            let size = self.members.get(set).map_or(0, Holders::len);
            let spec = self.specs.entry(*set).or_insert_with(|| set.spec(family));
            self.ipset.make_room(&name, spec, size)?;
            self.ipset.add(&name, entries)?;
        }
        Ok(())
    }

    fn remove_members(
        &mut self,
        members: &Members,
        these: impl Fn(Set) -> bool,
    ) -> Result<(), IpvsModeError> {
        for (set, entries) in members.iter().filter(|(set, _)| these(**set)) {
            self.ipset.remove(&set.name(self.config.family), entries)?;
        }
        Ok(())
    }

    /// Says once of each VIP that another interface has it: it is left there, and works.
    pub(super) fn say_elsewhere<'a>(&mut self, vips: impl Iterator<Item = &'a IpAddr>) {
        for vip in vips {
            if self.said_elsewhere.insert(*vip) {
                tracing::info!(
                    %vip, device = super::device::NAME,
                    "an address of a Service is on another interface: left there, not bound to \
                     ours"
                );
            }
        }
    }
}

/// Members of all fragments, by set.
pub(super) fn members_of(fragments: &[Fragment]) -> Members {
    let mut members = Members::new();
    for (set, entry) in fragments.iter().flat_map(|fragment| &fragment.members) {
        members.entry(*set).or_default().push(*entry);
    }
    members
}
