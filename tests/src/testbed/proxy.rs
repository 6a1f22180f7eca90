//! Running the built `switchyard-proxy` on a node of the testbed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::Place;
use super::{EbpfRoots, HttpAnswer, IptablesTool, Testbed, wait_for};
use crate::binary;

/// A proxy that does not answer its health check by then has failed to start. On an emulated
/// processor the verifier alone takes 20 s and more.
const START_LIMIT: Duration = Duration::from_secs(90);
/// A proxy that still runs so long after SIGTERM is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How a proxy is started.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The binary; see [`find_binary`].
    pub binary: PathBuf,
    /// A program that runs it in its place, with its first arguments.
    pub under: Vec<String>,
    /// `--manifests`.
    pub manifests: PathBuf,
    /// `--proxy-mode`.
    pub mode: String,
    /// The node it runs on; also `--hostname-override`.
    pub node: Place,
    /// The iptables tool it finds; `None` leaves `PATH` as it is.
    pub tool: Option<IptablesTool>,
    /// The whole `PATH`, in place of the tool's.
    pub path: Option<PathBuf>,
    /// Where it attaches and pins; for the modes that may use eBPF.
    pub roots: Option<EbpfRoots>,
    /// Where it looks for what eBPF mode may have left: nowhere that is the machine's own.
    pub pins: PathBuf,
    /// Further flags. A flag given here replaces the one the testbed would have given.
    pub flags: Vec<String>,
    /// Where its log goes.
    pub log: PathBuf,
}

impl ProxyOptions {
    /// The usual proxy of node1: cluster CIDRs of both families, health and metrics on their ports;
    /// in eBPF mode, or one that may choose it, the testbed's own cgroup and pins.
    ///
    /// # Errors
    /// There is no binary; the mode needs eBPF and the machine lacks something for it.
    pub fn new(bed: &Testbed, manifests: &Path, mode: &str) -> Result<Self> {
        Ok(Self {
            binary: find_binary()?,
            under: Vec::new(),
            manifests: manifests.to_owned(),
            mode: mode.to_owned(),
            node: Place::Node1,
            tool: None,
            path: None,
            roots: match mode {
                "ebpf" | "auto" => Some(bed.ebpf_roots()?),
                _ => None,
            },
            pins: super::bpf::pin_dir(bed.id()),
            flags: Vec::new(),
            log: bed.work_dir().join("proxy.log"),
        })
    }

    /// The whole command line after the binary's name.
    pub fn arguments(&self) -> Vec<String> {
        let usual = [
            format!("--manifests={}", self.manifests.display()),
            format!("--proxy-mode={}", self.mode),
            format!("--hostname-override={}", self.node),
            "--cluster-cidr=10.244.0.0/16,fd00:244::/32".to_owned(),
            "--healthz-bind-address=0.0.0.0:10256".to_owned(),
            "--metrics-bind-address=127.0.0.1:10249".to_owned(),
        ];
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let roots = match &self.roots {
            Some(roots) => roots.arguments().to_vec(),
            None => vec![format!("--bpf-root={}", self.pins.display())],
        };
        usual
            .into_iter()
            .chain(roots)
            .filter(|flag| !self.flags.iter().any(|own| name(own) == name(flag)))
            .chain(self.flags.iter().cloned())
            // `--cluster-cidr=` means: without that flag.
            .filter(|flag| !flag.ends_with('='))
            .collect()
    }
}

/// A proxy process. Killed when dropped; its rules stay, as they do in life.
pub struct Proxy {
    child: Child,
    options: ProxyOptions,
    health: SocketAddr,
    metrics: SocketAddr,
}

impl Proxy {
    /// Starts the process and does not wait for anything.
    pub fn spawn(bed: &Testbed, options: ProxyOptions) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&options.log)?;
        let log_too = log.try_clone()?;
        let mut words = options.under.iter().map(OsStr::new);
        let mut command = match words.next() {
            Some(program) => Command::new(program),
            None => Command::new(&options.binary),
        };
        if !options.under.is_empty() {
            command.args(words).arg(&options.binary);
        }
        command
            .args(options.arguments())
            .stdin(Stdio::null())
            .stdout(log_too)
            .stderr(log);
        command.env("NO_COLOR", "1");
        if let Some(path) = &options.path {
            command.env("PATH", path);
        } else if let Some(tool) = options.tool {
            let dir = bed.work_dir().join(tool.name());
            if !dir.exists() {
                tool.link_into(&dir)?;
            }
            command.env("PATH", &dir);
        }
        let shown = options.binary.display().to_string();
        let child = bed
            .in_place(options.node, move || command.spawn())?
            .with_context(|| format!("start {shown}"))?;
        let health = SocketAddr::from(([127, 0, 0, 1], 10256));
        let metrics = SocketAddr::from(([127, 0, 0, 1], 10249));
        Ok(Self {
            child,
            options,
            health,
            metrics,
        })
    }

    /// Starts the process and waits until its health check answers 200: all rules are in the kernel.
    pub fn start(bed: &Testbed, options: ProxyOptions) -> Result<Self> {
        let mut proxy = Self::spawn(bed, options)?;
        proxy.wait_healthy(bed)?;
        Ok(proxy)
    }

    /// Waits until the health check answers 200.
    pub fn wait_healthy(&mut self, bed: &Testbed) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "switchyard-proxy ended with {status}; its log ends:\n{}",
                    self.log_tail(30)
                );
            }
            if self.healthz(bed).is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "switchyard-proxy was not healthy after {START_LIMIT:?}; its log ends:\n{}",
                    self.log_tail(30)
                );
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// `GET /healthz`.
    pub fn healthz(&self, bed: &Testbed) -> Result<HttpAnswer> {
        bed.http_get(self.options.node, self.health, "/healthz")
    }

    /// `GET /metrics`.
    pub fn metrics(&self, bed: &Testbed) -> Result<String> {
        Ok(bed
            .http_get(self.options.node, self.metrics, "/metrics")?
            .body)
    }

    /// The value of one metric: `name` as it stands in the text, labels included.
    pub fn metric(&self, bed: &Testbed, name: &str) -> Result<f64> {
        let text = self.metrics(bed)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .with_context(|| format!("no metric {name}"))?
            .trim()
            .parse()
            .context(name.to_owned())
    }

    /// The process' id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It did not end in time (it is killed then).
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let ended = wait_for(
            "the proxy's end after SIGTERM",
            STOP_LIMIT,
            POLL_EVERY,
            || Ok(self.child.try_wait()?.is_some()),
        );
        if let Err(error) = ended {
            self.kill()?;
            return Err(error);
        }
        Ok(self.child.wait()?)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What the process ended with, if it has.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until the process ends by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for("the proxy's end", limit, POLL_EVERY, || {
            Ok(self.child.try_wait()?.is_some())
        })?;
        Ok(self.child.wait()?)
    }

    /// How it was started.
    pub fn options(&self) -> &ProxyOptions {
        &self.options
    }

    /// The whole log up to now.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.options.log).unwrap_or_default()
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all.get(all.len().saturating_sub(lines)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Already ended is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The binary under test; see [`binary::find`].
///
/// # Errors
/// There is none; the message says how to build it.
pub fn find_binary() -> Result<PathBuf> {
    binary::find("switchyard-proxy")
}
