//! From a question to records: what exists, what is empty, what is missing.

use super::answer::{
    self, Below, Srv, push_address, push_cluster_srv, push_endpoint_srv, push_own_records,
    push_ptr, push_selected, push_soa,
};
use super::config::PodMode;
use super::index::{
    Answers, Endpoints, Kind, PortFilter, Selection, Slot, pod_address, reverse_address,
};
use super::shape::{Labels, Part, Shape};
use super::{Kubernetes, Zone};
use crate::wire::{Name, Reply, Rtype, Section};

/// Seconds that the version may be kept, as CoreDNS has it.
const VERSION_TTL_S: u32 = 28_800;
/// The version of the specification that names follow, as a TXT record has it.
const VERSION: &[u8] = b"\x051.1.0";

/// What became of a question.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The records are in the reply.
    Found,
    /// The name exists, but has nothing of this type. Nothing was pushed.
    Empty,
    /// There is no such name. Nothing was pushed.
    Missing,
    /// It is another name for this one. Nothing was pushed.
    Alias(Box<Name>),
}

/// A name in one of our zones that somebody wants something of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The name in lower case.
    pub(super) lower: &'a Name,
    /// The name as it was written.
    pub(super) written: &'a Name,
    /// Where the labels of both begin.
    pub(super) labels: &'a Labels,
    /// The zone it is in.
    pub(super) zone: &'a Zone,
    /// How many labels are before the zone.
    pub(super) count: usize,
    /// What is wanted.
    pub(super) rtype: Rtype,
    /// The pointer to the name in the reply.
    pub(super) owner: [u8; 2],
    /// Octets that the reply may have.
    pub(super) limit: usize,
}

impl Asked<'_> {
    /// Where the zone begins in the name.
    pub(super) fn zone_at(&self) -> usize {
        self.lower.wire_len() - self.zone.name.wire_len()
    }

    /// The zone as it was written.
    fn zone_octets(&self) -> &[u8] {
        let wire = self.written.as_wire();
        wire.get(self.zone_at()..).unwrap_or_default()
    }
}

impl Kubernetes {
    /// Finds what is asked for and pushes it.
    pub(super) fn find(&self, reply: &mut Reply, asked: &Asked<'_>) -> Verdict {
        if asked.zone.reverse
            && let Some(verdict) = self.find_reverse(reply, asked)
        {
            return verdict;
        }
        let exists = |exists: bool| {
            if exists {
                Verdict::Empty
            } else {
                Verdict::Missing
            }
        };
        match Shape::new(asked.lower, asked.labels, asked.count, self.zonal) {
            Shape::Service { key, part } => self.find_service(reply, asked, key, part),
            Shape::Pod { label, namespace } => self.find_pod(reply, asked, label, namespace),
            Shape::Namespace(label) => exists(self.index.has_namespace(label)),
            Shape::PodNamespace(label) => {
                exists(self.pods != PodMode::Disabled && self.index.has_namespace(label))
            }
            Shape::Empty => Verdict::Empty,
            Shape::Version => push_version(reply, asked),
            Shape::NameServer => self.find_name_server(reply, asked),
            Shape::Apex => self.find_apex(reply, asked),
            Shape::Other => Verdict::Missing,
        }
    }

    fn find_service(
        &self,
        reply: &mut Reply,
        asked: &Asked<'_>,
        key: &[u8],
        part: Part<'_>,
    ) -> Verdict {
        let found = self.index.service(key);
        let Some(slot) = found.as_ref().and_then(|found| found.slot()) else {
            return Verdict::Missing;
        };
        let answers = slot.answers();
        match (&answers.kind, part) {
            (Kind::External(target), Part::Whole) => alias(target),
            (Kind::ClusterIp, Part::Whole | Part::Ports(_)) => {
                let (_, filter) = part.selects();
                self.find_cluster(reply, asked, (slot, &answers), filter)
            }
            (Kind::Headless, Part::Whole) if !answers.endpoints.is_empty() => match asked.rtype {
                Rtype::A | Rtype::AAAA => own_records(reply, asked, &answers),
                _ => self.find_endpoints(reply, asked, slot, &answers.endpoints, part),
            },
            (Kind::Headless, Part::Ports(_))
            | (Kind::Headless | Kind::ClusterIp, Part::Endpoint(_)) => {
                self.find_endpoints(reply, asked, slot, &answers.endpoints, part)
            }
            (Kind::Headless, Part::Zonal { zone, prefer }) => {
                let endpoints = endpoints_in(&answers, zone, prefer);
                match endpoints.map(|own| self.find_endpoints(reply, asked, slot, own, part)) {
                    None | Some(Verdict::Missing) => Verdict::Empty,
                    Some(verdict) => verdict,
                }
            }
            _ => Verdict::Missing,
        }
    }

    fn find_cluster(
        &self,
        reply: &mut Reply,
        asked: &Asked<'_>,
        (slot, answers): (&Slot, &Answers),
        filter: PortFilter<'_>,
    ) -> Verdict {
        if asked.rtype == Rtype::SRV {
            let srv = self.srv(asked, slot, filter);
            if !push_cluster_srv(reply, answers, srv) {
                return Verdict::Missing;
            }
            return found_or_empty(reply.count(Section::Answer));
        }
        if !filter.is_any() {
            let service = answers.service.as_ref();
            let mut ports = service.iter().flat_map(|service| service.ports.iter());
            if !ports.any(|port| filter.matches(&port.name, port.protocol)) {
                return Verdict::Missing;
            }
        }
        own_records(reply, asked, answers)
    }

