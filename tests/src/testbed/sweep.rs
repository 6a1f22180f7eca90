//! Removing testbeds: one's own, and those of processes that were killed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::ip_batch;

const NETNS_DIR: &str = "/run/netns";

/// Removes every namespace `sy<pid>-…` whose process no longer runs.
pub(super) fn sweep_leftovers() -> Result<()> {
    let names = namespaces_named("sy").context("list network namespaces")?;
    for name in names {
        if owner_pid(&name).is_some_and(|pid| !is_running(pid)) {
            remove_namespace(&name);
        }
    }
    Ok(())
}

/// Removes the work directories of testbeds whose process no longer runs.
pub(super) fn sweep_work_dirs() {
    for path in left_in(&std::env::temp_dir()) {
        // Another sweeper may be faster.
        drop(fs::remove_dir_all(path));
    }
}

/// What testbeds whose process no longer runs have left in a directory; nothing where it can't be
/// read.
pub(super) fn left_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_left = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner_pid);
        owner.is_some_and(|pid| !is_running(pid))
    };
    entries.filter(is_left).map(|entry| entry.path()).collect()
}

/// The process number in `sy<pid>-<n>-<place>`.
pub(super) fn owner_pid(name: &str) -> Option<&str> {
    let (pid, _) = name.strip_prefix("sy")?.split_once('-')?;
    (!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())).then_some(pid)
}

pub(super) fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// Removes the namespaces of testbed `id` and ends what still runs in them.
pub(super) fn remove_testbed(id: &str) {
    match namespaces_named(&format!("{id}-")) {
        Ok(names) => names.iter().for_each(|name| remove_namespace(name)),
        Err(error) => eprintln!("testbed: cannot list namespaces of {id}: {error}"),
    }
}

fn namespaces_named(prefix: &str) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(NETNS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(names),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && name.starts_with(prefix)
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove_namespace(name: &str) {
    let output = std::process::Command::new("ip")
        .args(["netns", "pids", name])
        .output();
    let pids = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for pid in pids
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().parse().ok())
    {
        let pid = Pid::from_raw(pid);
        if pid != Pid::this() {
            // Already gone is as good.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    if let Err(error) = ip_batch(None, &format!("netns del {name}\n")) {
        eprintln!("testbed: cannot remove namespace {name}: {error:#}");
    }
}
