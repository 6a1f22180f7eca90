//! The zone's own name server: `NS` at the apex, and `ns.dns`.

use std::net::IpAddr;

use super::Kubernetes;
use super::find::{Asked, Verdict};
use super::index::{Kind, Slot};
use crate::wire::{Name, Record, Reply, Rtype, Section};

/// What we are called where no Service leads to us.
const OWN_LABELS: [&[u8]; 2] = [b"ns", b"dns"];

impl Kubernetes {
    /// The names and addresses of this server: those of the Services that one of our own
    /// addresses is behind, or else `ns.dns` with our own.
    fn name_servers(&self, zone: &[u8]) -> Vec<(Name, IpAddr)> {
        let mut servers = Vec::new();
        for address in &self.own_addresses {
            self.index
                .services_behind(*address, |slot| servers.extend(of_service(slot, zone)));
        }
        if servers.is_empty() {
            let name = name(&OWN_LABELS, zone);
            let own = self.own_addresses.iter();
            servers.extend(own.filter_map(|address| Some((name.clone()?, *address))));
        }
        let mut unique: Vec<(Name, IpAddr)> = Vec::new();
        for server in servers {
            if !unique.contains(&server) {
                unique.push(server);
            }
        }
        unique
    }

    /// `NS` records with their addresses. `zone` is as it was asked for.
    pub(super) fn push_name_servers(&self, reply: &mut Reply, zone: &[u8]) -> Verdict {
        let servers = self.name_servers(zone);
        let Ok((zone, _)) = Name::read_plain(zone, 0) else {
            return Verdict::Empty;
        };
        let mut seen: Vec<&Name> = Vec::new();
        for (server, _) in &servers {
            if seen.contains(&server) {
                continue;
            }
            seen.push(server);
            let data = server.as_wire().to_vec();
            let record = Record::new(zone.clone(), Rtype::NS, self.ttl, data);
            reply.push(Section::Answer, &record);
        }
        for (server, address) in &servers {
            let (rtype, data) = match address {
                IpAddr::V4(address) => (Rtype::A, address.octets().to_vec()),
                IpAddr::V6(address) => (Rtype::AAAA, address.octets().to_vec()),
            };
            let record = Record::new(server.clone(), rtype, self.ttl, data);
            reply.push(Section::Additional, &record);
        }
        if seen.is_empty() {
            Verdict::Empty
        } else {
            Verdict::Found
        }
    }

    /// The addresses of `ns.dns`.
    pub(super) fn find_name_server(&self, reply: &mut Reply, asked: &Asked<'_>) -> Verdict {
        if !matches!(asked.rtype, Rtype::A | Rtype::AAAA) {
            return Verdict::Empty;
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (_, address) in self.name_servers(asked.zone.name.as_wire()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let mut pushed = 0;
        for address in addresses {
            pushed += super::answer::push_address(
                reply,
                Section::Answer,
                &asked.owner,
                asked.rtype,
                self.ttl,
                address,
            );
        }
        if pushed > 0 {
            Verdict::Found
        } else {
            Verdict::Empty
        }
    }
}

fn of_service(slot: &Slot, zone: &[u8]) -> Vec<(Name, IpAddr)> {
    let mut wire = slot.key().to_vec();
    wire.extend_from_slice(b"\x03svc");
    wire.extend_from_slice(zone);
    let Ok((service, _)) = Name::read_plain(&wire, 0) else {
        return Vec::new();
    };
    let answers = slot.answers();
    match answers.kind {
        Kind::ClusterIp => {
            let ips = answers.cluster_ips().iter();
            ips.map(|address| (service.clone(), *address)).collect()
        }
        Kind::Headless => {
            let groups = answers.endpoints.groups().iter();
            let targets = groups.flat_map(|group| group.targets(super::index::Selection::All));
            let named = targets.filter_map(|target| {
                let label = target.label();
                let name = name(&[label.as_bytes()], service.as_wire())?;
                Some(
                    target
                        .addresses()
                        .map(move |address| (name.clone(), address)),
                )
            });
            named.flatten().collect()
        }
        Kind::Absent | Kind::External(_) => Vec::new(),
    }
}

fn name(labels: &[&[u8]], rest: &[u8]) -> Option<Name> {
    let before = Name::from_labels(labels.iter().copied()).ok()?;
    let (rest, _) = Name::read_plain(rest, 0).ok()?;
    before.followed_by(&rest).ok()
}
