//! The last known state of the cluster, and what an update made dirty.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::object::{
    EndpointSlice, Kind, LegacyEndpoints, Node, Object, ObjectName, Service, ServiceCidr,
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
}

/// The last known state of every kind. Applying an update costs what the update changes;
/// an object that comes again unchanged makes no change.
#[derive(Debug)]
pub struct Store {
    services: Table<ObjectName, Service>,
    /// Slices by their own name.
    slices: Table<ObjectName, EndpointSlice>,
    /// Names of the slices of each Service; what answers "which endpoints".
    slices_of: HashMap<ObjectName, BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    legacy: Table<ObjectName, LegacyEndpoints>,
    nodes: Table<ObjectName, Node>,
    service_cidrs: Table<ObjectName, ServiceCidr>,
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
            Kind::Service => self.services.entries.len(),
            Kind::EndpointSlice => self.slices.entries.len(),
            Kind::Endpoints => self.legacy.entries.len(),
            Kind::Node => self.nodes.entries.len(),
            Kind::ServiceCidr => self.service_cidrs.entries.len(),
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
        slices.into_iter().flat_map(BTreeMap::values).chain(
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

    fn list_started(&mut self, kind: Kind) {
        match kind {
            Kind::Service => self.services.next_generation(),
            Kind::EndpointSlice => self.slices.next_generation(),
            Kind::Endpoints => self.legacy.next_generation(),
            Kind::Node => self.nodes.next_generation(),
            Kind::ServiceCidr => self.service_cidrs.next_generation(),
        }
    }

    fn touch(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            Kind::Service => self.services.touch(name),
            Kind::EndpointSlice => self.slices.touch(name),
            Kind::Endpoints => self.legacy.touch(name),
            Kind::Node => self.nodes.touch(name),
            Kind::ServiceCidr => self.service_cidrs.touch(name),
        }
    }

    fn unlisted(&self, kind: Kind) -> Vec<ObjectName> {
        match kind {
            Kind::Service => self.services.untouched(),
            Kind::EndpointSlice => self.slices.untouched(),
            Kind::Endpoints => self.legacy.untouched(),
            Kind::Node => self.nodes.untouched(),
            Kind::ServiceCidr => self.service_cidrs.untouched(),
        }
    }

    fn upsert(&mut self, object: Object, changed: &mut dyn FnMut(Change)) {
        let name = object.name().clone();
        match object {
            Object::Service(new) => {
                if self.services.put(name.clone(), new).is_changed() {
                    changed(Change::Service(name));
                }
            }
            Object::EndpointSlice(new) => self.upsert_slice(name, new, changed),
            Object::Endpoints(new) => {
                if self.legacy.put(name.clone(), new).is_changed() && !self.has_slices(&name) {
                    changed(Change::Endpoints {
                        service: name,
                        trigger_unix_ns: None,
                    });
                }
            }
            Object::Node(new) => {
                if self.nodes.put(name.clone(), new).is_changed() {
                    changed(Change::Node(name));
                }
            }
            Object::ServiceCidr(new) => {
                if self.service_cidrs.put(name, new).is_changed() {
                    changed(Change::ServiceCidrs);
                }
            }
        }
    }

    fn upsert_slice(
        &mut self,
        name: ObjectName,
        new: Arc<EndpointSlice>,
        changed: &mut dyn FnMut(Change),
    ) {
        let Put::Changed(old) = self.slices.put(name.clone(), Arc::clone(&new)) else {
            return;
        };
        let service = new.service_name();
        if let Some(old_service) = old.and_then(|old| old.service_name())
            && service.as_ref() != Some(&old_service)
        {
            self.unlink_slice(&old_service, &name);
            changed(Change::Endpoints {
                service: old_service,
                trigger_unix_ns: None,
            });
        }
        if let Some(service) = service {
            let trigger_unix_ns = new.trigger_unix_ns;
            self.slices_of
                .entry(service.clone())
                .or_default()
                .insert(name.name, new);
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
                    changed(Change::Endpoints {
                        service,
                        trigger_unix_ns: None,
                    });
                }
            }
            Kind::Endpoints => {
                if self.legacy.remove(name).is_some() && !self.has_slices(name) {
                    changed(Change::Endpoints {
                        service: name.clone(),
                        trigger_unix_ns: None,
                    });
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
        }
    }

    fn unlink_slice(&mut self, service: &ObjectName, slice: &ObjectName) {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.remove(&slice.name);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
    }

    fn has_slices(&self, service: &ObjectName) -> bool {
        self.slices_of.contains_key(service)
    }
}

/// Objects of one kind, each with the generation of the list that named it last.
#[derive(Debug)]
struct Table<K, V> {
    entries: HashMap<K, (u64, Arc<V>)>,
    generation: u64,
}

enum Put<V> {
    Unchanged,
    Changed(Option<Arc<V>>),
}

impl<V> Put<V> {
    const fn is_changed(&self) -> bool {
        matches!(self, Self::Changed(_))
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            generation: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, V: PartialEq> Table<K, V> {
    const fn next_generation(&mut self) {
        self.generation += 1;
    }

    fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.entries.get(key).map(|(_, value)| value)
    }

    fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.entries.values().map(|(_, value)| value)
    }

