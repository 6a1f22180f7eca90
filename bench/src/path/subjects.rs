//! Who translates: each in a testbed of its own, with the same cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use switchyard_tests::testbed::{IptablesTool, Place, Protocol, Testbed, wait_for};

use super::cluster::{Measured, Service, objects};
use super::nft;
use super::workload::{Client, Cpu, Servers, Slice};
use crate::cluster::Side;
use crate::proxy::{POLL_FIRST_SYNC, answers, rules, time_change};
use crate::source::{ApiServer, Manifests, Source};
use crate::subject::{Launch, Subject};

/// Who has not read the whole cluster by then is left out.
const LIST_LIMIT: Duration = Duration::from_secs(300);
/// Who has not programmed it so long after that is left out.
const PROGRAM_LIMIT: Duration = Duration::from_secs(180);
/// Endpoint changes whose median is reported.
const CHANGES: usize = 5;
/// Pause before each.
const BEFORE_CHANGE: Duration = Duration::from_secs(1);
/// What the agent says once it has the whole cluster.
const LIST_IS_IN: &str = "the first lists of the cluster's objects are in";

/// The exit code of `timeout` when the time was up.
const TIMED_OUT: i32 = 124;

/// A way to program the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nobody translates, and the endpoints are asked: what the machine's noise is.
    Nothing,
    /// Our iptables mode with iptables on nf_tables.
    IptablesNft,
    /// Our iptables mode with iptables on x_tables.
    IptablesLegacy,
    /// Our nftables mode.
    Nftables,
    /// A table as the reference's nftables mode makes it, loaded by `nft`.
    NftablesShape,
    /// Our eBPF mode.
    Ebpf,
    /// The same with `--ebpf-forwarding=direct`.
    EbpfDirect,
}

impl Kind {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Ebpf,
        Self::EbpfDirect,
        Self::Nftables,
        Self::NftablesShape,
        Self::IptablesNft,
        Self::IptablesLegacy,
    ];

    /// As it is called in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none, again",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Nftables => "nftables",
            Self::NftablesShape => "nftables (reference's shape)",
            Self::Ebpf => "ebpf",
            Self::EbpfDirect => "ebpf, direct",
        }
    }
}

/// What programming the cluster took.
#[derive(Clone, Debug, Default)]
pub(super) struct Programming {
    /// From the start of the process.
    pub(super) from_start: Option<Duration>,
    /// From when the whole list was in.
    pub(super) from_list: Option<Duration>,
    /// From a change of one endpoint until new connections follow: median.
    pub(super) change: Option<Duration>,
    /// Resident memory of the agent after that, KiB.
    pub(super) rss_kib: Option<u64>,
    /// Rules, or elements and rules.
    pub(super) entries: Option<usize>,
}

/// The programs that are needed.
pub(super) struct Programs<'a> {
    pub(super) proxy: &'a Path,
    /// The stand-in API server, where it is to feed the cluster in place of manifests.
    pub(super) api_server: Option<&'a Path>,
}

/// A testbed with the subject's cluster in its kernel. What is dropped first stands first.
pub(super) struct Bed {
    servers: Servers,
    _agent: Option<Agent>,
    // It is in the testbed's directory.
    _bpf: Option<BpfRoot>,
    testbed: Testbed,
    pub(super) kind: Kind,
    pub(super) programming: Programming,
}

impl Bed {
    /// Builds the testbed, and has the subject program the cluster.
    ///
    /// # Errors
    /// It can't, or not within the time of a first sync.
    pub(super) fn build(
        kind: Kind,
        services: &[Service],
        programs: &Programs<'_>,
        cpu: Cpu,
    ) -> Result<Self> {
        let testbed = Testbed::build()?;
        by_node1(&testbed)?;
        for side in [Side::Here, Side::There] {
            testbed.serve(side.place(), Protocol::Tcp, side.endpoint())?;
        }
        let endpoints = [Measured::Here, Measured::HereVeth, Measured::There]
            .map(|it| (it.pod(), it.endpoint()));
        let servers = Servers::start(&testbed, &endpoints, cpu)?;
        let mut bpf = None;
        let (agent, programming) = match kind {
            Kind::Nothing => (None, Programming::default()),
            Kind::NftablesShape => (None, load_nft(&testbed, services)?),
            Kind::Nftables | Kind::IptablesNft | Kind::IptablesLegacy => {
                let (mode, tool) = match kind {
                    Kind::Nftables => ("nftables", IptablesTool::Nft),
                    Kind::IptablesLegacy => ("iptables", IptablesTool::Legacy),
                    _ => ("iptables", IptablesTool::Nft),
                };
                // A comparison of all rules in the middle of a slice would be measured too.
                let flags = ["--iptables-sync-period=1h".to_owned()];
                let launch = |source: &dyn Source| {
                    Launch::new("proxy", programs.proxy.to_owned(), tool, &source.flags())
                        .mode(mode, &flags)
                };
                let (agent, mut programming) = Agent::start(&testbed, services, programs, launch)?;
                programming.entries = rules(&testbed, &agent.launch)?;
                (Some(agent), programming)
            }
            Kind::Ebpf | Kind::EbpfDirect => {
                let root = BpfRoot::mount(&testbed)?;
                let flags = ebpf_flags(&testbed, &root, kind)?;
                bpf = Some(root);
                let launch = |source: &dyn Source| {
                    let tool = IptablesTool::Nft;
                    Launch::new("proxy", programs.proxy.to_owned(), tool, &source.flags())
                        .mode("ebpf", &flags)
                };
                let (agent, programming) = Agent::start(&testbed, services, programs, launch)?;
                (Some(agent), programming)
            }
        };
        Ok(Self {
            servers,
            _agent: agent,
            testbed,
            _bpf: bpf,
            kind,
            programming,
        })
    }

