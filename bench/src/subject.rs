//! A service proxy under measurement.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use switchyard_tests::testbed::{IptablesTool, Place, Testbed};

use crate::process::Process;

/// Where each subject serves its metrics, in its own namespace.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 10249);
/// When a sync last succeeded: both subjects have it once the first one has.
const SYNCED: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}";

/// How a subject is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What it is called in the table.
    pub name: String,
    /// The program.
    pub binary: PathBuf,
    /// Its flags.
    pub flags: Vec<String>,
    /// The iptables tool it finds.
    pub tool: IptablesTool,
}

impl Launch {
    /// A subject with the flags both have, and those that say where the cluster is read.
    #[must_use]
    pub fn new(name: &str, binary: PathBuf, tool: IptablesTool, source: &[String]) -> Self {
        let common = [
            "--proxy-mode=iptables",
            "--hostname-override=node1",
            "--cluster-cidr=10.244.0.0/16,fd00:244::/32",
            "--healthz-bind-address=0.0.0.0:10256",
            "--metrics-bind-address=127.0.0.1:10249",
            // The machine's switches stay as they are.
            "--conntrack-max-per-core=0",
        ];
        Self {
            name: name.to_owned(),
            binary,
            flags: common
                .map(str::to_owned)
                .into_iter()
                .chain(source.iter().cloned())
                .collect(),
            tool,
        }
    }

    /// The same in another mode of the proxy, with the flags that mode needs.
    #[must_use]
    pub fn mode(mut self, mode: &str, flags: &[String]) -> Self {
        self.flags.retain(|flag| !flag.starts_with("--proxy-mode="));
        self.flags.push(format!("--proxy-mode={mode}"));
        self.flags.extend_from_slice(flags);
        self
    }

    /// Whether its rules are iptables'.
    pub(crate) fn is_iptables(&self) -> bool {
        self.flags
            .iter()
            .any(|flag| flag == "--proxy-mode=iptables")
    }
}

/// A subject that runs on node1. Killed when dropped.
pub(crate) struct Subject {
    child: Child,
    log: PathBuf,
}

impl Subject {
    pub(crate) fn start(bed: &Testbed, launch: &Launch) -> Result<Self> {
        let programs = bed.work_dir().join(launch.tool.name());
        if !programs.exists() {
            launch.tool.link_into(&programs)?;
        }
        let log = bed.work_dir().join(format!("{}.log", launch.name));
        let file = File::create(&log)?;
        let mut command = Command::new(&launch.binary);
        let is_ours = launch.binary.ends_with("switchyard-proxy");
        if is_ours
            && !launch
                .flags
                .iter()
                .any(|flag| flag.starts_with("--bpf-root="))
        {
            // It removes what another mode left: none of the machine's own.
            let nothing = bed.work_dir().join("no-pins");
            command.arg(format!("--bpf-root={}", nothing.display()));
        }
        command
            .args(&launch.flags)
            .env("PATH", &programs)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = bed
            .in_place(Place::Node1, move || command.spawn())?
            .with_context(|| format!("start {}", launch.binary.display()))?;
        Ok(Self { child, log })
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Whether its first sync has succeeded, by its own account.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn has_synced(&mut self, bed: &Testbed) -> Result<bool> {
        self.check()?;
        let metrics = bed.http_get(Place::Node1, SocketAddr::from(METRICS), "/metrics");
        Ok(metrics.is_ok_and(|answer| answer.body.contains(SYNCED)))
    }

    /// Whether its log says this already.
    pub(crate) fn has_said(&self, words: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words))
    }

    /// # Errors
    /// It has ended; with the end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines
                .get(lines.len().saturating_sub(20)..)
                .unwrap_or_default();
            bail!("it ended with {status}; its log ends:\n{}", tail.join("\n"));
        }
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
