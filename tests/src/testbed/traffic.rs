//! Steady traffic: new connections at an even rate, and one connection that stays open.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::place::{Place, Protocol};
use super::probe::{Outcome, Probe};
use super::{Connection, Testbed};

/// New connections are opened this far apart.
const NEW_CONNECTION_EVERY: Duration = Duration::from_millis(5);
/// The long-lived connection sends a line this often.
const LONG_LINE_EVERY: Duration = Duration::from_millis(20);
/// No answer for so long counts as a failed connection. Well below TCP's first retry (1 s):
/// a lost SYN must show.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(900);
/// At most this many failures are kept word for word.
const MAX_FAILURES_KEPT: usize = 20;
/// Traffic nobody stops ends by itself.
const MAX_DURATION: Duration = Duration::from_secs(120);

/// Steady traffic that runs until [`Traffic::stop`].
pub struct Traffic {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// What became of the traffic.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// New connections tried.
    pub connections: usize,
    /// Lines sent on the connection that stayed open.
    pub long_lines: usize,
    /// Everything that failed, with the moment since the start. Empty is what is wanted.
    pub failures: Vec<String>,
    /// Failures beyond those kept in `failures`.
    pub failures_not_kept: usize,
}

impl Report {
    fn fail(&mut self, what: String) {
        if self.failures.len() < MAX_FAILURES_KEPT {
            self.failures.push(what);
        } else {
            self.failures_not_kept += 1;
        }
    }

    /// An error that lists the failures, if there are any or if nothing was sent at all.
    pub fn check(&self) -> Result<()> {
        self.check_but_for(0)
    }

    /// The same, but that so many of a thousand new connections may fail.
    pub fn check_but_for(&self, of_1000: usize) -> Result<()> {
        if self.connections == 0 {
            bail!("no traffic was sent");
        }
        if self.failed() * 1000 <= self.connections * of_1000 {
            return Ok(());
        }
        bail!(
            "{} of {} connections (and {} lines on the open one) failed:\n  {}",
            self.failed(),
            self.connections,
            self.long_lines,
            self.failures.join("\n  ")
        )
    }

    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failures.len() + self.failures_not_kept
    }
}

impl Traffic {
    /// Starts traffic from each of `from` to `to`; each place also keeps one connection open.
    pub fn start(bed: &Arc<Testbed>, from: &[Place], to: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let report = Arc::new(Mutex::new(Report::default()));
        let done = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for place in from {
            let probe = Probe::new(*place, Protocol::Tcp, to).timeout(ANSWER_TIMEOUT);
            let long = bed
                .connect(&probe)
                .context("the connection that is to stay open")?;
            let shared = Shared {
                bed: bed.clone(),
                stop: stop.clone(),
                report: report.clone(),
                done: done.clone(),
                start: Instant::now(),
            };
            let other = shared.clone();
            threads.push(std::thread::spawn(move || {
                other.new_connections(&probe, NEW_CONNECTION_EVERY)
            }));
            threads.push(std::thread::spawn(move || shared.long_connection(&long)));
        }
        Ok(Self {
            stop,
            report,
            done,
            threads,
        })
    }

    /// Starts new connections and questions alone, `every` so often for each of `probes`.
    pub fn start_new(bed: &Arc<Testbed>, probes: &[Probe], every: Duration) -> Self {
        let shared = Shared {
            bed: bed.clone(),
            stop: Arc::default(),
            report: Arc::default(),
            done: Arc::default(),
            start: Instant::now(),
        };
        let threads = probes.iter().map(|probe| {
            let probe = probe.clone().timeout(ANSWER_TIMEOUT);
            let shared = shared.clone();
            std::thread::spawn(move || shared.new_connections(&probe, every))
        });
        Self {
            threads: threads.collect(),
            stop: shared.stop,
            report: shared.report,
            done: shared.done,
        }
    }

    /// How many new connections have ended by now.
    pub fn connections(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` further connections have ended, so that something sure has been seen.
    pub fn wait_for_connections(&self, more: usize) -> Result<()> {
        let goal = self.connections() + more;
        super::wait_for(
            "further connections",
            MAX_DURATION,
            Duration::from_millis(5),
            || Ok(self.connections() >= goal),
        )
    }

    /// Stops and reports.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| anyhow!("a traffic thread panicked"))??;
        }
        Ok(self
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

#[derive(Clone)]
struct Shared {
    bed: Arc<Testbed>,
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    done: Arc<AtomicUsize>,
    start: Instant,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && self.start.elapsed() < MAX_DURATION
    }

    fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn new_connections(&self, probe: &Probe, every: Duration) -> Result<()> {
        while self.goes_on() {
            let began = Instant::now();
            let at = self.start.elapsed();
            let outcome = self.bed.probe(probe)?;
            self.note(|report| {
                report.connections += 1;
                if !matches!(&outcome, Outcome::Answered(answer) if answer.place != Place::Fabric.name()) {
                    report.fail(format!("at {at:?} {} from {} to {}: {outcome}", probe.protocol, probe.from, probe.to));
                }
            });
            self.done.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(every.saturating_sub(began.elapsed()));
        }
        Ok(())
    }

    fn long_connection(&self, connection: &Connection) -> Result<()> {
        while self.goes_on() {
            let at = self.start.elapsed();
            let outcome = connection.ask(&self.bed, ANSWER_TIMEOUT)?;
            self.note(|report| {
                report.long_lines += 1;
                if !matches!(outcome, Outcome::Answered(_)) {
                    report.fail(format!("at {at:?} on the open connection: {outcome}"));
                }
            });
            std::thread::sleep(LONG_LINE_EVERY);
        }
        Ok(())
    }
}
