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
        let addresses = match backend.tool {
            Some(_) => 0.0,
            None => map_entries(bed, proxy, ADDRESSES)?,
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
