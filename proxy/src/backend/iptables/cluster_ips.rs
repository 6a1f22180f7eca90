//! The ipset of all ClusterIPs, so that one rule refuses every unknown port of them.

use std::collections::HashMap;
use std::net::IpAddr;

use switchyard_cluster::object::IpFamily;
use switchyard_netlink::Family;
use switchyard_netlink::ipset::{Entry, Ipset, IpsetError, SetSpec, SetType};

use crate::plan::ServicePlan;

/// ClusterIPs the set takes at first; it is grown by replacing it when they are more. Above
/// the largest clusters that users report (45,000 Services).
const ELEMENTS: u32 = 65_536;
/// Hash buckets at the start.
const HASH_SIZE: u32 = 1024;

/// The set of one family, and how many plans hold each address.
#[derive(Debug)]
pub(super) struct ClusterIps {
    ipset: Ipset,
    name: &'static str,
    spec: SetSpec,
    holders: HashMap<IpAddr, usize>,
}

/// The name of a family's set.
pub(super) const fn set_name(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "KUBE-CLUSTER-IPS",
        IpFamily::V6 => "KUBE-6-CLUSTER-IPS",
    }
}

impl ClusterIps {
    /// Opens the set, creating it empty if it is not there.
    pub(super) fn open(family: IpFamily) -> Result<Self, IpsetError> {
        let spec = SetSpec {
            set_type: SetType::HashIp,
            family: match family {
                IpFamily::V4 => Family::V4,
                IpFamily::V6 => Family::V6,
            },
            max_elements: ELEMENTS,
            hash_size: HASH_SIZE,
        };
        let name = set_name(family);
        let mut ipset = Ipset::open()?;
        ipset.ensure(name, &spec)?;
        Ok(Self {
            ipset,
            name,
            spec,
            holders: HashMap::new(),
        })
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Makes the set hold exactly the ClusterIPs of `plans`. Returns how many members were
    /// missing or too many.
    pub(super) fn reconcile<'a>(
        &mut self,
        plans: impl Iterator<Item = &'a ServicePlan>,
    ) -> Result<usize, IpsetError> {
        self.holders.clear();
        for address in plans.filter_map(ServicePlan::cluster_ip) {
            *self.holders.entry(address).or_default() += 1;
        }
        self.grow()?;
        self.ipset.ensure(self.name, &self.spec)?;
        let mut missing: HashMap<IpAddr, ()> =
            self.holders.keys().map(|address| (*address, ())).collect();
        let mut surplus = Vec::new();
        for entry in self.ipset.entries(self.name)? {
            let is_wanted =
                matches!(entry, Entry::Ip(address) if missing.remove(&address).is_some());
            if !is_wanted {
                surplus.push(entry);
            }
        }
        let missing: Vec<Entry> = missing.into_keys().map(Entry::Ip).collect();
        self.ipset.add(self.name, &missing)?;
        self.ipset.remove(self.name, &surplus)?;
        Ok(missing.len() + surplus.len())
    }

    /// Follows plans that change, each given as it was and as it will be. What nobody holds any
    /// more leaves the set at once, before its other rules go: a packet that no rule serves any
    /// longer must not be refused by this one. What is new is returned, to be added with
    /// [`Self::add`] once its other rules are there.
    pub(super) fn follow<'a>(
        &mut self,
        changes: impl Iterator<Item = (Option<&'a ServicePlan>, Option<&'a ServicePlan>)>,
    ) -> Result<Vec<Entry>, IpsetError> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (old, new) in changes {
            before.extend(old.and_then(ServicePlan::cluster_ip));
            after.extend(new.and_then(ServicePlan::cluster_ip));
        }
        let mut added = Vec::new();
        for address in after {
            let holders = self.holders.entry(address).or_default();
            if *holders == 0 {
                added.push(Entry::Ip(address));
            }
            *holders += 1;
        }
        let mut removed = Vec::new();
        for address in before {
            if let Some(holders) = self.holders.get_mut(&address) {
                *holders = holders.saturating_sub(1);
                if *holders == 0 {
                    self.holders.remove(&address);
                    removed.push(Entry::Ip(address));
                }
            }
        }
        if !removed.is_empty() {
            self.ipset.remove(self.name, &removed)?;
        }
        Ok(added)
    }

    /// Adds what [`Self::follow`] returned.
    pub(super) fn add(&mut self, added: &[Entry]) -> Result<(), IpsetError> {
        if added.is_empty() {
            return Ok(());
        }
        self.grow()?;
        self.ipset.add(self.name, added)
    }

    /// Makes room before the set is full.
    fn grow(&mut self) -> Result<(), IpsetError> {
        let needed = self.holders.len();
        self.ipset.make_room(self.name, &mut self.spec, needed)?;
        Ok(())
    }
}

/// Removes the set of a family; one that is not there is fine.
pub(super) fn destroy(family: IpFamily) -> Result<(), IpsetError> {
    let mut ipset = Ipset::open()?;
    if ipset.header(set_name(family))?.is_some() {
        ipset.destroy(set_name(family))?;
    }
    Ok(())
}
