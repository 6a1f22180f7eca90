//! The last known state of the cluster, and what an update made dirty.

mod table;

use std::collections::HashMap;
use std::sync::Arc;

use self::table::{Put, Table};
use crate::object::{
    EndpointSlice, Kind, LegacyEndpoints, Namespace, Node, Object, ObjectName, Pod, Service,
    ServiceCidr,
};
use crate::update::Update;

/// What somebody who derives state from the store must look at again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The Service itself was added, changed or removed.
    Service(ObjectName),
    /// Endpoints of this Service were added, changed or removed.
    Endpoints {
        /// The Service they belong to.
        service: ObjectName,
        /// When the change happened in the cluster (nanoseconds since 1970), where the
        /// slice says so; never for removals.
        trigger_unix_ns: Option<i64>,
    },
    /// A Node was added, changed or removed.
    Node(ObjectName),
    /// The ServiceCIDRs changed.
    ServiceCidrs,
    /// A Namespace was added, changed or removed.
    Namespace(ObjectName),
    /// A Pod was added, changed or removed. Carries both forms, so that whoever finds pods
    /// by address can forget the old ones.
    Pod {
        /// What it was; `None` where it is new.
        old: Option<Arc<Pod>>,
        /// What it is; `None` where it is gone.
        new: Option<Arc<Pod>>,
    },
}

/// The last known state of every kind. Applying an update costs what the update changes;
/// an object that comes again unchanged makes no change.
#[derive(Debug)]
pub struct Store {
    services: Table<Service>,
    /// Slices by their own name.
    slices: Table<EndpointSlice>,
    /// The slices of each Service in the order of their names; what answers "which
    /// endpoints".
    slices_of: HashMap<ObjectName, Vec<Arc<EndpointSlice>>>,
    legacy: Table<LegacyEndpoints>,
    nodes: Table<Node>,
    service_cidrs: Table<ServiceCidr>,
    namespaces: Table<Namespace>,
    pods: Table<Pod>,
    waiting_for: Vec<Kind>,
}

impl Store {
    /// An empty store that is synced once the first list of each kind in `needed` is in.
    #[must_use]
    pub fn new(needed: &[Kind]) -> Self {
        Self {
            services: Table::default(),
            slices: Table::default(),
            slices_of: HashMap::new(),
            legacy: Table::default(),
            nodes: Table::default(),
            service_cidrs: Table::default(),
            namespaces: Table::default(),
            pods: Table::default(),
            waiting_for: needed.to_vec(),
        }
    }

    /// Whether the first list of every needed kind is in. Nothing derived from the store
    /// may be written anywhere before.
    #[must_use]
    pub const fn synced(&self) -> bool {
        self.waiting_for.is_empty()
    }

    /// The kinds whose first list is still missing.
    #[must_use]
    pub fn waiting_for(&self) -> &[Kind] {
        &self.waiting_for
    }

    /// Takes in one update and hands every change it made to `changed`, in order.
    pub fn apply(&mut self, update: Update, changed: &mut dyn FnMut(Change)) {
        match update {
            Update::ListStarted(kind) => self.list_started(kind),
            Update::Upsert(object) => self.upsert(object, changed),
            Update::Unreadable(kind, name, _) => self.touch(kind, &name),
            Update::Remove(kind, name) => self.remove(kind, &name, changed),
            Update::ListDone(kind) => {
                for name in self.unlisted(kind) {
                    self.remove(kind, &name, changed);
                }
                self.waiting_for.retain(|waiting| *waiting != kind);
            }
            Update::Odd(..) | Update::Malformed(_) | Update::Trouble(..) => {}
        }
    }

