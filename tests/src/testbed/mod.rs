//! A dual-stack cluster of network namespaces on one machine.
//!
//! ```text
//!  client  198.51.100.2        blocked 198.51.100.130      2001:db8:51::2 / ::130
//!      └──────────┬────────────────┘
//!               fabric  (router; stands for "everything that is not the cluster")
//!      ┌──────────┴────────────────┐
//!  node1 192.168.100.11          node2 192.168.100.12      fd00:100::11 / ::12
//!   ├ pod11 10.244.1.11 (cbr0)    ├ pod21 10.244.2.21      fd00:244:1::11 …
//!   └ pod12 10.244.1.12 (veth)    └ pod22 10.244.2.22
//! ```
//!
//! Clients reach the ClusterIPs (10.96.0.0/16, fd00:96::/112) and the external
//! addresses (203.0.113.0/24, 2001:db8:113::/64) through node1, where the proxy
//! under test runs. What node1 does not translate goes on to the fabric, and
//! there an echo server answers for every such address as [`Place::Fabric`]: so
//! "not captured" is an answer that can be told from "dropped".
//!
//! Every namespace of one testbed is called `sy<pid>-<n>-<place>`. All of it is
//! removed when the [`Testbed`] is dropped, on panic too; what a killed process
//! left behind is swept away when the next testbed is built.

mod api;
mod bpf;
mod cgroup;
mod echo;
mod layout;
mod namespace;
mod place;
mod probe;
mod process;
mod proxy;
mod sweep;
mod tools;
mod traffic;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::cgroup::NodeCgroup;
use self::echo::Engine;
use self::namespace::Namespace;

pub use self::api::Api;
pub use self::bpf::EbpfRoots;
pub use self::namespace::Resident;
pub use self::place::{Family, Place, Protocol, endpoint_place, to_ipv6, to_ipv6_prefix};
pub use self::probe::{Answer, Connection, Outcome, Probe};
pub use self::process::{Finished, HttpAnswer, http_get_here};
pub use self::proxy::{Proxy, ProxyOptions, find_binary};
pub use self::tools::{IptablesTool, require_root, require_tools};
pub use self::traffic::{Report, Traffic};

/// The port on which the fabric answers for every address node1 let through.
pub const FABRIC_PORTS: [u16; 2] = [80, 443];

static INSTANCES: AtomicU32 = AtomicU32::new(0);

/// A running cluster of namespaces. See the module for its layout.
///
/// Needs root, `ip` from iproute2, and veth, bridge and namespaces in the kernel.
pub struct Testbed {
    id: String,
    namespaces: Vec<(Place, Namespace)>,
    engine: Engine,
    serving: Mutex<HashSet<(Protocol, SocketAddr)>>,
    /// The groups of the two nodes, or why there are none.
    cgroups: Result<[NodeCgroup; 2], String>,
    work: tempfile::TempDir,
    keep: bool,
}

impl Testbed {
    /// Builds the whole cluster; takes a few hundred milliseconds.
    ///
    /// # Errors
    /// Not root, a tool missing, or the kernel refused something: the message
    /// names which.
    pub fn build() -> Result<Self> {
        require_root()?;
        require_tools(&["ip"])?;
        sweep::sweep_leftovers()?;
        bpf::sweep_leftovers();
        cgroup::sweep_leftovers();
        sweep::sweep_work_dirs();
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let id = format!("sy{}-{instance}", std::process::id());
        let mut bed = Self {
            engine: Engine::start()?,
            namespaces: Vec::new(),
            serving: Mutex::new(HashSet::new()),
            cgroups: node_cgroups(&id).map_err(|error| format!("{error:#}")),
            work: tempfile::Builder::new()
                .prefix(&format!("{id}-"))
                .tempdir()?,
            keep: false,
            id,
        };
        // From here on dropping `bed` removes whatever exists already.
        layout::add_namespaces(&bed.id)?;
        for place in Place::ALL {
            let cgroup = bed.cgroup_of(place);
            let namespace = Namespace::enter(&layout::namespace_name(&bed.id, place), cgroup)?;
            bed.namespaces.push((place, namespace));
        }
        layout::set_sysctls(&bed)?;
        layout::connect(&bed.id)?;
        for port in FABRIC_PORTS {
            // One socket for both families.
            bed.serve(
                Place::Fabric,
                Protocol::Tcp,
                SocketAddr::from(([0u16; 8], port)),
            )?;
        }
        Ok(bed)
    }

