//! Running the built `switchyard-dns`.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::client::Client;
use crate::binary;
use crate::cases::Manifests;
use crate::testbed::{HttpAnswer, Place, Testbed, http_get_here, wait_for};

/// A server that is not ready by then has failed to start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A server that still runs so long after SIGTERM is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// How long one question waits while the server starts.
const FIRST_ANSWER: Duration = Duration::from_millis(300);
/// The last lines of the log, shown when a test ends (and so only if it failed).
const LOG_TAIL_LINES: usize = 40;
/// Where `/ready`, `/health` and `/metrics` are asked for.
const HTTP_ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
const COREFILE: &str = "Corefile";

/// The ports a server listens on. A Corefile names them `$DNS`, `$DOT`, `$HEALTH`, `$READY` and
/// `$METRICS`, and its own directory `$DIR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// DNS over UDP and TCP.
    pub dns: u16,
    /// DNS over TLS.
    pub dot: u16,
    /// `/health`.
    pub health: u16,
    /// `/ready`.
    pub ready: u16,
    /// `/metrics`.
    pub metrics: u16,
}

impl Ports {
    /// CoreDNS' own.
    pub const USUAL: Self = Self {
        dns: 53,
        dot: 853,
        health: 8080,
        ready: 8181,
        metrics: 9153,
    };

    /// Five that nobody uses at this moment.
    ///
    /// # Errors
    /// The system has none left.
    pub fn free() -> Result<Self> {
        // All are held until all are chosen, so that no two are the same.
        let (dns, held) = free_udp_and_tcp()?;
        let others: Vec<TcpListener> = (0..4)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<std::io::Result<_>>()?;
        let mut ports = others
            .iter()
            .map(|other| other.local_addr().map(|at| at.port()));
        let mut next = || ports.next().context("a port is missing");
        let ports = Self {
            dns,
            dot: next()??,
            health: next()??,
            ready: next()??,
            metrics: next()??,
        };
        drop(held);
        Ok(ports)
    }

    fn fill_in(self, text: &str, dir: &Path) -> String {
        let mut text = text.replace("$DIR", &dir.display().to_string());
        for (name, port) in [
            ("$DNS", self.dns),
            ("$DOT", self.dot),
            ("$HEALTH", self.health),
            ("$READY", self.ready),
            ("$METRICS", self.metrics),
        ] {
            text = text.replace(name, &port.to_string());
        }
        text
    }
}

/// A port of 127.0.0.1 that is free for both protocols, and what holds it.
pub(super) fn free_udp_and_tcp() -> Result<(u16, (UdpSocket, TcpListener))> {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = udp.local_addr()?.port();
        if let Ok(tcp) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok((port, (udp, tcp)));
        }
    }
    bail!("no port is free for both UDP and TCP")
}

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The Corefile; see [`Ports`] for the words that are filled in.
    pub corefile: String,
    /// The cluster, given by `--manifests`; `None` leaves the flag out.
    pub objects: Option<Vec<Value>>,
    /// Further files in the server's directory: name and content.
    pub files: Vec<(String, String)>,
    /// Further flags.
    pub flags: Vec<String>,
    /// Further environment variables.
    pub env: Vec<(String, String)>,
    /// The address the server listens on (as the Corefile says it).
    pub address: IpAddr,
    /// Its ports; free ones unless given.
    pub ports: Option<Ports>,
    /// Wait for the first DNS reply, whatever it says, even if the Corefile has `ready`.
    pub do_not_wait_for_ready: bool,
}

impl Setup {
    /// A server on 127.0.0.1 with this Corefile and no cluster.
    pub fn new(corefile: &str) -> Self {
        Self {
            corefile: corefile.to_owned(),
            objects: None,
            files: Vec::new(),
            flags: Vec::new(),
            env: Vec::new(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: None,
            do_not_wait_for_ready: false,
        }
    }

    /// The same with a cluster of these objects.
    #[must_use]
    pub fn with_objects(mut self, objects: &[Value]) -> Self {
        self.objects = Some(objects.to_vec());
        self
    }

    /// The same with a file in the server's directory.
    #[must_use]
    pub fn with_file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }
}

