//! The built proxy with `--config`: what it takes from the file, what it says, and a change of it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use switchyard_tests::cases::{Manifests, ServiceSpec, expand_service, node_objects};
use switchyard_tests::testbed::{
    EbpfRoots, Family, IptablesTool, Outcome, Place, Probe, Protocol, Proxy, ProxyOptions, Testbed,
    find_binary, wait_for,
};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
const POLL: Duration = Duration::from_millis(30);
const SOON: Duration = Duration::from_secs(15);
const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10249);
const VIP: &str = "10.96.7.7:80";

/// A mounted ConfigMap: `config.conf` → `..data/config.conf`, `..data` → a folder of one version.
struct ConfigMap {
    mount: PathBuf,
    versions: std::cell::Cell<u32>,
}

impl ConfigMap {
    fn new(bed: &Testbed) -> Result<Self> {
        let mount = bed.work_dir().join("config");
        fs::create_dir(&mount)?;
        symlink("..data/config.conf", mount.join("config.conf"))?;
        let versions = std::cell::Cell::new(0);
        Ok(Self { mount, versions })
    }

    fn put(&self, text: &str) -> Result<()> {
        let version = self.versions.get() + 1;
        self.versions.set(version);
        let folder = format!("..{version}");
        fs::create_dir(self.mount.join(&folder))?;
        let file = self.mount.join(&folder).join("config.conf");
        fs::write(file, format!("{HEAD}{text}"))?;
        let new = self.mount.join("..data_tmp");
        symlink(&folder, &new)?;
        Ok(fs::rename(new, self.mount.join("..data"))?)
    }

    fn flag(&self) -> String {
        format!("--config={}", self.mount.join("config.conf").display())
    }
}

fn run(bed: &Testbed, flags: &[&str]) -> Result<Output> {
    let mut command = Command::new(find_binary()?);
    command.args(flags);
    Ok(bed.in_place(Place::Node1, move || command.output())??)
}

#[test]
fn a_file_that_is_wrong_in_many_ways_starts_nothing_and_all_of_it_is_said() -> Result<()> {
    let bed = Testbed::build()?;
    let map = ConfigMap::new(&bed)?;
    map.put("mode: quantum\niptables: {masqueradeBit: 77, syncPeriod: 5}\nclusterCIDR: here\n")?;
    let ended = run(&bed, &[&map.flag()])?;
    let said = String::from_utf8(ended.stderr)?;
    ensure!(ended.status.code() == Some(2), "{}: {said}", ended.status);
    for named in [
        "config.conf: mode: \"quantum\": expected iptables",
        "config.conf: iptables.masqueradeBit: \"77\": expected 0 to 31",
        "config.conf: iptables.syncPeriod: \"5\": expected text",
        "config.conf: clusterCIDR[0]: \"here\": expected a network",
    ] {
        ensure!(said.contains(named), "{named:?} is not in\n{said}");
    }
    ensure!(said.lines().count() == 4, "{said}");
    Ok(())
}

#[test]
fn the_defaults_are_written_and_can_be_read() -> Result<()> {
    let bed = Testbed::build()?;
    let file = bed.work_dir().join("written.yaml");
    let written = run(&bed, &[&format!("--write-config-to={}", file.display())])?;
    ensure!(written.status.success(), "{written:?}");
    let first = fs::read_to_string(&file)?;
    ensure!(!first.contains("switchyard:"), "{first}");
    let again = bed.work_dir().join("again.yaml");
    let flags = [
        format!("--config={}", file.display()),
        format!("--write-config-to={}", again.display()),
    ];
    let written = run(&bed, &[&flags[0], &flags[1]])?;
    ensure!(written.status.success(), "{written:?}");
    ensure!(fs::read_to_string(again)? == first);
    Ok(())
}

/// What takes more rights than the rest is done, and no rule is written.
#[test]
fn init_only_sets_parameters_and_ends() -> Result<()> {
    let stage = Stage::new()?;
    stage.put("oomScoreAdj: 0\n")?;
    let ended = run(&stage.bed, &[&stage.map.flag(), "--init-only"])?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{}: {said}", ended.status);
    let parameter = ["cat", "/proc/sys/net/ipv4/conf/all/route_localnet"];
    let parameter = stage.bed.run(Place::Node1, &parameter, "")?;
    ensure!(parameter.stdout.trim() == "1", "{}", parameter.stdout);
    let rules = stage.bed.run(Place::Node1, &["iptables-save"], "")?;
    ensure!(!rules.stdout.contains("KUBE-"), "{}", rules.stdout);
    Ok(())
}

/// A proxy of node1 by its file, and a Service that answers.
struct Stage {
    bed: Testbed,
    map: ConfigMap,
    options: ProxyOptions,
    roots: EbpfRoots,
}

impl Stage {
    fn new() -> Result<Self> {
        let bed = Testbed::build()?;
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        bed.serve_endpoint(Protocol::Tcp, "10.244.1.31:8080".parse()?)?;
        let spec = ServiceSpec {
            cluster_ip: Some("10.96.7.7".to_owned()),
            ports: vec!["80->8080/TCP".parse()?],
            endpoints: Some(vec!["10.244.1.31".parse()?]),
            ..ServiceSpec::default()
        };
        let mut objects = node_objects();
        objects.extend(expand_service("web", &spec, &[Family::IPv4])?);
        manifests.replace(&objects)?;
        let map = ConfigMap::new(&bed)?;
        let mut options = ProxyOptions::new(&bed, manifests.dir(), "ipvs")?;
        options.tool = Some(IptablesTool::Nft);
        options.flags = vec![map.flag(), "--manifests=".to_owned()];
        let roots = bed.ebpf_roots()?;
        Ok(Self {
            bed,
            map,
            options,
            roots,
        })
    }

