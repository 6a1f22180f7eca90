//! The same names as zone files, for servers that read those; and the names outside.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::cluster::{PORT, Service, ZONE};

/// A zone outside the cluster, answered by a server of ours on loopback.
pub(super) const OUTSIDE_ZONE: &str = "example.net";
/// Names in it.
pub(super) const OUTSIDE_NAMES: usize = 1000;
/// Every so many of them one is an alias of the one before.
const ALIAS_EVERY: usize = 10;
/// The reverse zone of all IPv4 addresses of the cluster.
pub(super) const REVERSE_ZONE: &str = "10.in-addr.arpa";
/// As kubeadm's Corefile has it.
const TTL_S: u32 = 30;
const OUTSIDE_TTL_S: u32 = 3600;

/// The head of a zone file.
fn head(zone: &str, ttl_s: u32) -> String {
    format!(
        "$ORIGIN {zone}.\n$TTL {ttl_s}\n@ SOA ns.dns.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 86400 {ttl_s}\n\
         @ NS ns.dns.{ZONE}.\n"
    )
}

/// The cluster's zone.
pub(super) fn forward(services: &[Service]) -> String {
    let mut zone = head(ZONE, TTL_S);
    // Writing to a String can't fail.
    let _ = writeln!(zone, "ns.dns A 10.96.0.10");
    for service in services {
        let domain = service.domain();
        let port = format!("_{}._tcp.{domain}.", PORT.0);
        if let Some(address) = service.cluster_ip {
            let _ = writeln!(zone, "{domain}. A {address}");
            let mut weight = 100;
            if let Some(address) = service.cluster_ip6 {
                let _ = writeln!(zone, "{domain}. AAAA {address}");
                weight = 50;
            }
            let _ = writeln!(zone, "{port} SRV 0 {weight} {} {domain}.", PORT.1);
            continue;
        }
        let weight = 100 / service.endpoints.len().max(1);
        for address in &service.endpoints {
            let target = endpoint_domain(*address, &domain);
            let _ = writeln!(zone, "{domain}. A {address}\n{target}. A {address}");
            let _ = writeln!(zone, "{port} SRV 0 {weight} {} {target}.", PORT.2);
        }
    }
    zone
}

/// The cluster's reverse zone.
pub(super) fn reverse(services: &[Service]) -> String {
    let mut zone = head(REVERSE_ZONE, TTL_S);
    for service in services {
        let domain = service.domain();
        if let Some(address) = service.cluster_ip {
            let _ = writeln!(zone, "{}. PTR {domain}.", reverse_domain(address));
        }
        for address in &service.endpoints {
            let target = endpoint_domain(*address, &domain);
            let _ = writeln!(zone, "{}. PTR {target}.", reverse_domain(*address));
        }
    }
    zone
}

/// The zone outside.
pub(super) fn outside() -> String {
    let mut zone = head(OUTSIDE_ZONE, OUTSIDE_TTL_S);
    for number in 0..OUTSIDE_NAMES {
        let name = outside_domain(number);
        let _ = if number % ALIAS_EVERY == ALIAS_EVERY - 1 {
            writeln!(zone, "{name}. CNAME {}.", outside_domain(number - 1))
        } else {
            let host = u32::try_from(number).unwrap_or(0);
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + host);
            writeln!(zone, "{name}. A {address}")
        };
    }
    zone
}

pub(super) fn outside_domain(number: usize) -> String {
    format!("host-{number:04}.{OUTSIDE_ZONE}")
}

pub(super) fn endpoint_domain(address: Ipv4Addr, service: &str) -> String {
    format!("{}.{service}", address.to_string().replace('.', "-"))
}

pub(super) fn reverse_domain(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

#[cfg(test)]
mod tests {
    use super::super::cluster::services;
    use super::*;

    #[test]
    fn every_service_has_its_records() {
        let all = services(10, 20).unwrap();
        let zone = forward(&all);
        assert!(zone.contains("svc-00001.team-01.svc.cluster.local. A 10.96.1.1\n"));
        assert!(zone.contains(
            "_http._tcp.svc-00001.team-01.svc.cluster.local. SRV 0 100 80 svc-00001.team-01.svc.cluster.local.\n"
        ));
        assert!(zone.contains("_http._tcp.svc-00000.team-00.svc.cluster.local. SRV 0 50 80 "));
        assert!(zone.contains("10-128-0-19.svc-00009.team-09.svc.cluster.local. A 10.128.0.19\n"));
        let reverse = reverse(&all);
        assert!(
            reverse.contains("1.1.96.10.in-addr.arpa. PTR svc-00001.team-01.svc.cluster.local.\n")
        );
        assert!(reverse.contains(
            "19.0.128.10.in-addr.arpa. PTR 10-128-0-19.svc-00009.team-09.svc.cluster.local.\n"
        ));
    }

    #[test]
    fn an_alias_outside_has_a_target_that_is_none() {
        let zone = outside();
        assert!(zone.contains("host-0009.example.net. CNAME host-0008.example.net.\n"));
        assert!(zone.contains("host-0008.example.net. A 198.18.0.9\n"));
    }
}
