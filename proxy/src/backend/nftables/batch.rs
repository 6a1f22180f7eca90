//! What is to be written at once, in an order the kernel takes, and whose each part is.

use std::collections::BTreeMap;
use std::sync::Arc;

use switchyard_netlink::Family;
use switchyard_netlink::nftables::{Change, Element as NetlinkElement, Refusal, Rule};

use super::form::{Chain, Element, Shared};
use super::lower;
use crate::plan::PlanId;

/// Whose something is: one of the batch's plans by its place, or nobody's in particular.
type Owner = Option<u32>;

/// Changes that become one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    plans: Vec<PlanId>,
    /// The plan that what is added now belongs to.
    owner: Owner,
    /// Before everything else.
    first: Vec<Change>,
    gone_elements: Elements,
    flushed: Vec<(Arc<str>, Owner)>,
    gone_chains: Vec<(Arc<str>, Owner)>,
    gone_sets: Vec<(Arc<str>, Owner)>,
    sets: Vec<(Change, Owner)>,
    chains: Vec<(Change, Owner)>,
    rules: Vec<(Change, Owner)>,
    elements: Elements,
}

type Elements = BTreeMap<Shared, Vec<(NetlinkElement, Owner)>>;

/// A batch as the kernel takes it.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) changes: Vec<Change>,
    /// For each change, whose it is; of elements, whose each of them is.
    owners: Vec<Vec<Owner>>,
    plans: Vec<PlanId>,
}

impl Batch {
    /// What is added from now on is this plan's.
    pub(super) fn of_plan(&mut self, id: &PlanId) {
        self.owner = u32::try_from(self.plans.len()).ok();
        self.plans.push(id.clone());
    }

    /// What is added from now on is nobody's.
    pub(super) const fn of_nobody(&mut self) {
        self.owner = None;
    }

    /// Something that all else needs.
    pub(super) fn first(&mut self, change: Change) {
        self.first.push(change);
    }

    pub(super) fn remove_element(&mut self, set: Shared, element: NetlinkElement) {
        let owner = self.owner;
        self.gone_elements
            .entry(set)
            .or_default()
            .push((element, owner));
    }

    pub(super) fn add_element(&mut self, element: &Element) {
        let lowered = lower::element(element);
        let owner = self.owner;
        self.elements
            .entry(element.set)
            .or_default()
            .push((lowered, owner));
    }

    /// Empties a chain, which then can go.
    pub(super) fn flush_chain(&mut self, name: Arc<str>) {
        self.flushed.push((name, self.owner));
    }

    /// Deletes a chain that is empty or emptied.
    pub(super) fn remove_chain(&mut self, name: Arc<str>) {
        self.gone_chains.push((name, self.owner));
    }

    pub(super) fn remove_set(&mut self, name: Arc<str>) {
        self.gone_sets.push((name, self.owner));
    }

    pub(super) fn add_set(&mut self, change: Change) {
        self.sets.push((change, self.owner));
    }

    pub(super) fn add_chain(&mut self, change: Change) {
        self.chains.push((change, self.owner));
    }

    pub(super) fn add_rules(&mut self, chain: &Chain, family: Family) {
        for rule in &chain.rules {
            self.add_rule(lower::rule(&chain.name, rule, family));
        }
    }

    pub(super) fn add_rule(&mut self, rule: Rule) {
        self.rules.push((Change::AddRule(rule), self.owner));
    }

    /// How many elements, rules, chains and sets come or go.
    pub(super) fn len(&self) -> usize {
        let elements = self.gone_elements.values().chain(self.elements.values());
        let elements: usize = elements.map(Vec::len).sum();
        elements
            + self.gone_chains.len()
            + self.gone_sets.len()
            + self.sets.len()
            + self.chains.len()
            + self.rules.len()
    }

    /// In order: what goes, from what leads somewhere to what is led to; then what comes, the
    /// other way round. With `each_alone` the elements of different plans are in different
    /// changes, for kernels that say which change they refuse but not which of its elements.
    pub(super) fn ordered(self, each_alone: bool) -> Ordered {
        let mut ordered = Ordered {
            changes: Vec::new(),
            owners: Vec::new(),
            plans: self.plans,
        };
        for change in self.first {
            ordered.push(change, None);
        }
        for (set, elements) in self.gone_elements {
            ordered.push_elements(set, elements, each_alone, |set, elements| {
                Change::DeleteElements { set, elements }
            });
        }
        for (chain, owner) in self.flushed {
            ordered.push(Change::FlushChain(chain), owner);
        }
        for (chain, owner) in self.gone_chains {
            ordered.push(Change::DeleteChain(chain), owner);
        }
        for (set, owner) in self.gone_sets {
            ordered.push(Change::DeleteSet(set), owner);
        }
        let coming = self.sets.into_iter().chain(self.chains).chain(self.rules);
        for (change, owner) in coming {
            ordered.push(change, owner);
        }
        for (set, elements) in self.elements {
            ordered.push_elements(set, elements, each_alone, |set, elements| {
                Change::AddElements { set, elements }
            });
        }
        ordered
    }
}

impl Ordered {
    fn push(&mut self, change: Change, owner: Owner) {
        self.changes.push(change);
        self.owners.push(vec![owner]);
    }

    fn push_elements(
        &mut self,
        set: Shared,
        elements: Vec<(NetlinkElement, Owner)>,
        each_alone: bool,
        change: impl Fn(Arc<str>, Vec<NetlinkElement>) -> Change,
    ) {
        let name: Arc<str> = Arc::from(set.name());
        if each_alone {
            for (element, owner) in elements {
                self.push(change(Arc::clone(&name), vec![element]), owner);
            }
            return;
        }
        let (elements, owners) = elements.into_iter().unzip();
        self.changes.push(change(name, elements));
        self.owners.push(owners);
    }

    /// The plan whose change was refused. `Err` where it is not known of which element that
    /// was: elements must then be written each alone. `Ok(None)`: nobody's.
    pub(super) fn culprit(&self, refusal: &Refusal) -> Result<Option<&PlanId>, Unknown> {
        let owners = refusal.change.and_then(|at| self.owners.get(at));
        let owner = match (owners.map_or(&[][..], Vec::as_slice), refusal.item) {
            ([], _) => None,
            ([only], _) => *only,
            (owners, Some(item)) => *owners.get(item).ok_or(Unknown)?,
            (_, None) => return Err(Unknown),
        };
        let plan = owner.and_then(|at| self.plans.get(usize::try_from(at).ok()?));
        Ok(plan)
    }
}

/// Which element was refused is not known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown;
