//! A cluster that stays up: another process of ours holds it, since servers are its threads.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use switchyard_tests::testbed::{Place, Testbed, wait_for};
use tokio::signal::unix::{SignalKind, signal};

use super::{Cluster, dns};
use crate::programs::root;

/// Building, starting and visiting takes seconds; by then something hangs.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Ending takes less than a second.
const END_LIMIT: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(50);
/// A kept cluster that nobody ends goes by itself.
const HOLD_LIMIT_H: u64 = 12;

/// Where a kept cluster leaves word of itself.
struct Files {
    /// What it prints until it is up.
    log: PathBuf,
    /// The id of its process, once it is up.
    pid: PathBuf,
}

fn files() -> Result<Files> {
    let dir = root()?.join("target/demo");
    fs::create_dir_all(&dir)?;
    Ok(Files {
        log: dir.join("log"),
        pid: dir.join("pid"),
    })
}

/// Starts the process that holds the cluster, and waits until that is up.
pub(super) fn start(proxy_mode: &str) -> Result<()> {
    let files = files()?;
    if let Some(pid) = running(&files) {
        bail!("a cluster is up already (process {pid}); end it with: cargo xtask demo --end");
    }
    fs::write(&files.log, "")?;
    // It may be left over from a process that was killed.
    drop(fs::remove_file(&files.pid));
    let log = fs::File::options().append(true).open(&files.log)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["demo", "--hold", "--proxy-mode", proxy_mode])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C here is not meant for it.
        .process_group(0)
        .spawn()?;
    let up = follow(&mut child, &files);
    if up.is_err() && running(&files).is_none() {
        // Ended already, or to be ended: SIGTERM lets it clean up.
        let _ = kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM);
        drop(child.wait());
    }
    up
}

/// Copies the log to our output until the cluster is up.
fn follow(child: &mut Child, files: &Files) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    let mut printed = 0;
    loop {
        let ended = child.try_wait()?;
        let is_up = files.pid.exists();
        let log = fs::read(&files.log)?;
        if let Some(fresh) = log.get(printed..) {
            std::io::stdout().write_all(fresh)?;
            printed = log.len();
        }
        if let Some(status) = ended {
            bail!("the demo ended with {status}");
        }
        if is_up {
            return verdict(files);
        }
        if Instant::now() > deadline {
            bail!("the cluster was not up after {START_LIMIT:?}");
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// What the process that holds the cluster says of it.
fn verdict(files: &Files) -> Result<()> {
    match fs::read_to_string(&files.pid)?.lines().nth(1) {
        None | Some("") => Ok(()),
        Some(wrong) => bail!("{wrong}"),
    }
}

/// Holds the cluster until SIGTERM, SIGINT, or for [`HOLD_LIMIT_H`] hours.
pub(super) fn hold(proxy_mode: &str) -> Result<()> {
    let files = files()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let cluster = Cluster::start(proxy_mode)?;
        let shown = cluster.show();
        println!("\n{}", how_to_enter(&cluster.bed, proxy_mode));
        // A cluster that does not work is what one wants to look at: it stays up too.
        let verdict = shown.map_or_else(|error| format!("{error:#}"), |()| String::new());
        // By rename, so that nobody reads half of it.
        let fresh = files.pid.with_extension("new");
        fs::write(&fresh, format!("{}\n{verdict}\n", std::process::id()))?;
        fs::rename(&fresh, &files.pid)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(Duration::from_secs(HOLD_LIMIT_H * 3600)) => {}
        }
        drop(cluster);
        fs::remove_file(&files.pid).context("remove the note of the running demo")
    })
}

fn how_to_enter(bed: &Testbed, proxy_mode: &str) -> String {
    let enter =
        |place, command: &str| format!("  ip netns exec {} {command}", bed.namespace_name(place));
    let logs = bed.work_dir().display();
    let in_pod = format!(
        "unshare --mount sh -c 'mount --bind {} /etc/resolv.conf && exec bash'",
        dns::resolv_conf(bed).display()
    );
    [
        "The cluster stays up. To look around:".to_owned(),
        what_is_there(bed, proxy_mode),
        enter(Place::Node1, "curl -s http://127.0.0.1:10256/healthz"),
        enter(Place::Node1, "curl -s http://127.0.0.1:10249/metrics"),
        enter(
            Place::Client,
            "bash -c 'echo hello | nc -w 1 192.168.100.11 30080'",
        ),
        enter(Place::Pod12, "bash"),
        "  a shell in a pod, with the pod's own /etc/resolv.conf:".to_owned(),
        enter(Place::Pod11, &in_pod),
        format!("  logs of the proxies: {logs}/proxy-node1.log, proxy-node2.log"),
        format!("  log of the DNS servers: {logs}/dns.log"),
        "Places: node1 node2 pod11 pod12 pod21 pod22 client blocked fabric".to_owned(),
        format!("To end it (after {HOLD_LIMIT_H} hours it ends by itself): cargo xtask demo --end"),
    ]
    .join("\n")
}

/// How to see what the proxy made of node1.
fn what_is_there(bed: &Testbed, proxy_mode: &str) -> String {
    let rules = format!(
        "  ip netns exec {} iptables-save",
        bed.namespace_name(Place::Node1)
    );
    let Ok(roots) = bed.ebpf_roots() else {
        return rules;
    };
    if proxy_mode == "iptables" {
        return rules;
    }
    let (cgroup, pins) = (roots.cgroup.display(), roots.bpf.display());
    [
        format!("  bpftool cgroup show {cgroup}"),
        format!("  bpftool map dump pinned {pins}/v2/FLOWS"),
        "  to have the sockets of a shell translated like those of node1 and its pods, first:"
            .to_owned(),
        format!("  echo $$ > {cgroup}/cgroup.threads"),
    ]
    .join("\n")
}

/// Ends a kept cluster.
pub(super) fn end() -> Result<()> {
    let files = files()?;
    let Some(pid) = running(&files) else {
        println!("no cluster of a demo is up");
        return Ok(());
    };
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    let gone = || Ok(!is_demo(pid));
    wait_for("the demo's end", END_LIMIT, POLL_EVERY, gone)?;
    println!("the demo's cluster is removed");
    Ok(())
}

/// The process that holds a kept cluster.
fn running(files: &Files) -> Option<i32> {
    let note = fs::read_to_string(&files.pid).ok()?;
    let pid = note.lines().next()?.parse().ok()?;
    is_demo(pid).then_some(pid)
}

/// Whether the process with this id is one of ours that holds a cluster, and has not ended.
fn is_demo(pid: i32) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    words.split(|&byte| byte == 0).any(|word| word == b"--hold")
}
