//! The endpoints of a Service, found by label and by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use switchyard_cluster::object::{Endpoint, EndpointSlice, Protocol};

use super::label::{Dashed, endpoint_address};

/// In place of where a name begins: the endpoint is called by its address.
const NO_NAME: u32 = u32::MAX;
/// RFC 1035 §3.1.
const LABEL_OCTETS_MAX: usize = 63;

/// What ports a question is about; `""` for any.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortFilter<'a> {
    /// The port's name without its underscore.
    pub port: &'a [u8],
    /// The protocol without its underscore.
    pub protocol: &'a [u8],
}

/// Which endpoints a question is about.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'a> {
    /// All.
    All,
    /// Those called so.
    Called {
        /// The label, in lower case.
        label: &'a [u8],
        /// The address it stands for, if it looks like one.
        address: Option<IpAddr>,
    },
}

/// The ready endpoints of a Service.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    groups: Box<[Group]>,
}

/// Endpoints whose slices have the same ports: nearly always all.
#[derive(Debug)]
pub struct Group {
    /// One of the slices; its ports are those of all.
    slice: Arc<EndpointSlice>,
    /// By address; with where the name begins.
    v4: Box<[(Ipv4Addr, u32)]>,
    v6: Box<[(Ipv6Addr, u32)]>,
    /// Names, each behind its length.
    names: Box<[u8]>,
    /// Where a name begins and whose it is (v6 counted on behind v4), by name.
    by_name: Box<[(u32, u32)]>,
}

/// One name below the Service, and who answers to it.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An endpoint called by its address.
    Address(IpAddr),
    /// Endpoints with a name; `run` is never empty.
    Name {
        /// Where they are.
        group: &'a Group,
        /// Entries of the group's names that are the same.
        run: &'a [(u32, u32)],
    },
}

/// What an endpoint is called.
#[derive(Debug)]
pub enum Label<'a> {
    /// Made of its address.
    Dashed(Dashed),
    /// Its own.
    Text(&'a [u8]),
}

impl PortFilter<'_> {
    /// Whether any port will do.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.port.is_empty() && self.protocol.is_empty()
    }

    /// Whether a port of this name and protocol is meant.
    #[must_use]
    pub fn matches(&self, name: &str, protocol: Protocol) -> bool {
        let same = |wanted: &[u8], is: &str| {
            wanted.is_empty() || wanted.eq_ignore_ascii_case(is.as_bytes())
        };
        same(self.port, name) && same(self.protocol, protocol.as_str())
    }
}

impl<'a> Selection<'a> {
    /// Endpoints called by this label, given in lower case.
    #[must_use]
    pub fn called(label: &'a [u8]) -> Self {
        Self::Called {
            label,
            address: endpoint_address(label),
        }
    }
}

impl Label<'_> {
    /// The octets, without the length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Dashed(dashed) => dashed.as_bytes(),
            Self::Text(text) => text,
        }
    }
}