/// A server process. Killed when dropped; its directory goes with it.
pub struct DnsServer {
    child: Child,
    binary: PathBuf,
    setup: Setup,
    ports: Ports,
    dir: tempfile::TempDir,
    manifests: Manifests,
}

impl DnsServer {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// It is not built, ends at once, or is not ready in time; its log is in the message.
    pub fn start(setup: Setup) -> Result<Self> {
        let mut server = Self::spawn(setup)?;
        server.wait_ready()?;
        Ok(server)
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Errors
    /// It is not built.
    pub fn spawn(setup: Setup) -> Result<Self> {
        Self::spawn_by(setup, |mut command| Ok(command.spawn()?))
    }

    /// Starts a server in a place of the testbed, on the usual ports unless others are given, and
    /// waits until it is ready.
    ///
    /// # Errors
    /// As [`DnsServer::start`].
    pub fn start_in(bed: &Testbed, place: Place, mut setup: Setup) -> Result<Self> {
        setup.ports.get_or_insert(Ports::USUAL);
        let mut server = Self::spawn_by(setup, |mut command| {
            Ok(bed.in_place(place, move || command.spawn())??)
        })?;
        server.wait_until(|dns, ready| {
            bed.in_place(place, move || is_up(dns, ready))
                .unwrap_or_default()
        })?;
        Ok(server)
    }

    fn spawn_by(setup: Setup, spawn: impl FnOnce(Command) -> Result<Child>) -> Result<Self> {
        let binary = binary::find("switchyard-dns")?;
        let dir = tempfile::Builder::new()
            .prefix("switchyard-dns-")
            .tempdir()?;
        let ports = match setup.ports {
            Some(ports) => ports,
            None => Ports::free()?,
        };
        let manifests = Manifests::create(dir.path(), "manifests")?;
        if let Some(objects) = &setup.objects {
            manifests.replace(objects)?;
        }
        for (name, content) in &setup.files {
            fs::write(dir.path().join(name), ports.fill_in(content, dir.path()))?;
        }
        write_whole(
            dir.path(),
            COREFILE,
            &ports.fill_in(&setup.corefile, dir.path()),
        )?;
        let command = command(&binary, &setup, ports, &dir, &manifests)?;
        let child = spawn(command).with_context(|| format!("start {}", binary.display()))?;
        Ok(Self {
            child,
            binary,
            setup,
            ports,
            dir,
            manifests,
        })
    }

    /// Starts the process again after its end, with the same files and ports, and waits until it
    /// is ready.
    ///
    /// # Errors
    /// As [`DnsServer::start`].
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = command(
            &self.binary,
            &self.setup,
            self.ports,
            &self.dir,
            &self.manifests,
        )?;
        self.child = command.spawn()?;
        self.wait_ready()
    }

