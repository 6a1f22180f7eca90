//! The cluster as DNS sees it: kept ready for answers while the cluster changes.
//!
//! One feed writes ([`Index::restart`], [`Index::change`]); any number of threads read
//! without lock and without waiting. A reader finds a Service as it was before a change or as
//! it is after, never something between.

mod answers;
mod endpoints;
mod label;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use switchyard_cluster::object::{ObjectName, Pod};
use switchyard_cluster::store::{Change, Store};

pub use self::answers::{A_OCTETS, AAAA_OCTETS, Answers, Kind, address_head};
pub use self::endpoints::{Endpoints, Group, Label, PortFilter, Selection, Target};
pub use self::label::{Dashed, pod_address, reverse_address};
use self::table::{ByAddress, Found, Table};

/// What the configuration has to say about the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexOptions {
    /// Seconds that answers may be kept.
    pub ttl: u32,
    /// Endpoints without a hostname are called like their pods.
    pub endpoint_pod_names: bool,
    /// A Service without ready endpoints does not exist, unless it is headless or external.
    pub ignore_empty_service: bool,
    /// Keep the endpoints of each topology zone.
    pub zonal: bool,
    /// The namespaces to tell of; all where `None`.
    pub namespaces: Option<BTreeSet<String>>,
    /// Find pods by address.
    pub pods: bool,
}

/// A namespace, whether it is there and may be told of or not.
#[derive(Debug)]
pub struct NamespaceState {
    label: Box<[u8]>,
    exposed: AtomicBool,
}

impl NamespaceState {
    /// Whether names in it are answered.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.exposed.load(Ordering::Acquire)
    }
}

/// The place of a Service: it stays while the answers change.
#[derive(Debug)]
pub struct Slot {
    /// `service.namespace` as labels in lower case.
    key: Box<[u8]>,
    namespace: Arc<NamespaceState>,
    answers: ArcSwap<Answers>,
}

impl Slot {
    /// `service.namespace` as labels in lower case.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The two labels of that.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.key;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            Some(label)
        })
    }

    /// Whether its namespace is told of.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.namespace.is_exposed()
    }

    /// Whether it and its endpoints have names.
    fn has_names(&self) -> bool {
        let kind = &self.answers.load().kind;
        self.is_exposed() && matches!(kind, Kind::ClusterIp | Kind::Headless)
    }

    /// What it is answered with, as of now.
    pub fn answers(&self) -> arc_swap::Guard<Arc<Answers>> {
        self.answers.load()
    }
}

/// A Service that was found.
pub struct FoundSlot {
    found: Found<u64, Arc<Slot>>,
    at: usize,
}

