//! The recorded cluster, a proxy in one mode after the other, and kube-proxy's own rules.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{Case, CaseRunner, Manifests, load_file, serve_endpoints_of};
use switchyard_tests::recorded;
use switchyard_tests::testbed::{
    IptablesTool, Place, Proxy, ProxyOptions, Testbed, Traffic, wait_for,
};

use super::kept::{Open, WAYS};
use super::{Backends, Mode, left};

/// New connections of each way.
const EVERY: Duration = Duration::from_millis(20);
/// A proxy that loads kernel programs on a busy machine takes some seconds.
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// What is only seen or done now and then is soon.
const PERIOD: &str = "2s";
/// What the recorded objects' packets must meet in every mode.
const VERDICTS: [&str; 9] = [
    "clusterip",
    "two-ports",
    "udp",
    "empty",
    "node-port",
    "load-balancer",
    "ranges in",
    "dual-stack",
    "unnamed-port",
];

/// How the mode is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// Another flag.
    Restart,
    /// Another line in the configuration file.
    Reload,
}

pub(super) struct Stage {
    pub(super) bed: Arc<Testbed>,
    manifests: Manifests,
    backends: Backends,
    config: PathBuf,
    proxy: Option<Proxy>,
}

impl Stage {
    pub(super) fn new(backends: Backends) -> Result<Self> {
        let bed = Arc::new(Testbed::build()?);
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        manifests.replace_text(&recorded::objects_text()?)?;
        let kubernetes = recorded::default_kubernetes_text()?;
        manifests.replace_file("default-kubernetes.yaml", &kubernetes)?;
        for object in recorded::objects()? {
            serve_endpoints_of(&bed, &object)?;
        }
        let config = bed.work_dir().join("config.yaml");
        let stage = Self {
            bed,
            manifests,
            backends,
            config,
            proxy: None,
        };
        left::lay_down_foreign(&stage)?;
        Ok(stage)
    }

    pub(super) fn tool(&self) -> Result<IptablesTool> {
        self.backends.iptables.tool.context("iptables has a tool")
    }

    /// Starts the proxy in a mode; nothing is in force, or kube-proxy's own.
    pub(super) fn begin(&mut self, mode: Mode, switch: Switch) -> Result<()> {
        let options = match switch {
            Switch::Restart => self.options(mode)?,
            Switch::Reload => {
                self.write_config(mode)?;
                let mut options = self.options(mode)?;
                options.flags = vec![
                    format!("--config={}", self.config.display()),
                    "--manifests=".to_owned(),
                ];
                options
            }
        };
        self.proxy = Some(Proxy::start(&self.bed, options)?);
        Ok(())
    }

    fn options(&self, mode: Mode) -> Result<ProxyOptions> {
        let backend = self.backends.of(mode);
        let mut options = backend.options(&self.bed, self.manifests.dir())?;
        let all = "--nodeport-addresses=0.0.0.0/0,::/0".to_owned();
        if !options.flags.contains(&all) {
            options.flags.push(all);
        }
        options
            .flags
            .push(format!("--iptables-sync-period={PERIOD}"));
        options.flags.push(format!("--ipvs-sync-period={PERIOD}"));
        Ok(options)
    }

    fn write_config(&self, mode: Mode) -> Result<()> {
        let word = match mode {
            Mode::Iptables => "iptables",
            Mode::Nftables => "nftables",
            Mode::Ipvs => "ipvs",
            Mode::Ebpf => "ebpf",
        };
        let roots = self.bed.ebpf_roots()?;
        let is_direct = self
            .backends
            .ebpf
            .flags
            .contains(&"--ebpf-forwarding=direct");
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
             mode: {word}\nclusterCIDR: 10.244.0.0/16,fd00:244::/32\nhostnameOverride: node1\n\
             nodePortAddresses: [0.0.0.0/0, \"::/0\"]\n\
             iptables: {{syncPeriod: {PERIOD}}}\n\
             switchyard:\n  manifests: {}\n  ebpf: {{bpfRoot: {}, cgroupRoot: {}, forwarding: {}}}\n",
            self.manifests.dir().display(),
            roots.bpf.display(),
            roots.cgroup.display(),
            if is_direct { "direct" } else { "stack" },
        );
        let next = self.config.with_extension("next");
        fs::write(&next, text)?;
        Ok(fs::rename(next, &self.config)?)
    }