    fn put(&mut self, key: K, new: Arc<V>) -> Put<V> {
        match self.entries.get_mut(&key) {
            Some((generation, old)) => {
                *generation = self.generation;
                if **old == *new {
                    return Put::Unchanged;
                }
                Put::Changed(Some(std::mem::replace(old, new)))
            }
            None => {
                self.entries.insert(key, (self.generation, new));
                Put::Changed(None)
            }
        }
    }

    fn touch(&mut self, key: &K) {
        if let Some((generation, _)) = self.entries.get_mut(key) {
            *generation = self.generation;
        }
    }

    fn untouched(&self) -> Vec<K> {
        let stale = self
            .entries
            .iter()
            .filter(|(_, (at, _))| *at != self.generation);
        stale.map(|(key, _)| key.clone()).collect()
    }

    fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        self.entries.remove(key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::IpFamily;

    fn slice(name: &str, service: Option<&str>) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            name: ObjectName::new("ns", name),
            service: service.map(Arc::from),
            family: Some(IpFamily::V4),
            ports: Box::default(),
            endpoints: Box::default(),
            headless: false,
            trigger_unix_ns: None,
        })
    }

    fn apply(store: &mut Store, update: Update) -> Vec<Change> {
        let mut changes = Vec::new();
        store.apply(update, &mut |change| changes.push(change));
        changes
    }

    fn endpoints_of(service: &str) -> Change {
        Change::Endpoints {
            service: ObjectName::new("ns", service),
            trigger_unix_ns: None,
        }
    }

    #[test]
    fn it_is_synced_once_every_needed_list_is_in() {
        let mut store = Store::new(&[Kind::Service, Kind::Node]);
        apply(&mut store, Update::ListStarted(Kind::Node));
        apply(&mut store, Update::ListDone(Kind::Node));
        assert_eq!(store.waiting_for(), [Kind::Service]);
        apply(&mut store, Update::ListDone(Kind::Service));
        assert!(store.synced());
    }

    #[test]
    fn a_new_list_removes_what_it_does_not_name_at_its_end_only() {
        let mut store = Store::new(&[]);
        let put = |name| Update::Upsert(Object::EndpointSlice(slice(name, Some("svc"))));
        assert_eq!(apply(&mut store, put("a")), [endpoints_of("svc")]);
        apply(&mut store, put("b"));
        apply(&mut store, Update::ListStarted(Kind::EndpointSlice));
        assert_eq!(apply(&mut store, put("b")), []);
        assert_eq!(store.slices(&ObjectName::new("ns", "svc")).count(), 2);
        assert_eq!(
            apply(&mut store, Update::ListDone(Kind::EndpointSlice)),
            [endpoints_of("svc")]
        );
        assert_eq!(store.slices(&ObjectName::new("ns", "svc")).count(), 1);
    }

    #[test]
    fn an_unreadable_object_keeps_its_last_good_form_over_a_new_list() {
        let mut store = Store::new(&[]);
        let name = ObjectName::new("ns", "a");
        let problem = crate::update::Problem {
            place: String::new(),
            field: String::new(),
            message: "no".to_owned(),
        };
        apply(
            &mut store,
            Update::Upsert(Object::EndpointSlice(slice("a", Some("svc")))),
        );
        apply(&mut store, Update::ListStarted(Kind::EndpointSlice));
        apply(
            &mut store,
            Update::Unreadable(Kind::EndpointSlice, name, problem),
        );
        assert_eq!(apply(&mut store, Update::ListDone(Kind::EndpointSlice)), []);
    }

    #[test]
    fn a_slice_that_passes_to_another_service_changes_both() {
        let mut store = Store::new(&[]);
        apply(
            &mut store,
            Update::Upsert(Object::EndpointSlice(slice("a", Some("one")))),
        );
        let moved = Update::Upsert(Object::EndpointSlice(slice("a", Some("two"))));
        assert_eq!(
            apply(&mut store, moved),
            [endpoints_of("one"), endpoints_of("two")]
        );
        assert_eq!(store.slices(&ObjectName::new("ns", "one")).count(), 0);
    }

    #[test]
    fn legacy_endpoints_count_only_where_there_is_no_slice() {
        let mut store = Store::new(&[]);
        let service = ObjectName::new("ns", "svc");
        let legacy = Arc::new(LegacyEndpoints {
            name: service.clone(),
            slices: Box::new([slice("svc-legacy", Some("svc"))]),
        });
        let names = |store: &Store| -> Vec<String> {
            store
                .slices(&service)
                .map(|slice| slice.name.name.to_string())
                .collect()
        };
        assert_eq!(
            apply(&mut store, Update::Upsert(Object::Endpoints(legacy))).len(),
            1
        );
        assert_eq!(names(&store), ["svc-legacy"]);
        apply(
            &mut store,
            Update::Upsert(Object::EndpointSlice(slice("real", Some("svc")))),
        );
        assert_eq!(names(&store), ["real"]);
        apply(
            &mut store,
            Update::Remove(Kind::EndpointSlice, ObjectName::new("ns", "real")),
        );
        assert_eq!(names(&store), ["svc-legacy"]);
    }
}