    /// The common part of all its namespaces' names, `sy<pid>-<n>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A directory of this testbed's own, removed with it.
    pub fn work_dir(&self) -> &Path {
        self.work.path()
    }

    /// The namespace's name as `ip netns` knows it.
    pub fn namespace_name(&self, place: Place) -> String {
        layout::namespace_name(&self.id, place)
    }

    /// The cgroup2 directory of all that lives on node1, where the machine has cgroup2
    /// and lets this process make threaded groups.
    pub fn node1_cgroup(&self) -> Option<&Path> {
        self.cgroup_of(Place::Node1).map(NodeCgroup::path)
    }

    /// What a proxy in eBPF mode on node1 is given: see [`Self::ebpf_roots_of`].
    ///
    /// # Errors
    /// As there.
    pub fn ebpf_roots(&self) -> Result<EbpfRoots> {
        self.ebpf_roots_of(Place::Node1)
    }

    /// What a proxy in eBPF mode is given on a node: the node's cgroup, and a directory for its
    /// pins that goes with the testbed. Mounts the bpf filesystem where the machine has not done
    /// so.
    ///
    /// # Errors
    /// What this machine lacks: cgroup2 with threaded groups, the bpf filesystem, or a kernel that
    /// is new enough. Or the place is no node.
    pub fn ebpf_roots_of(&self, node: Place) -> Result<EbpfRoots> {
        bpf::require_bpf()?;
        if let Err(reason) = &self.cgroups {
            bail!("the eBPF backend needs a cgroup2 group for each node: {reason}");
        }
        let cgroup = self.cgroup_of(node);
        let cgroup = cgroup.with_context(|| format!("{node} is no node"))?;
        Ok(EbpfRoots {
            cgroup: cgroup.path().to_owned(),
            bpf: bpf::pin_dir(&pins_id(&self.id, node)),
        })
    }

    /// The group of the node that a place is or lives on.
    fn cgroup_of(&self, place: Place) -> Option<&NodeCgroup> {
        let [node1, node2] = self.cgroups.as_ref().ok()?;
        match place.node()? {
            "node1" => Some(node1),
            _ => Some(node2),
        }
    }

    /// Leaves namespaces and work directory in place when dropped, for a human to look at.
    /// Servers are this process' threads and end with it, and the next testbed that anybody
    /// builds sweeps away those of ended processes: a demo that is to be entered keeps running.
    pub fn keep(&mut self) {
        self.keep = true;
        self.work.disable_cleanup(true);
    }

    /// Runs `job` on the thread that lives in `place`: sockets and processes it makes belong there.
    pub fn in_place<T, F>(&self, place: Place, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.namespace(place)?.run(job)
    }