impl Endpoints {
    /// The ready endpoints of these slices. With `pod_names` those without a hostname are
    /// called like their pods.
    pub fn new(
        slices: &[&Arc<EndpointSlice>],
        pod_names: bool,
        wanted: impl Fn(&Endpoint) -> bool,
    ) -> Self {
        let mut drafts: Vec<Draft> = Vec::new();
        for slice in slices.iter().filter(|slice| slice.family.is_some()) {
            let same = |draft: &&mut Draft| draft.slice.ports == slice.ports;
            let draft = match drafts.iter_mut().find(same) {
                Some(draft) => draft,
                None => {
                    drafts.push(Draft::new(slice));
                    let Some(last) = drafts.last_mut() else {
                        continue;
                    };
                    last
                }
            };
            let ready = |endpoint: &&Endpoint| endpoint.conditions.ready && wanted(endpoint);
            for endpoint in slice.endpoints.iter().filter(ready) {
                draft.add(endpoint, pod_names);
            }
        }
        let groups = drafts.into_iter().map(Draft::finish);
        let groups = groups.filter(|group| group.len(Selection::All) > 0);
        Self {
            groups: groups.collect(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Every address, in order and once.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let all = self.groups.iter().flat_map(|group| {
            let v4 = group.v4.iter().map(|(address, _)| IpAddr::V4(*address));
            v4.chain(group.v6.iter().map(|(address, _)| IpAddr::V6(*address)))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Group {
    /// The names and numbers of its ports; empty if its endpoints have none.
    #[must_use]
    pub fn ports(&self) -> &[switchyard_cluster::object::SlicePort] {
        &self.slice.ports
    }

    /// How many of its ports are meant. Endpoints without ports count as having one, of
    /// which nobody knows the number.
    #[must_use]
    pub fn matching_ports(&self, filter: PortFilter<'_>) -> usize {
        if self.ports().is_empty() {
            return usize::from(filter.is_any());
        }
        let matching = |port: &&switchyard_cluster::object::SlicePort| {
            filter.matches(&port.name, port.protocol)
        };
        self.ports().iter().filter(matching).count()
    }

    /// The numbers of the ports that are meant, each once.
    pub fn port_numbers(&self, filter: PortFilter<'_>) -> impl Iterator<Item = u16> {
        let ports = self.ports();
        ports.iter().enumerate().filter_map(move |(at, port)| {
            let meant = |port: &switchyard_cluster::object::SlicePort| {
                filter.matches(&port.name, port.protocol)
            };
            let seen = ports.iter().take(at);
            let seen = seen.filter(|earlier| meant(earlier));
            let first = !seen
                .map(|earlier| earlier.port)
                .any(|number| number == port.port);
            (first && meant(port)).then_some(port.port)
        })
    }

    /// How many endpoints are selected.
    #[must_use]
    pub fn len(&self, selection: Selection<'_>) -> usize {
        let (v4, v6, names) = self.selected(selection);
        let unnamed4 = v4.iter().filter(|(_, name)| *name == NO_NAME).count();
        let unnamed6 = v6.iter().filter(|(_, name)| *name == NO_NAME).count();
        unnamed4 + unnamed6 + names.len()
    }

    /// The names of the selected endpoints, each once.
    pub fn targets(&self, selection: Selection<'_>) -> impl Iterator<Item = Target<'_>> {
        let (v4, v6, mut names) = self.selected(selection);
        let v4 = v4.iter().filter(|(_, name)| *name == NO_NAME);
        let v6 = v6.iter().filter(|(_, name)| *name == NO_NAME);
        let v4 = v4.map(|(address, _)| Target::Address((*address).into()));
        let v6 = v6.map(|(address, _)| Target::Address((*address).into()));
        let named = std::iter::from_fn(move || {
            let (first, _) = names.first()?;
            let label = self.name(*first);
            let same = names
                .iter()
                .take_while(|(name, _)| self.name(*name) == label);
            let (run, rest) = names.split_at_checked(same.count())?;
            names = rest;
            Some(Target::Name { group: self, run })
        });
        v4.chain(v6).chain(named)
    }

    /// Whether an endpoint with this address is called so.
    #[must_use]
    pub fn has(&self, selection: Selection<'_>, address: IpAddr) -> bool {
        self.targets(selection)
            .any(|target| target.addresses().any(|own| own == address))
    }

    /// Whether some endpoint has this address.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => !range(&self.v4, address).is_empty(),
            IpAddr::V6(address) => !range(&self.v6, address).is_empty(),
        }
    }

    /// What the endpoints with this address are called.
    pub fn labels_of(&self, address: IpAddr) -> impl Iterator<Item = Label<'_>> {
        let (v4, v6): (&[_], &[_]) = match address {
            IpAddr::V4(address) => (range(&self.v4, address), &[]),
            IpAddr::V6(address) => (&[], range(&self.v6, address)),
        };
        let names = v4.iter().map(|(_, name)| *name);
        let names = names.chain(v6.iter().map(|(_, name)| *name));
        names.map(move |name| match name {
            NO_NAME => Label::Dashed(Dashed::new(address)),
            name => Label::Text(self.name(name)),
        })
    }

    #[expect(clippy::type_complexity, reason = "three slices, named at each use")]
    fn selected(
        &self,
        selection: Selection<'_>,
    ) -> (&[(Ipv4Addr, u32)], &[(Ipv6Addr, u32)], &[(u32, u32)]) {
        match selection {
            Selection::All => (&self.v4, &self.v6, &self.by_name),
            Selection::Called { label, address } => {
                let (v4, v6): (&[_], &[_]) = match address {
                    Some(IpAddr::V4(address)) => (range(&self.v4, address), &[]),
                    Some(IpAddr::V6(address)) => (&[], range(&self.v6, address)),
                    None => (&[], &[]),
                };
                (v4, v6, self.called(label))
            }
        }
    }

    fn called(&self, label: &[u8]) -> &[(u32, u32)] {
        let start = self
            .by_name
            .partition_point(|(name, _)| self.name(*name) < label);
        let rest = self.by_name.get(start..).unwrap_or_default();
        let end = rest.partition_point(|(name, _)| self.name(*name) == label);
        rest.get(..end).unwrap_or_default()
    }

    fn name(&self, at: u32) -> &[u8] {
        name_at(&self.names, at)
    }

    fn address(&self, at: u32) -> Option<IpAddr> {
        let at = usize::try_from(at).ok()?;
        match self.v4.get(at) {
            Some((address, _)) => Some((*address).into()),
            None => {
                let (address, _) = self.v6.get(at.checked_sub(self.v4.len())?)?;
                Some((*address).into())
            }
        }
    }
}

impl PartialEq for Group {
    /// Whether DNS answers are the same.
    fn eq(&self, other: &Self) -> bool {
        self.ports() == other.ports()
            && self.v4 == other.v4
            && self.v6 == other.v6
            && self.names == other.names
    }
}

impl Eq for Group {}

impl<'a> Target<'a> {
    /// What the endpoints are called.
    #[must_use]
    pub fn label(&self) -> Label<'a> {
        match self {
            Self::Address(address) => Label::Dashed(Dashed::new(*address)),
            Self::Name { group, run } => {
                Label::Text(run.first().map_or(&[], |(name, _)| group.name(*name)))
            }
        }
    }

    /// Their addresses, at least one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let (one, group, run): (_, _, &[_]) = match *self {
            Self::Address(address) => (Some(address), None, &[]),
            Self::Name { group, run } => (None, Some(group), run),
        };
        let named = run.iter().filter_map(move |(_, at)| group?.address(*at));
        one.into_iter().chain(named)
    }
}

fn range<K: Ord + Copy>(entries: &[(K, u32)], key: K) -> &[(K, u32)] {
    let start = entries.partition_point(|(other, _)| *other < key);
    let rest = entries.get(start..).unwrap_or_default();
    let same = rest.iter().take_while(|(other, _)| *other == key).count();
    rest.get(..same).unwrap_or_default()
}

fn name_at(names: &[u8], at: u32) -> &[u8] {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let Some((length, rest)) = names.get(at..).and_then(<[u8]>::split_first) else {
        return &[];
    };
    rest.get(..usize::from(*length)).unwrap_or_default()
}

/// A group while it is made.
struct Draft {
    slice: Arc<EndpointSlice>,
    v4: Vec<(Ipv4Addr, u32)>,
    v6: Vec<(Ipv6Addr, u32)>,
    names: Vec<u8>,
}

impl Draft {
    fn new(slice: &Arc<EndpointSlice>) -> Self {
        Self {
            slice: Arc::clone(slice),
            v4: Vec::new(),
            v6: Vec::new(),
            names: Vec::new(),
        }
    }