    /// How many objects of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.slices.len(),
            Kind::Endpoints => self.legacy.len(),
            Kind::Node => self.nodes.len(),
            Kind::ServiceCidr => self.service_cidrs.len(),
            Kind::Namespace => self.namespaces.len(),
            Kind::Pod => self.pods.len(),
        }
    }

    /// A Service by name.
    #[must_use]
    pub fn service(&self, name: &ObjectName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// Every Service, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The slices of a Service in the order of their names; its legacy Endpoints where it
    /// has no slice at all.
    pub fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let slices = self
            .slices_of
            .get(service)
            .filter(|slices| !slices.is_empty());
        let legacy = match slices {
            Some(_) => None,
            None => self.legacy.get(service),
        };
        slices.into_iter().flatten().chain(
            legacy
                .into_iter()
                .flat_map(|endpoints| endpoints.slices.iter()),
        )
    }

    /// A Node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(&ObjectName::cluster_wide(name))
    }

    /// Every ServiceCIDR, in no particular order.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &Arc<ServiceCidr>> {
        self.service_cidrs.values()
    }

    /// A Namespace by name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(&ObjectName::cluster_wide(name))
    }

    /// Every Namespace, in no particular order.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.namespaces.values()
    }

    /// A Pod by name. To find pods by address, keep an index by [`Change::Pod`].
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    /// Every Pod, in no particular order.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    fn list_started(&mut self, kind: Kind) {
        match kind {
            Kind::Service => self.services.next_generation(),
            Kind::EndpointSlice => self.slices.next_generation(),
            Kind::Endpoints => self.legacy.next_generation(),
            Kind::Node => self.nodes.next_generation(),
            Kind::ServiceCidr => self.service_cidrs.next_generation(),
            Kind::Namespace => self.namespaces.next_generation(),
            Kind::Pod => self.pods.next_generation(),
        }
    }

    fn touch(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::Service => self.services.touch(name),
            Kind::EndpointSlice => self.slices.touch(name),
            Kind::Endpoints => self.legacy.touch(name),
            Kind::Node => self.nodes.touch(name),
            Kind::ServiceCidr => self.service_cidrs.touch(name),
            Kind::Namespace => self.namespaces.touch(name),
            Kind::Pod => self.pods.touch(name),
        }
    }

    fn unlisted(&self, kind: Kind) -> Vec<ObjectName> {
        match kind {
            Kind::Service => self.services.untouched(),
            Kind::EndpointSlice => self.slices.untouched(),
            Kind::Endpoints => self.legacy.untouched(),
            Kind::Node => self.nodes.untouched(),
            Kind::ServiceCidr => self.service_cidrs.untouched(),
            Kind::Namespace => self.namespaces.untouched(),
            Kind::Pod => self.pods.untouched(),
        }
    }

    fn upsert(&mut self, object: Object, changed: &mut dyn FnMut(Change)) {
        let name = object.name().clone();
        match object {
            Object::Service(new) => {
                if self.services.put(new).is_changed() {
                    changed(Change::Service(name));
                }
            }
            Object::EndpointSlice(new) => self.upsert_slice(new, changed),
            Object::Endpoints(new) => {
                if self.legacy.put(new).is_changed() && !self.has_slices(&name) {
                    changed(endpoints_of(name));
                }
            }
            Object::Node(new) => {
                if self.nodes.put(new).is_changed() {
                    changed(Change::Node(name));
                }
            }
            Object::ServiceCidr(new) => {
                if self.service_cidrs.put(new).is_changed() {
                    changed(Change::ServiceCidrs);
                }
            }
            Object::Namespace(new) => {
                if self.namespaces.put(new).is_changed() {
                    changed(Change::Namespace(name));
                }
            }
            Object::Pod(new) => {
                if let Put::Changed(old) = self.pods.put(Arc::clone(&new)) {
                    let new = Some(new);
                    changed(Change::Pod { old, new });
                }
            }
        }
    }

    fn upsert_slice(&mut self, new: Arc<EndpointSlice>, changed: &mut dyn FnMut(Change)) {
        let Put::Changed(old) = self.slices.put(Arc::clone(&new)) else {
            return;
        };
        let service = new.service_name();
        if let Some(old_service) = old.and_then(|old| old.service_name())
            && service.as_ref() != Some(&old_service)
        {
            self.unlink_slice(&old_service, &new.name);
            changed(endpoints_of(old_service));
        }
        if let Some(service) = service {
            let trigger_unix_ns = new.trigger_unix_ns;
            self.link_slice(&service, new);
            changed(Change::Endpoints {
                service,
                trigger_unix_ns,
            });
        }
    }

    fn remove(&mut self, kind: Kind, name: &ObjectName, changed: &mut dyn FnMut(Change)) {
        match kind {
            Kind::Service => {
                if self.services.remove(name).is_some() {
                    changed(Change::Service(name.clone()));
                }
            }
            Kind::EndpointSlice => {
                let old = self.slices.remove(name);
                if let Some(service) = old.and_then(|old| old.service_name()) {
                    self.unlink_slice(&service, name);
                    changed(endpoints_of(service));
                }
            }
            Kind::Endpoints => {
                if self.legacy.remove(name).is_some() && !self.has_slices(name) {
                    changed(endpoints_of(name.clone()));
                }
            }
            Kind::Node => {
                if self.nodes.remove(name).is_some() {
                    changed(Change::Node(name.clone()));
                }
            }
            Kind::ServiceCidr => {
                if self.service_cidrs.remove(name).is_some() {
                    changed(Change::ServiceCidrs);
                }
            }
            Kind::Namespace => {
                if self.namespaces.remove(name).is_some() {
                    changed(Change::Namespace(name.clone()));
                }
            }
            Kind::Pod => {
                let old = self.pods.remove(name);
                if old.is_some() {
                    changed(Change::Pod { old, new: None });
                }
            }
        }
    }

    fn link_slice(&mut self, service: &ObjectName, slice: Arc<EndpointSlice>) {
        let Some(slices) = self.slices_of.get_mut(service) else {
            // Most Services have one: no room for more.
            self.slices_of.insert(service.clone(), vec![slice]);
            return;
        };
        match slices.binary_search_by(|other| other.name.cmp(&slice.name)) {
            Ok(at) => {
                if let Some(old) = slices.get_mut(at) {
                    *old = slice;
                }
            }
            Err(at) => slices.insert(at, slice),
        }
    }

    fn unlink_slice(&mut self, service: &ObjectName, slice: &ObjectName) {
        let Some(slices) = self.slices_of.get_mut(service) else {
            return;
        };
        slices.retain(|other| other.name != *slice);
        if slices.is_empty() {
            self.slices_of.remove(service);
        }
    }

    fn has_slices(&self, service: &ObjectName) -> bool {
        self.slices_of.contains_key(service)
    }
}

/// Endpoints of a Service changed, at no known time.
const fn endpoints_of(service: ObjectName) -> Change {
    Change::Endpoints {
        service,
        trigger_unix_ns: None,
    }
}

#[cfg(test)]
mod tests;