impl FoundSlot {
    /// Its place.
    #[must_use]
    pub fn slot(&self) -> Option<&Arc<Slot>> {
        self.found.get(self.at).map(|(_, slot)| slot)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Index {
    options: IndexOptions,
    hasher: foldhash::fast::RandomState,
    namespaces: Table<u64, Arc<NamespaceState>>,
    services: Table<u64, Arc<Slot>>,
    cluster_ips: ByAddress<Arc<Slot>>,
    endpoint_ips: ByAddress<Arc<Slot>>,
    pods: ByAddress<Arc<Pod>>,
    serial: AtomicU32,
    synced: AtomicBool,
    writing: Mutex<()>,
}

impl Index {
    /// An empty index, not synced.
    #[must_use]
    pub fn new(options: IndexOptions) -> Self {
        Self {
            options,
            hasher: foldhash::fast::RandomState::default(),
            namespaces: Table::new(),
            services: Table::new(),
            cluster_ips: ByAddress::new(),
            endpoint_ips: ByAddress::new(),
            pods: ByAddress::new(),
            serial: AtomicU32::new(now_unix_s()),
            synced: AtomicBool::new(false),
            writing: Mutex::new(()),
        }
    }

    /// Whether the first list of every kind is in: only then is what is not found not there.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Says that it is.
    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// When a client could last see a change, in seconds since 1970: the SOA's serial.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }

    /// The Service of these labels (`service.namespace` in lower case), in a namespace that
    /// is told of.
    #[must_use]
    pub fn service(&self, key: &[u8]) -> Option<FoundSlot> {
        let found = self.services.find(self.hasher.hash_one(key))?;
        let at = found.iter().position(|(_, slot)| *slot.key == *key)?;
        let found = FoundSlot { found, at };
        found.slot()?.is_exposed().then_some(found)
    }

    /// Whether names in this namespace (a label in lower case) are answered.
    #[must_use]
    pub fn has_namespace(&self, label: &[u8]) -> bool {
        let found = self.namespaces.find(self.hasher.hash_one(label));
        let is_it = |state: &NamespaceState| *state.label == *label && state.is_exposed();
        found.is_some_and(|found| found.iter().any(|(_, state)| is_it(state)))
    }

    /// The first Service that has this address as its own.
    pub fn service_with(&self, address: IpAddr, mut each: impl FnMut(&Slot)) {
        self.cluster_ips.find(address, |slot| {
            let is_it = slot.has_names();
            if is_it {
                each(slot);
            }
            is_it
        });
    }

    /// The Services that have an endpoint with this address.
    pub fn services_behind(&self, address: IpAddr, mut each: impl FnMut(&Slot)) {
        self.endpoint_ips.find(address, |slot| {
            if slot.has_names() {
                each(slot);
            }
            false
        });
    }

    /// Whether a pod with this address lives in this namespace (a label in lower case).
    #[must_use]
    pub fn has_pod(&self, address: IpAddr, namespace: &[u8]) -> bool {
        let mut has = false;
        self.pods.find(address, |pod| {
            let own = pod.name.namespace.as_bytes();
            has = own.eq_ignore_ascii_case(namespace);
            has
        });
        has
    }

    /// Whether a Service that is told of has this address, or an endpoint of one.
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        let mut known = false;
        self.service_with(address, |_| known = true);
        if !known {
            self.services_behind(address, |_| known = true);
        }
        known
    }

    /// The pod with this address, one of them where the node's address is theirs.
    #[must_use]
    pub fn pod_with(&self, address: IpAddr) -> Option<Arc<Pod>> {
        let mut found = None;
        self.pods.find(address, |pod| {
            found = Some(Arc::clone(pod));
            true
        });
        found
    }

    /// Every Service that is told of.
    pub fn for_each(&self, mut each: impl FnMut(&Arc<Slot>)) {
        self.services.for_each(|_, slot| {
            if slot.is_exposed() {
                each(slot);
            }
        });
    }

    /// Forgets everything and takes in the store as it is.
    pub fn restart(&self, store: &Store) {
        let _one_writer = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.namespaces
            .for_each(|_, state| state.exposed.store(false, Ordering::Release));
        for namespace in store.namespaces() {
            self.look_at_namespace(store, &namespace.name.name);
        }
        let mut slots = Vec::new();
        let (mut own, mut behind) = (Vec::new(), Vec::new());
        for service in store.services() {
            let Some(key) = key_of(&service.name) else {
                continue;
            };
            let slices = store.slices(&service.name).collect::<Vec<_>>();
            let answers = Answers::new(Some(service), slices.iter().copied(), &self.options);
            let slot = Arc::new(Slot {
                namespace: self.namespace(&service.name.namespace),
                answers: ArcSwap::from_pointee(answers),
                key,
            });
            let answers = slot.answers.load();
            let cluster_ips = answers.cluster_ips().iter();
            own.extend(cluster_ips.map(|address| (*address, Arc::clone(&slot))));
            let addresses = answers.endpoints.addresses().into_iter();
            behind.extend(addresses.map(|address| (address, Arc::clone(&slot))));
            drop(answers);
            slots.push((self.hasher.hash_one(&*slot.key), slot));
        }
        self.services.replace(slots);
        self.cluster_ips.replace(own);
        self.endpoint_ips.replace(behind);
        if self.options.pods {
            let pods = store.pods().flat_map(|pod| {
                let each = pod.ips.iter().map(|ip| (*ip, Arc::clone(pod)));
                each.collect::<Vec<_>>()
            });
            self.pods.replace(pods);
        }
        self.bump();
    }

    /// Takes in what a change made different.
    pub fn change(&self, store: &Store, change: &Change) {
        let _one_writer = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Service(name) | Change::Endpoints { service: name, .. } => {
                self.look_at_service(store, name);
            }
            Change::Namespace(name) => {
                self.look_at_namespace(store, &name.name);
                self.bump();
            }
            Change::Pod { old, new } if self.options.pods => {
                self.look_at_pod(old.as_ref(), new.as_ref());
            }
            Change::Pod { .. } | Change::Node(_) | Change::ServiceCidrs => {}
        }
    }

    fn look_at_namespace(&self, store: &Store, name: &str) {
        let allowed = self.options.namespaces.as_ref();
        let allowed = allowed.is_none_or(|allowed| allowed.contains(name));
        let exposed = allowed && store.namespace(name).is_some();
        let state = self.namespace(name);
        state.exposed.store(exposed, Ordering::Release);
    }

    /// The state of a namespace, a new one if there was none. They are never forgotten: the
    /// names of namespaces that a cluster ever had are few.
    fn namespace(&self, name: &str) -> Arc<NamespaceState> {
        let label = name.to_ascii_lowercase().into_bytes();
        let hash = self.hasher.hash_one(&label[..]);
        let found = self.namespaces.find(hash);
        let mut known = found.iter().flat_map(|found| found.iter());
        if let Some((_, state)) = known.find(|(_, state)| *state.label == *label) {
            return Arc::clone(state);
        }
        let state = Arc::new(NamespaceState {
            label: label.into(),
            exposed: AtomicBool::new(false),
        });
        self.namespaces.insert(hash, Arc::clone(&state));
        state
    }

