//! `switchyard-dns` in a pod, behind the Service `kube-dns`, and a DNS server outside for it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use switchyard_tests::testbed::{Place, Testbed, wait_for};

use super::built;

/// Where the Service's only endpoint is: the pod without a server on port 8080, where /health is.
const SERVER: Place = Place::Pod12;
/// It reads its manifests within milliseconds.
const START_LIMIT: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 40;
/// What a pod of namespace `demo` finds as its /etc/resolv.conf.
const RESOLV_CONF: &str = "search demo.svc.cluster.local svc.cluster.local cluster.local\n\
                           nameserver 10.96.0.10\noptions ndots:5\n";

/// The servers' processes. Killed when dropped.
pub(super) struct Dns {
    server: Child,
    outside: Child,
    log: PathBuf,
}

impl Dns {
    /// Starts both, and waits until ours says that it is ready.
    pub(super) fn start(bed: &Testbed, manifests: &Path) -> Result<Self> {
        fs::write(resolv_conf(bed), RESOLV_CONF)?;
        let log = bed.work_dir().join("dns.log");
        let file = File::create(&log)?;
        let outside = spawn(bed, Place::Client, outside(), &file)?;
        let mut server = Command::new(built("switchyard-dns")?);
        server
            .arg("-conf")
            .arg(manifests.join("Corefile"))
            .arg("--manifests")
            .arg(manifests)
            .env("NO_COLOR", "1");
        let server = spawn(bed, SERVER, server, &file)?;
        let mut dns = Self {
            server,
            outside,
            log,
        };
        let ready = SocketAddr::from(([127, 0, 0, 1], 8181));
        let is_ready = || {
            for (name, child) in [
                ("switchyard-dns", &mut dns.server),
                ("dnsmasq", &mut dns.outside),
            ] {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended with {status}");
                }
            }
            let answer = bed.http_get(SERVER, ready, "/ready");
            Ok(answer.is_ok_and(|answer| answer.status == 200))
        };
        wait_for("switchyard-dns", START_LIMIT, POLL_EVERY, is_ready)
            .with_context(|| format!("log of the DNS servers:\n{}", tail(&dns.log)))?;
        Ok(dns)
    }

    pub(super) fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.outside] {
            // Ended already is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The file that pods find as their /etc/resolv.conf.
pub(super) fn resolv_conf(bed: &Testbed) -> PathBuf {
    bed.work_dir().join("resolv.conf")
}

/// A command that runs another one, which sees the pods' resolv.conf in a mount namespace of its
/// own: the machine's own file stays as it is.
pub(super) fn in_pod(bed: &Testbed, command: &str) -> Vec<String> {
    let bind = format!(
        "mount --bind {} /etc/resolv.conf && exec {command}",
        resolv_conf(bed).display()
    );
    ["unshare", "--mount", "sh", "-c", &bind]
        .map(str::to_owned)
        .into()
}

/// A DNS server outside the cluster that knows one name.
fn outside() -> Command {
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file",
        "--log-facility=-",
        "--host-record=www.example.com,198.51.100.2,2001:db8:51::2",
    ]);
    dnsmasq
}

fn spawn(bed: &Testbed, place: Place, mut command: Command, log: &File) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    let shown = command.get_program().display().to_string();
    bed.in_place(place, move || command.spawn())?
        .with_context(|| format!("start {shown}"))
}

fn tail(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}
