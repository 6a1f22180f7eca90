//! Whole zones, for `transfer`: every name asked as a client would, so that TTLs, weights and
//! names are those of answers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::find::{Asked, Verdict};
use super::index::{Kind, Selection, Slot};
use super::shape::Labels;
use super::{Kubernetes, Zone};
use crate::wire::{Name, Question, Record, Reply, Rtype};

/// What a Service's own name can have.
const OF_SERVICES: [Rtype; 3] = [Rtype::A, Rtype::AAAA, Rtype::SRV];
/// What an endpoint's name can have.
const OF_ENDPOINTS: [Rtype; 2] = [Rtype::A, Rtype::AAAA];

impl Kubernetes {
    /// The zone of exactly this name, once it can be told whole.
    pub(super) fn transferred(&self, name: &Name) -> Option<&Zone> {
        let zone = self.zones.iter().find(|zone| zone.name == *name);
        zone.filter(|_| self.index.is_synced())
    }

    /// All its records, the SOA first.
    pub(super) fn all_records(&self, zone: &Zone) -> Vec<Record> {
        let mut records = Vec::new();
        self.ask(&zone.name, Rtype::SOA, &mut records);
        self.ask(&zone.name, Rtype::NS, &mut records);
        self.ask_below(&[b"ns", b"dns"], zone, &OF_ENDPOINTS, &mut records);
        self.ask_below(&[b"dns-version"], zone, &[Rtype::TXT], &mut records);
        let mut slots = Vec::new();
        self.index.for_each(|slot| slots.push(Arc::clone(slot)));
        slots.sort_by(|a, b| a.key().cmp(b.key()));
        if zone.reverse {
            self.reverse_records(zone, &slots, &mut records);
        } else {
            for slot in &slots {
                self.service_records(zone, slot, &mut records);
            }
        }
        records
    }

    fn service_records(&self, zone: &Zone, slot: &Slot, records: &mut Vec<Record>) {
        let mut own: Vec<&[u8]> = slot.labels().collect();
        own.push(b"svc");
        let answers = slot.answers();
        let ports: Vec<(&str, &str)> = match answers.kind {
            Kind::Absent => return,
            Kind::External(_) => {
                self.ask_below(&own, zone, &[Rtype::CNAME], records);
                return;
            }
            Kind::ClusterIp => {
                let services = answers.service.iter();
                let ports = services.flat_map(|service| service.ports.iter());
                let ports = ports.map(|port| (&*port.name, port.protocol.as_str()));
                ports.collect()
            }
            Kind::Headless => {
                let groups = answers.endpoints.groups().iter();
                let ports = groups.flat_map(|group| group.ports());
                let ports = ports.map(|port| (&*port.name, port.protocol.as_str()));
                ports.collect()
            }
        };
        self.ask_below(&own, zone, &OF_SERVICES, records);
        let ports: BTreeSet<(&str, &str)> = ports.into_iter().collect();
        for (port, protocol) in ports.into_iter().filter(|(port, _)| !port.is_empty()) {
            let (port, protocol) = (format!("_{port}"), format!("_{protocol}"));
            let labels = [&[port.as_bytes(), protocol.as_bytes()], &own[..]].concat();
            self.ask_below(&labels, zone, &[Rtype::SRV], records);
        }
        if answers.kind != Kind::Headless {
            return;
        }
        let groups = answers.endpoints.groups().iter();
        let targets = groups.flat_map(|group| group.targets(Selection::All));
        let labels = targets.map(|target| target.label().as_bytes().to_vec());
        for label in labels.collect::<BTreeSet<_>>() {
            let labels = [&[label.as_slice()], &own[..]].concat();
            self.ask_below(&labels, zone, &OF_ENDPOINTS, records);
        }
    }

    fn reverse_records(&self, zone: &Zone, slots: &[Arc<Slot>], records: &mut Vec<Record>) {
        let mut addresses = BTreeSet::new();
        for slot in slots {
            let answers = slot.answers();
            addresses.extend(answers.cluster_ips().iter().copied());
            addresses.extend(answers.endpoints.addresses());
        }
        for address in addresses {
            let name = Name::from_text(&reverse_name(address));
            if let Some(name) = name.ok().filter(|name| name.is_within(&zone.name)) {
                self.ask(&name, Rtype::PTR, records);
            }
        }
    }

    fn ask_below(
        &self,
        labels: &[&[u8]],
        zone: &Zone,
        rtypes: &[Rtype],
        records: &mut Vec<Record>,
    ) {
        let before = Name::from_labels(labels.iter().copied());
        let Ok(name) = before.and_then(|before| before.followed_by(&zone.name)) else {
            return;
        };
        for rtype in rtypes {
            self.ask(&name, *rtype, records);
        }
    }

    fn ask(&self, name: &Name, rtype: Rtype, records: &mut Vec<Record>) {
        let question = Question::new(name.clone(), rtype);
        let labels = Labels::new(question.lower());
        let Some((zone, count)) = self.zone_of(question.lower(), &labels) else {
            return;
        };
        let asked = Asked {
            lower: question.lower(),
            written: question.name(),
            labels: &labels,
            zone,
            count,
            rtype,
            owner: [0xC0, 0x0C],
            limit: usize::MAX,
        };
        let mut reply = Reply::default();
        reply.begin(&question);
        match self.find(&mut reply, &asked) {
            Verdict::Found => match reply.records() {
                Ok(found) => records.extend(found.answer),
                Err(error) => tracing::error!(%error, "a record of a transfer is left out"),
            },
            Verdict::Alias(target) => records.push(Record::cname(name.clone(), self.ttl, &target)),
            Verdict::Empty | Verdict::Missing => {}
        }
    }
}

/// The name that PTR records of an address have.
fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(address) => {
            let octets = address.octets().into_iter().rev();
            let labels = octets.map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4));
            format!("{}ip6.arpa.", labels.collect::<String>())
        }
    }
}