    fn find_endpoints(
        &self,
        reply: &mut Reply,
        asked: &Asked<'_>,
        slot: &Slot,
        endpoints: &Endpoints,
        part: Part<'_>,
    ) -> Verdict {
        let (selection, filter) = part.selects();
        let (exists, pushed) = match asked.rtype {
            rtype @ (Rtype::A | Rtype::AAAA) => {
                let meant = (selection, filter);
                push_selected(reply, endpoints, meant, rtype, asked.owner, self.ttl)
            }
            Rtype::SRV => {
                let srv = self.srv(asked, slot, filter);
                let exists = push_endpoint_srv(reply, endpoints, selection, srv);
                (exists, reply.count(Section::Answer))
            }
            _ => (exist(endpoints, selection, filter), 0),
        };
        if exists {
            found_or_empty(pushed)
        } else {
            Verdict::Missing
        }
    }

    fn srv<'a>(&self, asked: &'a Asked<'_>, slot: &'a Slot, filter: PortFilter<'a>) -> Srv<'a> {
        Srv {
            below: Below {
                key: slot.key(),
                zone: asked.zone_octets(),
            },
            filter,
            ttl: self.ttl,
            limit: asked.limit,
        }
    }

    fn find_pod(
        &self,
        reply: &mut Reply,
        asked: &Asked<'_>,
        label: &[u8],
        namespace: &[u8],
    ) -> Verdict {
        if self.pods == PodMode::Disabled || !self.index.has_namespace(namespace) {
            return Verdict::Missing;
        }
        let Some(address) = pod_address(label) else {
            return Verdict::Missing;
        };
        if self.pods == PodMode::Verified && !self.index.has_pod(address, namespace) {
            return Verdict::Missing;
        }
        let section = Section::Answer;
        let pushed = push_address(reply, section, &asked.owner, asked.rtype, self.ttl, address);
        found_or_empty(pushed)
    }

    /// A name that is all of an address in reverse; `None` if it is not, or has no data and
    /// is the zone's own name.
    fn find_reverse(&self, reply: &mut Reply, asked: &Asked<'_>) -> Option<Verdict> {
        let address = reverse_address(asked.lower.labels(), asked.labels.count())?;
        let pushed = if asked.rtype == Rtype::PTR {
            push_ptr(
                reply,
                &self.index,
                address,
                self.primary.as_wire(),
                self.ttl,
            )
        } else {
            0
        };
        if pushed > 0 {
            return Some(Verdict::Found);
        }
        if asked.count == 0 {
            return None;
        }
        let exists = asked.rtype != Rtype::PTR && self.index.knows(address);
        Some(if exists {
            Verdict::Empty
        } else {
            Verdict::Missing
        })
    }

    fn find_apex(&self, reply: &mut Reply, asked: &Asked<'_>) -> Verdict {
        match asked.rtype {
            Rtype::SOA => {
                let serial = self.index.serial();
                push_soa(reply, Section::Answer, asked.zone_at(), self.ttl, serial);
                Verdict::Found
            }
            Rtype::NS => self.push_name_servers(reply, asked.zone_octets()),
            _ => Verdict::Empty,
        }
    }
}

fn alias(target: &[u8]) -> Verdict {
    match Name::read_plain(target, 0) {
        Ok((name, _)) => Verdict::Alias(Box::new(name)),
        Err(_) => Verdict::Missing,
    }
}

fn own_records(reply: &mut Reply, asked: &Asked<'_>, answers: &Answers) -> Verdict {
    found_or_empty(push_own_records(
        reply,
        answers,
        asked.rtype,
        asked.owner,
        asked.limit,
    ))
}

const fn found_or_empty(pushed: u16) -> Verdict {
    if pushed > 0 {
        Verdict::Found
    } else {
        Verdict::Empty
    }
}

fn exist(endpoints: &Endpoints, selection: Selection<'_>, filter: PortFilter<'_>) -> bool {
    let mut groups = endpoints.groups().iter();
    groups.any(|group| group.matching_ports(filter) > 0 && group.len(selection) > 0)
}

/// The endpoints of a topology zone, its name given as labels in lower case.
fn endpoints_in<'a>(answers: &'a Answers, zone: &[u8], prefer: bool) -> Option<&'a Endpoints> {
    let is_it = |name: &str| {
        let mut rest = zone;
        let mut parts = name.split('.');
        while let Some((length, after)) = rest.split_first() {
            let Some((label, after)) = after.split_at_checked(usize::from(*length)) else {
                return false;
            };
            if parts.next().map(str::as_bytes) != Some(label) {
                return false;
            }
            rest = after;
        }
        parts.next().is_none()
    };
    let own = answers.zones.iter().find(|(name, _)| is_it(name));
    let own = own
        .map(|(_, endpoints)| endpoints)
        .filter(|own| !own.is_empty());
    own.or_else(|| prefer.then_some(&answers.endpoints))
}

fn push_version(reply: &mut Reply, asked: &Asked<'_>) -> Verdict {
    if asked.rtype != Rtype::TXT {
        return Verdict::Empty;
    }
    let fixed = answer::fixed(Rtype::TXT, VERSION_TTL_S, VERSION.len());
    reply.push_wire(Section::Answer, 0, &asked.owner);
    reply.push_wire(Section::Answer, 0, &fixed);
    reply.push_wire(Section::Answer, 1, VERSION);
    Verdict::Found
}