    /// One slice of a client that lives here.
    ///
    /// # Errors
    /// A request that was not answered in time.
    pub(super) fn ask(&self, client: &Client, time: Duration) -> Result<Slice> {
        client.run(&self.testbed, &self.servers, time)
    }
}

/// Has clients' packets for node2's pods go through node1, as those for a node port do: so both
/// have as many hops.
fn by_node1(bed: &Testbed) -> Result<()> {
    let endpoint = Measured::There.endpoint().ip().to_string();
    let route = [
        "ip",
        "route",
        "add",
        &endpoint,
        "via",
        "192.168.100.11",
        "table",
        "100",
    ];
    bed.run(Place::Fabric, &route, "")?
        .success("ip route add")?;
    Ok(())
}

fn ebpf_flags(bed: &Testbed, root: &BpfRoot, kind: Kind) -> Result<[String; 3]> {
    let forwarding = if kind == Kind::EbpfDirect {
        "direct"
    } else {
        "stack"
    };
    let cgroup = bed
        .node1_cgroup()
        .context("no cgroup2 that lets us make threaded groups")?;
    Ok([
        format!("--cgroup-root={}", cgroup.display()),
        format!("--bpf-root={}", root.0.join("switchyard").display()),
        format!("--ebpf-forwarding={forwarding}"),
    ])
}

/// A bpf file system of one testbed's own. Unmounted when dropped.
struct BpfRoot(PathBuf);

impl BpfRoot {
    fn mount(bed: &Testbed) -> Result<Self> {
        let path = bed.work_dir().join("bpf");
        fs::create_dir(&path)?;
        mount(
            Some("bpf"),
            &path,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            None::<&str>,
        )
        .with_context(|| format!("mount a bpf file system at {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for BpfRoot {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("bench: {} stays mounted: {error}", self.0.display());
        }
    }
}

/// Our proxy, and where it reads the cluster.
struct Agent {
    _process: Subject,
    _source: Box<dyn Source>,
    launch: Launch,
}

impl Agent {
    fn start(
        bed: &Testbed,
        services: &[Service],
        programs: &Programs<'_>,
        launch: impl FnOnce(&dyn Source) -> Launch,
    ) -> Result<(Self, Programming)> {
        let manifests = Manifests::of(bed, &objects(services))?;
        let source: Box<dyn Source> = match programs.api_server {
            Some(program) => Box::new(ApiServer::serve(bed, program, &manifests)?),
            None => Box::new(manifests),
        };
        let launch = launch(source.as_ref());
        let start = Instant::now();
        let mut process = Subject::start(bed, &launch)?;
        wait_for("the first lists", LIST_LIMIT, POLL_FIRST_SYNC, || {
            Ok(process.has_said(LIST_IS_IN) || process.has_synced(bed)?)
        })?;
        let list = start.elapsed();
        wait_for("the first sync", PROGRAM_LIMIT, POLL_FIRST_SYNC, || {
            Ok(process.has_synced(bed)? && answers(bed, Side::Here)?)
        })?;
        let from_start = start.elapsed();
        let change = median_change(bed, |side| source.change(bed, side), || process.check())?;
        let programming = Programming {
            from_start: Some(from_start),
            from_list: from_start.checked_sub(list),
            change: Some(change),
            rss_kib: Some(process.process().rss_kib()?),
            entries: None,
        };
        let agent = Self {
            _process: process,
            _source: source,
            launch,
        };
        Ok((agent, programming))
    }
}

fn load_nft(bed: &Testbed, services: &[Service]) -> Result<Programming> {
    let table = nft::table(services, Side::Here);
    let file = bed.work_dir().join("table.nft");
    fs::write(&file, &table.text)?;
    let file = file.to_str().context("a path that is no text")?;
    let limit = PROGRAM_LIMIT.as_secs().to_string();
    let start = Instant::now();
    let loaded = bed.run(Place::Node1, &["timeout", &limit, "nft", "-f", file], "")?;
    if loaded.code == Some(TIMED_OUT) {
        bail!("`nft -f` was not done after {limit} s");
    }
    loaded.success("nft -f")?;
    let from_start = start.elapsed();
    if !answers(bed, Side::Here)? {
        bail!("the table is loaded, but the probed Service does not answer");
    }
    let change = median_change(
        bed,
        |side| {
            let done = bed.run(Place::Node1, &["nft", "-f", "-"], &nft::change(side))?;
            done.success("nft -f -").map(drop)
        },
        || Ok(()),
    )?;
    Ok(Programming {
        from_start: Some(from_start),
        from_list: None,
        change: Some(change),
        rss_kib: None,
        entries: Some(table.entries),
    })
}

/// Changes the probed Service's endpoint some times, and back to the first side.
fn median_change(
    bed: &Testbed,
    change: impl Fn(Side) -> Result<()>,
    mut check: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let mut times = Vec::with_capacity(CHANGES);
    let mut side = Side::Here;
    for _ in 0..CHANGES {
        std::thread::sleep(BEFORE_CHANGE);
        side = side.other();
        times.push(time_change(bed, side, || change(side), &mut check)?);
    }
    times.sort_unstable();
    times.get(CHANGES / 2).copied().context("no change")
}