    /// Starts a thread of its own in `place`, in the cgroup of what lives there. It may block and
    /// may be kept on one CPU without disturbing what [`Self::in_place`] does.
    ///
    /// The namespace lives as long as the thread does: whoever starts one ends it.
    pub fn spawn<T, F>(&self, place: Place, job: F) -> Result<Resident<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.namespace(place)?.spawn(job)
    }

    /// Starts an echo server on `address` in `place`, unless it runs already.
    /// It answers every line (TCP) or datagram (UDP) with who it is and whom it saw.
    pub fn serve(&self, place: Place, protocol: Protocol, address: SocketAddr) -> Result<()> {
        let fresh = self
            .serving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((protocol, address));
        if !fresh {
            return Ok(());
        }
        self.engine
            .serve(self.namespace(place)?, place, protocol, address)
            .with_context(|| format!("echo server {protocol} {address} in {place}"))
    }

    /// Starts the echo server of an endpoint in the pod (or node) that owns its address.
    pub fn serve_endpoint(&self, protocol: Protocol, endpoint: SocketAddr) -> Result<()> {
        let Some(place) = endpoint_place(endpoint.ip()) else {
            bail!(
                "no place of the testbed owns endpoint address {}",
                endpoint.ip()
            );
        };
        self.serve(place, protocol, endpoint)
    }

    /// Sends all probes at the same time and waits for all their outcomes, in the order given.
    pub fn probe_all(&self, probes: &[Probe]) -> Result<Vec<Outcome>> {
        probe::run_all(self, probes)
    }

    /// Sends one probe.
    pub fn probe(&self, probe: &Probe) -> Result<Outcome> {
        let outcomes = self.probe_all(std::slice::from_ref(probe))?;
        outcomes
            .into_iter()
            .next()
            .context("a probe gave no outcome")
    }

    /// Opens a connection (TCP) or a socket that keeps its port (UDP), to be used many times.
    ///
    /// # Errors
    /// The connection was refused, or nothing came back in time.
    pub fn connect(&self, probe: &Probe) -> Result<Connection> {
        self.try_connect(probe)?
            .map_err(|outcome| anyhow::anyhow!("{} to {}: {outcome}", probe.from, probe.to))
    }

    /// The same, with what came of it where it could not be opened.
    pub fn try_connect(&self, probe: &Probe) -> Result<Result<Connection, Outcome>> {
        Connection::open(self, probe)
    }

    /// Fetches `path` by HTTP/1.1 from inside `place`.
    pub fn http_get(&self, from: Place, server: SocketAddr, path: &str) -> Result<HttpAnswer> {
        process::http_get(self, from, server, path)
    }

    /// Runs a command to its end inside `place`, feeding it `stdin`.
    pub fn run(&self, place: Place, command: &[&str], stdin: &str) -> Result<Finished> {
        process::run(self, place, command, stdin)
    }

    /// Adds an address to the loopback of a node, as a cloud's agent does with a VIP.
    pub fn add_node_address(&self, place: Place, address: std::net::IpAddr) -> Result<()> {
        layout::change_loopback(&self.namespace_name(place), "add", address)
    }

    /// Takes away what [`Self::add_node_address`] added.
    pub fn remove_node_address(&self, place: Place, address: std::net::IpAddr) -> Result<()> {
        layout::change_loopback(&self.namespace_name(place), "del", address)
    }

    fn namespace(&self, place: Place) -> Result<&Namespace> {
        self.namespaces
            .iter()
            .find(|(at, _)| *at == place)
            .map(|(_, namespace)| namespace)
            .with_context(|| format!("{place} is not built"))
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        self.engine.stop();
        self.namespaces.clear();
        if self.keep {
            if let Ok(cgroups) = &mut self.cgroups {
                cgroups.iter_mut().for_each(NodeCgroup::keep);
            }
        } else {
            sweep::remove_testbed(&self.id);
            for node in [Place::Node1, Place::Node2] {
                bpf::remove_pins(&pins_id(&self.id, node));
            }
        }
    }
}

fn node_cgroups(id: &str) -> Result<[NodeCgroup; 2]> {
    Ok([
        NodeCgroup::create(&format!("{id}-node1"))?,
        NodeCgroup::create(&format!("{id}-node2"))?,
    ])
}

/// The name of the directory for a node's pins.
fn pins_id(id: &str, node: Place) -> String {
    match node {
        Place::Node1 => id.to_owned(),
        other => format!("{id}-{other}"),
    }
}

/// Polls `condition` every `every` until it holds.
///
/// # Errors
/// The condition's own error, or that it did not hold within `limit`.
pub fn wait_for(
    what: &str,
    limit: Duration,
    every: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        if condition().with_context(|| format!("while waiting for {what}"))? {
            return Ok(());
        }
        if std::time::Instant::now() >= deadline {
            bail!("{what} did not happen within {limit:?}");
        }
        std::thread::sleep(every);
    }
}
