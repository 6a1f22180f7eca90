//! A server that runs for the bench.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use switchyard_tests::testbed::wait_for;

use super::client::{Client, Reply};
use super::cpus::{Cpus, Role};
use super::workload::Query;
use crate::process::Process;

/// A server that does not answer by then has failed.
const START_LIMIT: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(20);
const POLL_TIMEOUT: Duration = Duration::from_millis(200);
/// A server with children that has not ended them by then is killed.
const END_LIMIT: Duration = Duration::from_secs(3);
/// Ports asked of the kernel until one is free for UDP and TCP.
const PORT_TRIES: usize = 50;
/// Ports below are left to those who asked for them by number.
const FIRST_PORT: u16 = 10_000;
const LOG_TAIL_LINES: usize = 20;

/// A server, killed with all its processes when dropped.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Server {
    /// Starts it; what it writes goes to `NAME.log` in `dir`.
    pub(super) fn start(
        cpus: Cpus,
        role: Role,
        name: &'static str,
        address: SocketAddr,
        mut command: Command,
        dir: &Path,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .current_dir(dir);
        let started = Instant::now();
        let child = cpus.spawn(role, &mut command)?;
        Ok(Self {
            name,
            address,
            child,
            log,
            started,
        })
    }

    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }

    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// Waits until it answers this question with something.
    pub(super) fn wait_until_it_answers(&mut self, query: &Query) -> Result<()> {
        let mut client = Client::new(self.address, POLL_TIMEOUT)?;
        let what = format!("an answer of {} for {}", self.name, query.name);
        wait_for(&what, START_LIMIT, POLL_EVERY, || {
            self.check()?;
            Ok(client.ask(query)?.is_some_and(Reply::has_answer))
        })
        .with_context(|| self.log_tail())
    }

    /// # Errors
    /// It has ended; with the end of its log.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}; {}", self.name, self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        let tail = lines.get(from..).unwrap_or_default();
        format!("its log ends:\n{}", tail.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let tree = self.process().tree();
        if tree.len() > 1 {
            // It knows best how to end its children, and what they leave.
            signal(self.child.id(), Signal::SIGTERM);
            let ended = || Ok(matches!(self.child.try_wait(), Ok(Some(_))));
            drop(wait_for("its end", END_LIMIT, POLL_EVERY, ended));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        for child in tree.iter().skip(1) {
            signal(child.0, Signal::SIGKILL);
        }
    }
}

/// Signals a process by its id; that it is gone already is as good.
fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// An address of loopback whose port is free for UDP and TCP now.
///
/// # Errors
/// None is found.
pub(super) fn free_address() -> Result<SocketAddr> {
    for _ in 0..PORT_TRIES {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = tcp.local_addr()?;
        if address.port() >= FIRST_PORT && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port on loopback")
}
