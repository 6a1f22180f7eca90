//! What an empty cluster must leave behind in the kernel: nothing.

use anyhow::Result;

use super::backend::Backend;
use super::rules::{per_service_chains, save_rules};
use crate::testbed::{Family, Place, Proxy, Testbed};

/// Maps of the eBPF backend that hold nothing while there is no Service. (Flows stay until their
/// time is up, so they are not among them.)
pub const MAPS_OF_SERVICES: [&str; 7] = [
    "frontends",
    "slots",
    "words",
    "ranges",
    "identities",
    "affinity",
    "counters",
];
/// Holds the node's own addresses too.
const ADDRESSES: &str = "addresses";

/// How many entries a map of the eBPF backend holds, as the proxy's metrics say.
///
/// # Errors
/// The proxy does not answer, or has no such metric.
pub fn map_entries(bed: &Testbed, proxy: &Proxy, map: &str) -> Result<f64> {
    proxy.metric(
        bed,
        &format!("switchyard_ebpf_map_entries{{map=\"{map}\"}}"),
    )
}

/// What IPVS, its sets and its device hold, as the usual tools list it.
fn left_of_ipvs(bed: &Testbed) -> Result<Vec<String>> {
    let list = |command: &[&str]| -> Result<String> {
        bed.run(Place::Node1, command, "")?
            .success(&command.join(" "))
    };
    let services = list(&["ipvsadm", "-Sn"])?;
    let sets = list(&["ipset", "save"])?;
    let addresses = list(&["ip", "-o", "address", "show", "dev", "kube-ipvs0"])?;
    let members = sets.lines().filter(|line| line.starts_with("add "));
    let all = services.lines().chain(members).chain(addresses.lines());
    Ok(all.map(str::to_owned).collect())
}

/// What the tables have of Services, as nft lists it.
fn left_of_nftables(bed: &Testbed) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for family in ["ip", "ip6"] {
        let listed = bed
            .run(
                Place::Node1,
                &["nft", "list", "table", family, "kube-proxy"],
                "",
            )?
            .success("nft list table")?;
        let of_services = |line: &&str| {
            let line = line.trim();
            let chain = |prefix: &str| {
                line.strip_prefix("chain ")
                    .is_some_and(|name| name.starts_with(prefix) && name.contains('/'))
            };
            line.starts_with("elements =")
                || line.starts_with("set affinity-")
                || ["service-", "local-", "external-", "endpoint-", "firewall-"]
                    .into_iter()
                    .any(chain)
        };
        // The node's own addresses, where not all accept node ports.
        let mut set = "";
        let lines = listed.lines().filter(|line| {
            set = line.trim().strip_prefix("set ").unwrap_or(set);
            of_services(line) && set != "nodeport-ips {"
        });
        left.extend(lines.map(|line| format!("{family}: {}", line.trim())));
    }
    Ok(left)
}

/// What stands in the kernel while there is no Service: nothing may be left of one that is gone.
#[derive(Debug, Clone, Copy)]
pub struct Emptiness {
    backend: Backend,
    addresses: f64,
}

impl Emptiness {
    /// Looks at a proxy that serves an empty cluster.
    ///
    /// # Errors
    /// The metrics of the eBPF backend cannot be had.
    pub fn of(bed: &Testbed, backend: Backend, proxy: &Proxy) -> Result<Self> {
        let addresses = if backend.is_at_the_socket() {
            map_entries(bed, proxy, ADDRESSES)?
        } else {
            0.0
        };
        Ok(Self { backend, addresses })
    }

    /// What is left of Services now, in words; empty is what is wanted.
    ///
    /// # Errors
    /// The kernel's rules, or the proxy's metrics, cannot be read.
    pub fn left(&self, bed: &Testbed, proxy: &Proxy) -> Result<Vec<String>> {
        let mut left = Vec::new();
        if self.backend.is_ipvs() {
            return left_of_ipvs(bed);
        }
        if self.backend == Backend::NFTABLES {
            return left_of_nftables(bed);
        }
        if let Some(tool) = self.backend.tool {
            for family in [Family::IPv4, Family::IPv6] {
                let saved = save_rules(bed, tool, family)?;
                let chains = per_service_chains(&saved);
                left.extend(chains.iter().map(|chain| format!("{family}: {chain}")));
            }
            return Ok(left);
        }
        let wanted = MAPS_OF_SERVICES.map(|map| (map, 0.0));
        for (map, wanted) in wanted.into_iter().chain([(ADDRESSES, self.addresses)]) {
            let entries = map_entries(bed, proxy, map)?;
            // Both are whole numbers far below 2^53.
            if (entries - wanted).abs() > 0.5 {
                left.push(format!(
                    "map {map} holds {entries}, {wanted} without Services"
                ));
            }
        }
        Ok(left)
    }
}
