//! A cluster as the reference programs it in nftables mode: for comparison only.
//!
//! The shape is that of kube-proxy 1.36's table `ip kube-proxy`: verdict maps from addresses and
//! ports to one chain a Service port, which picks an endpoint by `numgen`. Written from scratch,
//! with what the measured traffic can meet; no affinity, no source ranges.

use std::fmt::Write;

use switchyard_tests::testbed::Place;

use super::cluster::{ENDPOINT_PORT, SERVICE_PORT, Service};
use crate::cluster::{FIRST_CLUSTER_IP, NAMESPACE, Side};

/// The pods' network, whose packets to ClusterIPs are not masqueraded.
const PODS: &str = "10.244.0.0/16";
/// The chain of the probed Service.
const PROBE_CHAIN: &str = "service-0PROBE00-bench/probe/tcp/http";

/// Chains through which every packet goes, and the maps that each Service adds to.
const FRAME: &str = "
	chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; ct state new jump firewall-check; }
	chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
	chain filter-input { type filter hook input priority 0; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }
	chain filter-forward { type filter hook forward priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
	chain filter-output { type filter hook output priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
	chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
	chain nat-output { type nat hook output priority -100; jump services; }
	chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
	chain nodeport-endpoints-check { ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no-endpoint-nodeports; }
	chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
	chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
	chain services {
		ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000
		ip daddr . meta l4proto . th dport vmap @service-ips
		fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
	}
	chain masquerading {
		meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random
		ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
	}
	chain cluster-ips-check { ip daddr @cluster-ips reject; ip daddr 10.96.0.0/16 drop; }
";

/// A table, and how much is in it.
pub(super) struct Table {
    /// What `nft -f` reads.
    pub(super) text: String,
    /// Rules of all chains and elements of all sets and maps.
    pub(super) entries: usize,
}

/// The whole table. The probed Service has the endpoint of this side.
pub(super) fn table(services: &[Service], side: Side) -> Table {
    let mut parts = Parts::default();
    parts.cluster_ips.push(FIRST_CLUSTER_IP.to_string());
    parts.service_ips.push(format!(
        "{FIRST_CLUSTER_IP} . tcp . {SERVICE_PORT} : goto {PROBE_CHAIN}"
    ));
    parts.chain(PROBE_CHAIN, &[probe_rule(side)]);
    for (number, service) in services.iter().enumerate() {
        parts.add(number, service);
    }
    parts.finish()
}

/// The same as one transaction that changes the probed Service's endpoint.
pub(super) fn change(side: Side) -> String {
    format!(
        "flush chain ip kube-proxy {PROBE_CHAIN}\nadd rule ip kube-proxy {PROBE_CHAIN} {}\n",
        probe_rule(side)
    )
}

fn probe_rule(side: Side) -> String {
    let endpoint = side.endpoint();
    format!(
        "meta l4proto tcp dnat ip to numgen random mod 1 map {{ 0 : {} . {} }}",
        endpoint.ip(),
        endpoint.port()
    )
}

#[derive(Default)]
struct Parts {
    cluster_ips: Vec<String>,
    service_ips: Vec<String>,
    node_ports: Vec<String>,
    hairpins: Vec<String>,
    chains: String,
    rules: usize,
}

impl Parts {
    fn add(&mut self, number: usize, service: &Service) {
        self.cluster_ips.push(service.cluster_ip.to_string());
        for protocol in service.protocols() {
            // Eight characters in place of the reference's hash.
            let name = format!(
                "{number:08}-{NAMESPACE}/{}/{protocol}/{protocol}",
                service.name
            );
            self.chain(&format!("service-{name}"), &[pick(service, protocol)]);
            self.service_ips.push(format!(
                "{} . {protocol} . {SERVICE_PORT} : goto service-{name}",
                service.cluster_ip
            ));
            if let Some(measured) = service.measured {
                self.node_ports.push(format!(
                    "{protocol} . {} : goto external-{name}",
                    measured.node_port()
                ));
                self.external(&name, service, protocol);
            }
            for endpoint in &service.endpoints {
                // Only of the node's own pods.
                if Some(endpoint.node) == Place::Node1.node() && !service.is_local() {
                    let address = endpoint.address;
                    self.hairpins.push(format!(
                        "{address} . {address} . {protocol} . {ENDPOINT_PORT}"
                    ));
                }
            }
        }
    }

    fn external(&mut self, name: &str, service: &Service, protocol: &str) {
        if !service.is_local() {
            let rules = [
                "meta mark set meta mark | 0x00004000".to_owned(),
                format!("goto service-{name}"),
            ];
            return self.chain(&format!("external-{name}"), &rules);
        }
        self.chain(&format!("local-{name}"), &[pick(service, protocol)]);
        let rules = [
            format!("ip saddr {PODS} goto service-{name}"),
            "fib saddr type local meta mark set meta mark | 0x00004000".to_owned(),
            format!("fib saddr type local goto service-{name}"),
            format!("goto local-{name}"),
        ];
        self.chain(&format!("external-{name}"), &rules);
    }

    fn chain(&mut self, name: &str, rules: &[String]) {
        self.rules += rules.len();
        // Writing to a String can't fail.
        let _ = writeln!(
            self.chains,
            "\tchain {name} {{\n\t\t{}\n\t}}",
            rules.join("\n\t\t")
        );
    }

    fn finish(self) -> Table {
        let verdicts = "type ipv4_addr . inet_proto . inet_service : verdict;";
        let node_verdicts = "type inet_proto . inet_service : verdict;";
        let kinds = [
            ("set cluster-ips", "type ipv4_addr;", &self.cluster_ips),
            (
                "set hairpin-connections",
                "type ipv4_addr . ipv4_addr . inet_proto . inet_service;",
                &self.hairpins,
            ),
            ("map no-endpoint-services", verdicts, &Vec::new()),
            ("map no-endpoint-nodeports", node_verdicts, &Vec::new()),
            ("map firewall-ips", verdicts, &Vec::new()),
            ("map service-ips", verdicts, &self.service_ips),
            ("map service-nodeports", node_verdicts, &self.node_ports),
        ];
        let mut sets = String::new();
        let mut elements = String::new();
        let mut entries = self.rules + frame_rules();
        for (name, what, members) in kinds {
            let _ = writeln!(sets, "\t{name} {{ {what} }}");
            entries += members.len();
            if let Some((_, short)) = name.split_once(' ').filter(|_| !members.is_empty()) {
                let all = members.join(",\n\t");
                let _ = writeln!(elements, "add element ip kube-proxy {short} {{ {all} }}");
            }
        }
        let chains = self.chains;
        Table {
            text: format!("table ip kube-proxy {{\n{sets}{FRAME}{chains}}}\n{elements}"),
            entries,
        }
    }
}

/// Which endpoint, with equal chances.
fn pick(service: &Service, protocol: &str) -> String {
    let choices: Vec<String> = service
        .endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| format!("{number} : {} . {ENDPOINT_PORT}", endpoint.address))
        .collect();
    format!(
        "meta l4proto {protocol} dnat ip to numgen random mod {} map {{ {} }}",
        choices.len(),
        choices.join(", ")
    )
}

/// Rules of [`FRAME`]: each does one of these.
fn frame_rules() -> usize {
    [
        " jump ",
        " vmap ",
        "meta mark set",
        "@hairpin",
        " reject;",
        " drop;",
    ]
    .map(|does| FRAME.matches(does).count())
    .iter()
    .sum()
}

#[cfg(test)]
mod tests {
    use super::super::cluster::services;
    use super::*;

    #[test]
    fn every_service_port_has_a_chain_and_an_element() {
        let table = table(&services(10).unwrap(), Side::Here);
        // The probed one, five plain ones, four measured ones with TCP and UDP.
        assert_eq!(table.text.matches("chain service-").count(), 1 + 5 + 8 + 1);
        assert_eq!(table.text.matches(". 80 : goto service-").count(), 14);
        assert_eq!(table.text.matches(" : goto external-").count(), 8);
        assert!(table.text.contains("tcp . 30002 : goto external-"));
        assert!(table.entries > 14 + 14 + 8);
    }

    #[test]
    fn a_change_touches_one_chain() {
        let change = change(Side::There);
        assert_eq!(change.matches(PROBE_CHAIN).count(), 2);
        assert!(change.contains("10.244.2.21 . 8080"));
        assert_eq!(change.lines().count(), 2);
    }
}