    fn add(&mut self, endpoint: &Endpoint, pod_names: bool) {
        let naming = endpoint.naming.as_deref();
        let hostname = naming.and_then(|naming| naming.hostname.as_deref());
        let pod = naming.and_then(|naming| naming.pod.as_deref());
        let label = hostname
            .filter(|hostname| is_label(hostname))
            .or_else(|| pod.filter(|pod| pod_names && is_label(pod)));
        let name = label.and_then(|label| self.keep_name(label, endpoint.address));
        let name = name.unwrap_or(NO_NAME);
        match endpoint.address {
            IpAddr::V4(address) => self.v4.push((address, name)),
            IpAddr::V6(address) => self.v6.push((address, name)),
        }
    }

    /// Where the name is kept; `None` if the endpoint is called so anyway.
    fn keep_name(&mut self, label: &str, address: IpAddr) -> Option<u32> {
        let lower = label.to_ascii_lowercase();
        if Dashed::new(address).as_bytes() == lower.as_bytes() {
            return None;
        }
        let at = u32::try_from(self.names.len()).ok()?;
        self.names.push(u8::try_from(lower.len()).ok()?);
        self.names.extend_from_slice(lower.as_bytes());
        Some(at)
    }

    fn finish(mut self) -> Group {
        let names = self.names.into_boxed_slice();
        let name = |at: u32| {
            if at == NO_NAME {
                &[]
            } else {
                name_at(&names, at)
            }
        };
        self.v4
            .sort_by(|a, b| (a.0, name(a.1)).cmp(&(b.0, name(b.1))));
        self.v4
            .dedup_by(|a, b| (a.0, name(a.1)) == (b.0, name(b.1)));
        self.v6
            .sort_by(|a, b| (a.0, name(a.1)).cmp(&(b.0, name(b.1))));
        self.v6
            .dedup_by(|a, b| (a.0, name(a.1)) == (b.0, name(b.1)));
        let all = self.v4.iter().map(|(_, name)| *name);
        let all = all.chain(self.v6.iter().map(|(_, name)| *name));
        let numbered = all.zip(0_u32..).filter(|(name, _)| *name != NO_NAME);
        let mut by_name: Vec<(u32, u32)> = numbered.collect();
        by_name.sort_by(|a, b| (name(a.0), a.1).cmp(&(name(b.0), b.1)));
        let (v4, v6) = (self.v4.into(), self.v6.into());
        Group {
            slice: self.slice,
            v4,
            v6,
            by_name: by_name.into(),
            names,
        }
    }
}

/// Whether it can be one label. Names of pods may have dots: those would be several.
fn is_label(text: &str) -> bool {
    let lengths: Range<usize> = 1..LABEL_OCTETS_MAX + 1;
    lengths.contains(&text.len()) && !text.contains('.')
}
