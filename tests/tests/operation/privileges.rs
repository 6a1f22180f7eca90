//! What the proxy may still do once it runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use switchyard_tests::testbed::{IptablesTool, Place, Proxy, wait_for};

use super::stage::{POLL, SOON, Stage};

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_MODULE: u64 = 1 << 16;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const SYS_RESOURCE: u64 = 1 << 24;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const EBPF: u64 = NET_ADMIN | BPF | PERFMON | SYS_ADMIN | SYS_PTRACE;
/// What a restart into any mode takes, as far as it is to be had here.
const ANY_START: u64 = EBPF | NET_RAW | SYS_MODULE | SYS_RESOURCE;
const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// The lines of `/proc/…/status`.
fn status(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect())
}

/// Waits until every thread of the proxy has exactly these capabilities in effect, and no
/// others permitted or to be had than `permitted`.
fn wait_for_capabilities(proxy: &Proxy, effective: u64, permitted: u64) -> Result<()> {
    let own = status(Path::new("/proc/self/status"))?;
    let permitted = permitted & u64::from_str_radix(&own["CapPrm"], 16)?;
    let tasks = format!("/proc/{}/task", proxy.pid());
    let mut seen = String::new();
    let waited = wait_for("the capabilities", SOON, POLL, || {
        seen.clear();
        let mut all = true;
        for task in fs::read_dir(&tasks)? {
            // One that has ended meanwhile has none.
            let Ok(status) = status(&task?.path().join("status")) else {
                continue;
            };
            let set = |name: &str| -> Result<u64> {
                let text = status.get(name).with_context(|| name.to_owned())?;
                Ok(u64::from_str_radix(text, 16)?)
            };
            all &= set("CapEff")? == effective
                && set("CapPrm")? == permitted
                && set("CapBnd")? == permitted
                && set("CapInh")? == 0
                && set("CapAmb")? == 0
                && status.get("NoNewPrivs").is_some_and(|set| set == "1");
            for name in ["Name", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs"] {
                seen.push_str(&format!("{name}={:?} ", status.get(name)));
            }
            seen.push('\n');
        }
        Ok(all)
    });
    waited.with_context(|| format!("wanted {effective:x}, {permitted:x}; threads have:\n{seen}"))
}

/// Without a file that may change there is no way back.
#[test]
fn each_mode_keeps_what_it_needs_and_nothing_else() -> Result<()> {
    for (mode, kept) in [
        ("nftables", NET_ADMIN),
        ("iptables", NET_ADMIN | NET_RAW),
        ("ebpf", EBPF),
    ] {
        let stage = Stage::new()?;
        let mut options = stage.options(mode)?;
        options.tool = Some(IptablesTool::Nft);
        let proxy = Proxy::start(&stage.bed, options)?;
        stage.answers().context(mode)?;
        wait_for_capabilities(&proxy, kept, kept).context(mode)?;
    }
    Ok(())
}

/// From mode to mode in one process: what the next one needs is permitted, and in effect only
/// when it runs.
#[test]
fn a_change_of_mode_brings_back_what_the_next_one_needs() -> Result<()> {
    let stage = Stage::new()?;
    let file = stage.bed.work_dir().join("proxy.yaml");
    let new = stage.bed.work_dir().join("proxy.yaml.new");
    let roots = stage.bed.ebpf_roots()?;
    let put = |mode: &str| -> Result<()> {
        let (pins, cgroup) = (roots.bpf.display(), roots.cgroup.display());
        let text = format!(
            "{HEAD}mode: {mode}\nclusterCIDR: 10.244.0.0/16\nhostnameOverride: node1\n\
             switchyard:\n  ebpf: {{bpfRoot: {pins}, cgroupRoot: {cgroup}}}\n"
        );
        fs::write(&new, text)?;
        Ok(fs::rename(&new, &file)?)
    };
    put("nftables")?;
    let mut options = stage.options("nftables")?;
    options.tool = Some(IptablesTool::Nft);
    options.flags.push(format!("--config={}", file.display()));
    let proxy = Proxy::start(&stage.bed, options)?;
    wait_for_capabilities(&proxy, NET_ADMIN, ANY_START)?;
    let metrics = std::net::SocketAddr::from(([127, 0, 0, 1], 10249));
    for (mode, needed) in [
        ("ebpf", EBPF),
        ("iptables", NET_ADMIN | NET_RAW),
        ("ebpf", EBPF),
        ("nftables", NET_ADMIN),
    ] {
        put(mode)?;
        let waited = wait_for(mode, SOON, POLL, || {
            let now = stage.bed.http_get(Place::Node1, metrics, "/proxyMode");
            Ok(now.is_ok_and(|now| now.body == mode)
                && proxy
                    .healthz(&stage.bed)
                    .is_ok_and(|health| health.status == 200))
        });
        waited.with_context(|| proxy.log_tail(30))?;
        stage.answers().context(mode)?;
        wait_for_capabilities(&proxy, needed, ANY_START).context(mode)?;
    }
    // What the modes before left is gone, though the agent could not remove it any more.
    wait_for("the end of all pins", SOON, POLL, || {
        Ok(!roots.bpf.join("links").exists())
    })?;
    Ok(())
}

/// As a container that was given one capability; once as root, once as nobody.
#[test]
fn with_net_admin_alone_nftables_mode_serves() -> Result<()> {
    let as_root = ["setpriv", "--bounding-set=-all,+net_admin"];
    let as_nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all,+net_admin",
        "--inh-caps=-all,+net_admin",
        "--ambient-caps=-all,+net_admin",
    ];
    for under in [&as_root[..], &as_nobody[..]] {
        let stage = Stage::new()?;
        let mut options = stage.options("nftables")?;
        options.under = under.iter().map(|word| (*word).to_owned()).collect();
        let proxy = Proxy::start(&stage.bed, options).with_context(|| format!("{under:?}"))?;
        stage.answers().with_context(|| format!("{under:?}"))?;
        let own = status(Path::new(&format!("/proc/{}/status", proxy.pid())))?;
        for set in ["CapEff", "CapPrm"] {
            let held = u64::from_str_radix(&own[set], 16)?;
            ensure!(held == NET_ADMIN, "{set}: {held:x}");
        }
    }
    Ok(())
}