    fn put(&self, more: &str) -> Result<()> {
        let manifests = self.options.manifests.display();
        let (pins, cgroup) = (self.roots.bpf.display(), self.roots.cgroup.display());
        self.map.put(&format!(
            "clusterCIDR: 10.244.0.0/16,fd00:244::/32\nhostnameOverride: node1\n\
             switchyard:\n  manifests: {manifests}\n\
             \x20 ebpf: {{bpfRoot: {pins}, cgroupRoot: {cgroup}}}\n{more}"
        ))
    }

    fn start(&self) -> Result<Proxy> {
        Proxy::start(&self.bed, self.options.clone())
    }

    fn get(&self, path: &str) -> Result<String> {
        Ok(self.bed.http_get(Place::Node1, METRICS, path)?.body)
    }

    /// A new connection is answered.
    fn answers(&self) -> Result<()> {
        let probe = Probe::new(Place::Pod12, Protocol::Tcp, VIP.parse()?);
        let outcome = self.bed.probe(&probe)?;
        ensure!(matches!(outcome, Outcome::Answered(_)), "{outcome}");
        Ok(())
    }

    /// Waits until the answer at `path` has this in it and the proxy is healthy; meanwhile every
    /// new connection must be answered.
    fn wait_for(&self, proxy: &Proxy, path: &str, text: &str) -> Result<()> {
        let waited = wait_for(text, SOON, POLL, || {
            self.answers()?;
            Ok(self.get(path).is_ok_and(|now| now.contains(text))
                && proxy
                    .healthz(&self.bed)
                    .is_ok_and(|answer| answer.status == 200))
        });
        waited.with_context(|| proxy.log_tail(30))?;
        self.answers()
    }
}

fn descriptors(proxy: &Proxy) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", proxy.pid()))?.count())
}

/// The process stays, the rules stay, no new connection fails; a wrong file changes nothing.
#[test]
fn a_changed_file_restarts_the_agent_in_place_and_a_wrong_one_does_not() -> Result<()> {
    let stage = Stage::new()?;
    stage.put("iptables: {minSyncPeriod: 1s}\nfuture: 1\n")?;
    let proxy = stage.start()?;
    let mode = stage.get("/proxyMode")?;
    ensure!(mode == "iptables", "the flag counted, not the file: {mode}");
    let before = stage.get("/configz")?;
    ensure!(
        before.starts_with("{\"kubeproxy.config.k8s.io\":{"),
        "{before}"
    );
    ensure!(
        before.contains("\"syncPeriod\":\"30s\",\"minSyncPeriod\":\"1s\""),
        "{before}"
    );
    let log = proxy.log();
    ensure!(
        log.contains("do not count") && log.contains("future"),
        "{log}"
    );
    ensure!(log.contains("--proxy-mode"), "{log}");
    stage.answers()?;
    let open = descriptors(&proxy)?;

    stage.put("iptables: {masqueradeBit: 99}\n")?;
    wait_for("the refusal", SOON, POLL, || {
        let refused = proxy.metric(&stage.bed, "switchyard_config_reload_failures_total")?;
        Ok(refused > 0.0)
    })?;
    ensure!(stage.get("/configz")? == before);
    let log = proxy.log();
    ensure!(
        log.contains("masqueradeBit: \"99\": expected 0 to 31"),
        "{log}"
    );
    stage.answers()?;

    stage.put("iptables: {masqueradeBit: 13, syncPeriod: 20s}\n")?;
    stage.wait_for(&proxy, "/configz", "\"masqueradeBit\":13")?;
    let rules = stage
        .bed
        .run(Place::Node1, &["iptables-save", "-t", "nat"], "")?;
    ensure!(rules.stdout.contains("0x2000/0x2000"), "{}", rules.stdout);
    let log = proxy.log();
    ensure!(log.matches("restarting in place").count() == 1, "{log}");
    // What it does in the background, such as looking for other modes' rules, has some for a moment.
    wait_for("no more descriptors than before", SOON, POLL, || {
        Ok(descriptors(&proxy)? <= open)
    })
    .with_context(|| format!("{open} before"))
}

/// From mode to mode in one process, with new connections all the time.
#[test]
fn a_changed_mode_takes_the_place_of_the_one_before() -> Result<()> {
    let stage = Stage::new()?;
    stage.put("mode: iptables\n")?;
    let proxy = stage.start()?;
    for (mode, more) in [
        ("nftables", ""),
        ("ebpf", ""),
        ("iptables", "logging: {format: json}\n"),
    ] {
        stage.put(&format!("mode: {mode}\n{more}"))?;
        stage
            .wait_for(&proxy, "/proxyMode", mode)
            .with_context(|| format!("to {mode}"))?;
    }
    let log = proxy.log();
    ensure!(log.contains("{\"timestamp\":"), "no JSON at the end: {log}");
    Ok(())
}
