//! A directory for pins and a cgroup for programs, of one test alone.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use switchyard_cluster::object::IpFamily;

use super::super::{Config, ConntrackTimeouts, Ebpf, Forwarding, Paths, cleanup};
use crate::addresses::{AddressInfo, Scope};
use crate::plan::generated::{Generated, NODE_ADDRESSES};
use crate::plan::{
    LocalDetector, NodeContext, NodePortAddresses, PlanChange, PlanTable, plan_service,
};

const BPF: &str = "/sys/fs/bpf";

/// Whether programs can be loaded and attached here; says so where they can't.
pub(super) fn is_possible() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    let is_possible = is_root && cgroup2().is_some() && fs::metadata(BPF).is_ok();
    if !is_possible {
        eprintln!("left out: needs root, a bpf file system at {BPF} and cgroup2");
    }
    is_possible
}

fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Removed with all that is in it when it goes.
pub(super) struct Place {
    paths: Paths,
}

impl Place {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("switchyard-test-{}-{number}", std::process::id());
        let paths = Paths {
            cgroup_root: cgroup2().unwrap().join(&name),
            bpf_root: PathBuf::from(BPF).join(&name),
        };
        fs::create_dir(&paths.cgroup_root).unwrap();
        Self { paths }
    }

    pub(super) fn open(&self, config: &Config) -> Ebpf {
        Ebpf::open(self.paths.clone(), config.clone()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = cleanup(&self.paths.bpf_root) {
            eprintln!("{}: {error}", self.paths.bpf_root.display());
        }
        // Links go with their pins and descriptors, a cgroup without anybody in it at once.
        if let Err(error) = fs::remove_dir(&self.paths.cgroup_root) {
            eprintln!("{}: {error}", self.paths.cgroup_root.display());
        }
    }
}

/// A node that does nothing unusual.
pub(super) fn node() -> NodeContext {
    NodeContext {
        name: "node1".into(),
        zone: None,
        ips: vec![IpAddr::from([192, 168, 0, 2])],
        detector: LocalDetector::NONE,
        masquerade_all: false,
        node_port_addresses: NodePortAddresses::All,
        localhost_node_ports: true,
    }
}

/// What an agent on a node is given: addresses of generated clusters, and no devices.
pub(super) fn config(node: &NodeContext) -> Config {
    let addresses = NODE_ADDRESSES.map(|text| {
        let address: IpAddr = text.parse().unwrap();
        let scope = if address.is_loopback() {
            Scope::Host
        } else {
            Scope::Global
        };
        let info = AddressInfo {
            interface_index: 1,
            scope,
        };
        (address, info)
    });
    Config {
        node: node.clone(),
        families: IpFamily::BOTH.to_vec(),
        local_addresses: Arc::new(addresses.into_iter().collect()),
        devices: Arc::default(),
        stations: Arc::default(),
        conntrack: ConntrackTimeouts::default(),
        host_namespace_only: false,
        forwarding: Forwarding::Stack,
    }
}

/// Plans these Services as well.
pub(super) fn plans_of(
    plans: &mut PlanTable,
    node: &NodeContext,
    all: impl IntoIterator<Item = Generated>,
) -> Vec<PlanChange> {
    let mut changes = Vec::new();
    for Generated { service, slices } in all {
        let planned = plan_service(&service, slices.iter(), node);
        changes.extend(plans.update(&service.name, service.created_unix_s, planned));
    }
    changes
}