    fn look_at_service(&self, store: &Store, name: &ObjectName) {
        let Some(key) = key_of(name) else {
            return;
        };
        let hash = self.hasher.hash_one(&*key);
        let found = self.services.find(hash);
        let mut known = found.iter().flat_map(|found| found.iter());
        let slot = known.find(|(_, slot)| slot.key == key);
        let slot = slot.map(|(_, slot)| Arc::clone(slot));
        let service = store.service(name);
        let slices = store.slices(name).collect::<Vec<_>>();
        if service.is_none() && slices.is_empty() {
            if let Some(slot) = slot {
                self.forget(hash, &slot);
            }
            return;
        }
        let new = Arc::new(Answers::new(service, slices.iter().copied(), &self.options));
        let Some(slot) = slot else {
            let slot = Arc::new(Slot {
                namespace: self.namespace(&name.namespace),
                answers: ArcSwap::new(Arc::clone(&new)),
                key,
            });
            self.services.insert(hash, Arc::clone(&slot));
            self.add_addresses(&slot, new.cluster_ips(), &new.endpoints.addresses());
            self.bump();
            return;
        };
        let old = slot.answers.swap(Arc::clone(&new));
        if !old.same_to_clients(&new) {
            self.bump();
        }
        self.readdress(&slot, &old, &new);
    }

    fn forget(&self, hash: u64, slot: &Arc<Slot>) {
        let answers = slot.answers.load();
        self.services.remove(hash, |other| Arc::ptr_eq(other, slot));
        self.drop_addresses(slot, answers.cluster_ips(), &answers.endpoints.addresses());
        self.bump();
    }

    /// Makes the ways from addresses to a Service right again.
    fn readdress(&self, slot: &Arc<Slot>, old: &Answers, new: &Answers) {
        let without = |these: &[IpAddr], those: &[IpAddr]| -> Vec<IpAddr> {
            let gone = these.iter().filter(|address| !those.contains(address));
            gone.copied().collect()
        };
        let (ours, theirs) = (new.cluster_ips(), old.cluster_ips());
        let (own_added, own_gone) = (without(ours, theirs), without(theirs, ours));
        let (before, after) = (old.endpoints.addresses(), new.endpoints.addresses());
        let sorted_without = |these: &[IpAddr], those: &[IpAddr]| -> Vec<IpAddr> {
            let gone = these
                .iter()
                .filter(|address| those.binary_search(address).is_err());
            gone.copied().collect()
        };
        self.add_addresses(slot, &own_added, &sorted_without(&after, &before));
        self.drop_addresses(slot, &own_gone, &sorted_without(&before, &after));
    }

    fn add_addresses(&self, slot: &Arc<Slot>, own: &[IpAddr], behind: &[IpAddr]) {
        for address in own {
            self.cluster_ips.insert(*address, Arc::clone(slot));
        }
        for address in behind {
            self.endpoint_ips.insert(*address, Arc::clone(slot));
        }
    }

    fn drop_addresses(&self, slot: &Arc<Slot>, own: &[IpAddr], behind: &[IpAddr]) {
        let is_it = |other: &Arc<Slot>| Arc::ptr_eq(other, slot);
        for address in own {
            self.cluster_ips.remove(*address, is_it);
        }
        for address in behind {
            self.endpoint_ips.remove(*address, is_it);
        }
    }

    fn look_at_pod(&self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        let ips = |pod: Option<&Arc<Pod>>| pod.map(|pod| pod.ips.clone()).unwrap_or_default();
        if let Some(new) = new {
            for ip in &new.ips {
                self.pods.insert(*ip, Arc::clone(new));
            }
        }
        if let Some(old) = old {
            for ip in &old.ips {
                self.pods.remove(*ip, |other| Arc::ptr_eq(other, old));
            }
        }
        if ips(old) != ips(new) {
            self.bump();
        }
    }

    fn bump(&self) {
        self.serial.store(now_unix_s(), Ordering::Relaxed);
    }
}

/// A name as labels in lower case; `None` if it can't be a name in DNS.
fn key_of(name: &ObjectName) -> Option<Box<[u8]>> {
    let mut key = Vec::with_capacity(name.name.len() + name.namespace.len() + 2);
    for label in [&name.name, &name.namespace] {
        let length = u8::try_from(label.len()).ok();
        key.push(length.filter(|length| (1..=63).contains(length))?);
        key.extend(label.bytes().map(|octet| octet.to_ascii_lowercase()));
    }
    Some(key.into())
}

fn now_unix_s() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // RFC 1982: serials wrap around.
    since.map_or(0, |since| {
        let seconds = since.as_secs() & u64::from(u32::MAX);
        u32::try_from(seconds).unwrap_or_default()
    })
}
