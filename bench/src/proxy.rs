//! Measures service proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use switchyard_tests::testbed::{Outcome, Place, Probe, Protocol, Testbed, wait_for};

use crate::cluster::{Side, probe_address};
use crate::process::Process;
use crate::source::Source;
use crate::subject::{Launch, Subject};

/// A first sync that takes longer has failed.
const FIRST_SYNC_LIMIT: Duration = Duration::from_secs(180);
/// A change that takes longer has failed.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// Changes whose mean and worst are reported.
const CHANGES: u32 = 10;
/// Pause before each change: longer than the reference's pause between two syncs (1 s).
const BEFORE_CHANGE: Duration = Duration::from_millis(2500);
/// After the last change, until what it still costs has been spent.
const AFTER_CHANGES: Duration = Duration::from_secs(2);
/// How long nothing happens while we look at the CPU.
const IDLE: Duration = Duration::from_secs(10);
/// Before that, and before the first change.
const SETTLE: Duration = Duration::from_secs(5);
pub(crate) const POLL_FIRST_SYNC: Duration = Duration::from_millis(20);
/// The resolution of the time of a change.
const POLL_CHANGE: Duration = Duration::from_millis(1);
/// A connection to the probed Service that is not answered by then is tried again.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);
/// How often the memory of child processes is looked at.
const SAMPLE_CHILDREN: Duration = Duration::from_millis(50);

/// What was measured of one subject with one cluster.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the start of the process until every rule was in the kernel.
    pub first_sync: Duration,
    /// From a change of one endpoint until new connections went there: mean.
    pub change_mean: Duration,
    /// The same, at worst.
    pub change_worst: Duration,
    /// CPU time of the process and its children for one change, mean.
    pub cpu_per_change: Duration,
    /// Resident memory after the changes, KiB.
    pub rss_kib: u64,
    /// The most resident memory, KiB.
    pub peak_rss_kib: u64,
    /// The most resident memory of a child process during the first sync, KiB; 0 if none
    /// was seen.
    pub child_peak_rss_kib: u64,
    /// CPU time during ten idle seconds.
    pub idle_cpu: Duration,
    /// Wake-ups during ten idle seconds.
    pub idle_wakeups: u64,
    /// Rules of iptables in all tables of IPv4 at the end; `None` in other modes.
    pub rules: Option<usize>,
}

/// Measures one subject, in a testbed of its own whose rules nobody else has touched.
///
/// # Errors
/// It could not be started, or did not do its work in time.
pub fn measure(bed: &Testbed, launch: &Launch, source: &dyn Source) -> Result<Measured> {
    for side in [Side::Here, Side::There] {
        bed.serve(side.place(), Protocol::Tcp, side.endpoint())?;
    }
    let started = Instant::now();
    let mut subject = Subject::start(bed, launch)?;
    let children = ChildrenPeak::watch(subject.process());
    wait_for("the first sync", FIRST_SYNC_LIMIT, POLL_FIRST_SYNC, || {
        Ok(subject.has_synced(bed)? && answers(bed, Side::Here)?)
    })?;
    let first_sync = started.elapsed();
    let child_peak_rss_kib = children.stop();

    std::thread::sleep(SETTLE);
    let process = subject.process();
    let idle = Idle::measure(process)?;
    let changes = Changes::measure(bed, &mut subject, source)?;
    Ok(Measured {
        first_sync,
        change_mean: changes.mean,
        change_worst: changes.worst,
        cpu_per_change: changes.cpu,
        rss_kib: process.rss_kib()?,
        peak_rss_kib: process.peak_rss_kib()?,
        child_peak_rss_kib,
        idle_cpu: idle.cpu,
        idle_wakeups: idle.wakeups,
        rules: rules(bed, launch)?,
    })
}

struct Idle {
    cpu: Duration,
    wakeups: u64,
}

impl Idle {
    fn measure(process: Process) -> Result<Self> {
        let (cpu, wakeups) = (process.cpu()?, process.wakeups()?);
        std::thread::sleep(IDLE);
        Ok(Self {
            cpu: process.cpu()?.saturating_sub(cpu),
            wakeups: process.wakeups()?.saturating_sub(wakeups),
        })
    }
}

struct Changes {
    mean: Duration,
    worst: Duration,
    cpu: Duration,
}

impl Changes {
    fn measure(bed: &Testbed, subject: &mut Subject, source: &dyn Source) -> Result<Self> {
        let before = subject.process().cpu()?;
        let (mut total, mut worst) = (Duration::ZERO, Duration::ZERO);
        let mut side = Side::Here;
        for number in 1..=CHANGES {
            std::thread::sleep(BEFORE_CHANGE);
            side = side.other();
            let took = time_change(bed, side, || source.change(bed, side), || subject.check())
                .with_context(|| format!("change {number} of {CHANGES}"))?;
            total += took;
            worst = worst.max(took);
        }
        std::thread::sleep(AFTER_CHANGES);
        let cpu = subject.process().cpu()?.saturating_sub(before);
        Ok(Self {
            mean: total / CHANGES,
            worst,
            cpu: cpu / CHANGES,
        })
    }
}

/// Makes a change of the probed Service's endpoint, and measures the time until new connections
/// follow it. Meanwhile `check` says whether there is a point in waiting.
pub(crate) fn time_change(
    bed: &Testbed,
    side: Side,
    change: impl FnOnce() -> Result<()>,
    mut check: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let start = Instant::now();
    change()?;
    wait_for(
        "new connections to follow",
        CHANGE_LIMIT,
        POLL_CHANGE,
        || {
            check()?;
            answers(bed, side)
        },
    )?;
    Ok(start.elapsed())
}

/// Whether a new connection to the probed Service reaches this side's endpoint.
pub(crate) fn answers(bed: &Testbed, side: Side) -> Result<bool> {
    let probe = Probe::new(Place::Node1, Protocol::Tcp, probe_address()).timeout(PROBE_TIMEOUT);
    Ok(match bed.probe(&probe)? {
        Outcome::Answered(answer) => answer.place == side.place().name(),
        _ => false,
    })
}

/// How many rules iptables has in IPv4's tables; `None` in other modes.
pub(crate) fn rules(bed: &Testbed, launch: &Launch) -> Result<Option<usize>> {
    if !launch.is_iptables() {
        return Ok(None);
    }
    let save = bed
        .work_dir()
        .join(launch.tool.name())
        .join("iptables-save");
    let save = save.to_str().context("a path that is no text")?;
    let text = bed
        .run(Place::Node1, &[save], "")?
        .success("iptables-save")?;
    let count = text.lines().filter(|line| line.starts_with("-A ")).count();
    if count == 0 {
        bail!("iptables-save shows no rule");
    }
    Ok(Some(count))
}

/// Looks at the memory of a process's children until told to stop.
struct ChildrenPeak {
    stop: Arc<AtomicBool>,
    peak_kib: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl ChildrenPeak {
    fn watch(process: Process) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peak_kib = Arc::new(AtomicU64::new(0));
        let (stopped, peak) = (Arc::clone(&stop), Arc::clone(&peak_kib));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for child in process.children() {
                    let rss = Process(child).peak_rss_kib().unwrap_or(0);
                    peak.fetch_max(rss, Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE_CHILDREN);
            }
        });
        Self {
            stop,
            peak_kib,
            thread,
        }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        // It only looks and can't fail.
        drop(self.thread.join());
        self.peak_kib.load(Ordering::Relaxed)
    }
}