    /// Changes to another mode, until it is complete.
    pub(super) fn switch(&mut self, to: Mode, switch: Switch) -> Result<()> {
        match switch {
            Switch::Restart => {
                self.end()?;
                self.begin(to, switch)
            }
            Switch::Reload => {
                let restarts = self.restarts();
                self.write_config(to)?;
                let proxy = self.proxy.as_ref().context("no proxy runs")?;
                wait_for("the new mode", SOON, POLL, || {
                    let is_new = self.restarts() > restarts;
                    Ok(is_new && proxy.healthz(&self.bed).is_ok_and(|it| it.status == 200))
                })
                .with_context(|| proxy.log_tail(30))
            }
        }
    }

    /// How often the proxy said that it is complete after a restart in place.
    fn restarts(&self) -> usize {
        let log = self.proxy.as_ref().map(Proxy::log).unwrap_or_default();
        log.matches("restarting in place").count()
    }

    /// Waits until the proxy's log has a line.
    pub(super) fn wait_until_said(&self, what: &str) -> Result<()> {
        let proxy = self.proxy.as_ref().context("no proxy runs")?;
        wait_for(what, SOON, POLL, || Ok(proxy.log().contains(what)))
            .with_context(|| proxy.log_tail(30))
    }

    /// Ends the proxy; what it wrote stays.
    pub(super) fn end(&mut self) -> Result<()> {
        let mut proxy = self.proxy.take().context("no proxy runs")?;
        let status = proxy.terminate()?;
        ensure!(status.success(), "SIGTERM ended it with {status}");
        Ok(())
    }

    /// New connections of all ways, all the time.
    pub(super) fn traffic(&self) -> Result<Traffic> {
        let probes: Vec<_> = WAYS
            .iter()
            .map(super::kept::Way::probe)
            .collect::<Result<_>>()?;
        Ok(Traffic::start_new(&self.bed, &probes, EVERY))
    }

    /// Opens a connection of each way.
    pub(super) fn open(&self) -> Result<Open> {
        Open::all(&self.bed)
    }

    pub(super) fn check_kept(&self, open: &Open, from: Mode, to: Mode) -> Result<()> {
        open.check(&self.bed, from, to)
            .with_context(|| self.log_tail())
    }

    /// Packets to the recorded Services meet what they must.
    pub(super) fn check_verdicts(&self, mode: Mode) -> Result<()> {
        let runner = CaseRunner::new(&self.bed, self.backends.of(mode))?;
        let case = verdicts()?;
        let wrong = runner.check_standing(&case, &recorded::objects()?)?;
        ensure!(
            wrong.is_empty(),
            "{}\n{}",
            wrong.join("\n"),
            self.log_tail()
        );
        Ok(())
    }

    pub(super) fn log_tail(&self) -> String {
        let log = self.bed.work_dir().join("proxy.log");
        let log = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(30)..);
        tail.unwrap_or_default().join("\n")
    }
}

fn verdicts() -> Result<Case> {
    let cases = load_file(&recorded::data_dir().join("packets.yaml"))?;
    let mut cases = cases.into_iter();
    let mut case = cases
        .find(|case| case.name == "packets: reference")
        .context("no packets")?;
    for step in &mut case.steps {
        step.packets
            .retain(|packet| VERDICTS.contains(&packet.id.as_str()));
    }
    Ok(case)
}

/// kube-proxy's own rules, as they were recorded.
pub(super) mod kube_proxy {
    use super::{IptablesTool, Mode, Place, Result, Testbed, recorded};

    /// A kube-proxy that has run for long.
    pub(in super::super) fn load(bed: &Testbed, mode: Mode) -> Result<()> {
        bed.in_place(Place::Node1, || {
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
        })??;
        match mode {
            Mode::Nftables => recorded::load_reference_tables(bed),
            Mode::Iptables | Mode::Ipvs | Mode::Ebpf => {
                recorded::start_reference_rules(bed, IptablesTool::Nft)
            }
        }
    }

    /// One that starts, with what we left of its own mode.
    pub(in super::super) fn start(bed: &Testbed, mode: Mode) -> Result<()> {
        match mode {
            Mode::Nftables => recorded::start_reference_tables(bed),
            Mode::Iptables | Mode::Ipvs | Mode::Ebpf => {
                recorded::start_reference_rules(bed, IptablesTool::Nft)
            }
        }
    }
}