    /// Waits until `/ready` answers 200 where the Corefile has `ready`, else for the first reply.
    ///
    /// # Errors
    /// The process ended, or the time is over; the log is in the message.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_until(is_up)
    }

    fn wait_until(&mut self, is_up: impl Fn(SocketAddr, Option<SocketAddr>) -> bool) -> Result<()> {
        let asks_ready =
            self.setup.corefile.contains("$READY") && !self.setup.do_not_wait_for_ready;
        let ready = asks_ready.then_some(self.ready_address());
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "switchyard-dns ended with {status}; its log ends:\n{}",
                    self.log_tail()
                );
            }
            if is_up(self.address(), ready) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "switchyard-dns was not ready after {START_LIMIT:?}; its log ends:\n{}",
                    self.log_tail()
                );
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Where it answers DNS.
    pub const fn address(&self) -> SocketAddr {
        SocketAddr::new(self.setup.address, self.ports.dns)
    }

    /// A client of it.
    pub const fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Its ports.
    pub const fn ports(&self) -> Ports {
        self.ports
    }

    /// The directory with its Corefile, log and manifests.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its manifests directory.
    pub const fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Puts another Corefile in place by an atomic rename; nothing is signalled.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn replace_corefile(&self, text: &str) -> Result<()> {
        write_whole(
            self.dir.path(),
            COREFILE,
            &self.ports.fill_in(text, self.dir.path()),
        )
    }

    /// `GET /ready`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn ready(&self) -> Result<HttpAnswer> {
        http_get_here(self.ready_address(), "/ready")
    }

    /// `GET /health`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn health(&self) -> Result<HttpAnswer> {
        let address = SocketAddr::from((HTTP_ADDRESS, self.ports.health));
        http_get_here(address, "/health")
    }

    /// `GET /metrics`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn metrics(&self) -> Result<String> {
        let address = SocketAddr::from((HTTP_ADDRESS, self.ports.metrics));
        Ok(http_get_here(address, "/metrics")?.body)
    }

    /// The sum of all samples of a metric whose labels contain each of `labels` (`rcode="NOERROR"`).
    ///
    /// # Errors
    /// Nobody listens there. A metric without samples is 0.
    pub fn metric_sum(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let mut sum = 0.0;
        for line in self.metrics()?.lines() {
            let Some((sample, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let own_labels = sample.strip_prefix(name);
            if let Some(own) = own_labels.filter(|own| own.is_empty() || own.starts_with('{'))
                && labels.iter().all(|label| own.contains(label))
            {
                sum += value.parse::<f64>().with_context(|| line.to_owned())?;
            }
        }
        Ok(sum)
    }

    fn ready_address(&self) -> SocketAddr {
        SocketAddr::from((HTTP_ADDRESS, self.ports.ready))
    }

    /// The process' id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
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
        let ended = self.wait_exit(STOP_LIMIT);
        if ended.is_err() {
            self.kill()?;
        }
        ended
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// The process is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// The system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for("the end of switchyard-dns", limit, POLL_EVERY, || {
            Ok(self.child.try_wait()?.is_some())
        })?;
        Ok(self.child.wait()?)
    }

    /// Waits until the log contains `text`.
    ///
    /// # Errors
    /// It does not within `limit`; the log's end is in the message.
    pub fn wait_log(&self, text: &str, limit: Duration) -> Result<()> {
        wait_for(&format!("`{text}` in the log"), limit, POLL_EVERY, || {
            Ok(self.log().contains(text))
        })
        .with_context(|| self.log_tail())
    }

    /// All it wrote to standard output and standard error up to now.
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(self.dir.path())).unwrap_or_default()
    }

    /// The last lines of that.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LOG_TAIL_LINES);
        lines.get(first..).unwrap_or_default().join("\n")
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        // Already ended is as good.
        drop(self.child.kill());
        drop(self.child.wait());
        eprintln!("the log of switchyard-dns ends:\n{}", self.log_tail());
    }
}

fn is_up(dns: SocketAddr, ready: Option<SocketAddr>) -> bool {
    match ready {
        Some(ready) => http_get_here(ready, "/ready").is_ok_and(|answer| answer.status == 200),
        None => Client::new(dns)
            .with_patience(FIRST_ANSWER)
            .ask("ready.invalid.", "A")
            .is_ok(),
    }
}

fn command(
    binary: &Path,
    setup: &Setup,
    ports: Ports,
    dir: &tempfile::TempDir,
    manifests: &Manifests,
) -> Result<Command> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(dir.path()))?;
    let mut command = Command::new(binary);
    command
        .arg("-conf")
        .arg(dir.path().join(COREFILE))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir(dir.path())
        .env("NO_COLOR", "1")
        .envs(setup.env.iter().cloned());
    if setup.objects.is_some() {
        command.arg("--manifests").arg(manifests.dir());
    }
    let flags = setup.flags.iter();
    command.args(flags.map(|flag| ports.fill_in(flag, dir.path())));
    Ok(command)
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Writes a file of the directory by an atomic rename.
fn write_whole(dir: &Path, name: &str, text: &str) -> Result<()> {
    let next = dir.join(format!("{name}.next"));
    fs::write(&next, text)?;
    fs::rename(&next, dir.join(name)).with_context(|| format!("write {name}"))
}
