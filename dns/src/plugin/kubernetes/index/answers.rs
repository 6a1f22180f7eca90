//! What a Service's names are answered with, made when it or its endpoints change.

use std::net::IpAddr;
use std::sync::Arc;

use switchyard_cluster::object::{EndpointSlice, Service, ServiceType};

use super::IndexOptions;
use super::endpoints::Endpoints;
use crate::wire::{Name, Rtype};

/// Octets of an A record whose owner is a pointer.
pub const A_OCTETS: usize = 16;
/// Octets of an AAAA record whose owner is a pointer.
pub const AAAA_OCTETS: usize = 28;

/// What a Service is to DNS.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is none, or nothing is to be told of it.
    Absent,
    /// It has addresses of its own.
    ClusterIp,
    /// Its endpoints' addresses are its own.
    Headless,
    /// Another name.
    External(Box<[u8]>),
}

/// Everything about one Service. Never changed: a new one takes its place.
#[derive(Debug)]
pub struct Answers {
    /// What it is.
    pub kind: Kind,
    /// Its A records, owned by the name asked for (a pointer to the question).
    pub a: Box<[u8]>,
    /// The same, AAAA.
    pub aaaa: Box<[u8]>,
    /// The object, for its ports.
    pub service: Option<Arc<Service>>,
    /// Who serves it.
    pub endpoints: Endpoints,
    /// Headless only, and only where names of topology zones are answered: the endpoints of
    /// each zone, its name in lower case.
    pub zones: Box<[(Box<str>, Endpoints)]>,
}

impl Answers {
    /// Made of the Service, if it exists, and the slices that name it.
    pub fn new(
        service: Option<&Arc<Service>>,
        slices: &[&Arc<EndpointSlice>],
        options: &IndexOptions,
    ) -> Self {
        let pod_names = options.endpoint_pod_names;
        let endpoints = Endpoints::new(slices, pod_names, |_| true);
        let kind = kind(service, &endpoints, options);
        let addresses = match (&kind, service) {
            (Kind::ClusterIp, Some(service)) => service.cluster_ips.to_vec(),
            (Kind::Headless, _) => endpoints.addresses(),
            _ => Vec::new(),
        };
        let zones = match kind {
            Kind::Headless if options.zonal => by_zone(slices, pod_names),
            _ => Box::default(),
        };
        Self {
            a: records(&addresses, options.ttl, Rtype::A),
            aaaa: records(&addresses, options.ttl, Rtype::AAAA),
            kind,
            service: service.map(Arc::clone),
            endpoints,
            zones,
        }
    }

    /// A's records of this type, ready to be copied, and how many they are.
    #[must_use]
    pub fn records(&self, rtype: Rtype) -> (&[u8], usize) {
        match rtype {
            Rtype::A => (&self.a, self.a.len() / A_OCTETS),
            Rtype::AAAA => (&self.aaaa, self.aaaa.len() / AAAA_OCTETS),
            _ => (&[], 0),
        }
    }

    /// The addresses of the Service itself.
    #[must_use]
    pub fn cluster_ips(&self) -> &[IpAddr] {
        self.service
            .as_ref()
            .map_or(&[], |service| &service.cluster_ips)
    }

    /// Whether a client could tell the difference.
    #[must_use]
    pub fn same_to_clients(&self, other: &Self) -> bool {
        let ports = |answers: &Self| answers.service.as_ref().map(|own| own.ports.clone());
        self.kind == other.kind
            && self.a == other.a
            && self.aaaa == other.aaaa
            && self.endpoints == other.endpoints
            && self.zones == other.zones
            && ports(self) == ports(other)
    }
}

fn kind(service: Option<&Arc<Service>>, endpoints: &Endpoints, options: &IndexOptions) -> Kind {
    let Some(service) = service else {
        return Kind::Absent;
    };
    if service.kind == ServiceType::ExternalName {
        let text = service.external_name.as_deref().unwrap_or_default();
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.is_empty() || bare.parse::<IpAddr>().is_ok() {
            return Kind::Absent;
        }
        let target = Name::from_text(text);
        return target.map_or(Kind::Absent, |name| Kind::External(name.as_wire().into()));
    }
    if service.headless {
        return Kind::Headless;
    }
    if options.ignore_empty_service && endpoints.is_empty() {
        return Kind::Absent;
    }
    Kind::ClusterIp
}

fn by_zone(slices: &[&Arc<EndpointSlice>], pod_names: bool) -> Box<[(Box<str>, Endpoints)]> {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter());
    let zones = endpoints.filter_map(|endpoint| endpoint.zone());
    let mut zones: Vec<Box<str>> = zones.map(|zone| zone.to_ascii_lowercase().into()).collect();
    zones.sort_unstable();
    zones.dedup();
    let zones = zones.into_iter().map(|zone| {
        let within = Endpoints::new(slices, pod_names, |endpoint| {
            let own = endpoint.zone();
            own.is_some_and(|own| own.eq_ignore_ascii_case(&zone))
        });
        (zone, within)
    });
    zones.collect()
}

/// Address records owned by the question's name, ready to be copied.
fn records(addresses: &[IpAddr], ttl: u32, rtype: Rtype) -> Box<[u8]> {
    let mut wire = Vec::new();
    for address in addresses {
        match (address, rtype) {
            (IpAddr::V4(address), Rtype::A) => {
                wire.extend_from_slice(&address_head(rtype, ttl, 4));
                wire.extend_from_slice(&address.octets());
            }
            (IpAddr::V6(address), Rtype::AAAA) => {
                wire.extend_from_slice(&address_head(rtype, ttl, 16));
                wire.extend_from_slice(&address.octets());
            }
            _ => {}
        }
    }
    wire.into()
}

/// Everything before the RDATA of a record owned by the name asked for.
#[must_use]
pub fn address_head(rtype: Rtype, ttl: u32, length: u8) -> [u8; 12] {
    let ([t0, t1], [s0, s1, s2, s3]) = (rtype.0.to_be_bytes(), ttl.to_be_bytes());
    [0xC0, 0x0C, t0, t1, 0, 1, s0, s1, s2, s3, 0, length]
}
