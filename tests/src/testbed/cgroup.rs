//! The cgroup2 directories of what lives on the nodes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

/// Where cgroup2 is mounted on a machine that has it nowhere yet.
const CGROUP_DIR: &str = "/sys/fs/cgroup";

/// A threaded cgroup2 group below this process' own; removed on drop.
///
/// Threaded, because the threads of one test process live in several places. A socket program
/// attached here sees exactly the sockets made on the node and in its pods.
pub(super) struct NodeCgroup {
    path: PathBuf,
    keep: bool,
}

impl NodeCgroup {
    /// Makes the group.
    ///
    /// # Errors
    /// The machine has no cgroup2, or does not let this process make threaded groups.
    pub(super) fn create(name: &str) -> Result<Self> {
        let path = own_directory()?.join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let group = Self { path, keep: false };
        let kind = group.path.join("cgroup.type");
        fs::write(&kind, "threaded")
            .with_context(|| format!("write threaded to {}", kind.display()))?;
        Ok(group)
    }

    /// Leaves the group in place when dropped.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn threads_file(&self) -> PathBuf {
        self.path.join("cgroup.threads")
    }
}

impl Drop for NodeCgroup {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // An exited process leaves its group a moment after it was waited for.
        for _ in 0..20 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("testbed: {} could not be removed", self.path.display());
    }
}

/// Removes the groups of testbeds whose process no longer runs.
pub(super) fn sweep_leftovers() {
    let Ok(directory) = own_directory() else {
        return;
    };
    for path in super::sweep::left_in(&directory) {
        // One that still holds a process is left for the next sweep.
        drop(fs::remove_dir(path));
    }
}

fn own_directory() -> Result<PathBuf> {
    let root = match mount_point("cgroup2")? {
        Some(root) => root,
        None => mount_cgroup2()?,
    };
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .context("/proc/self/cgroup has no line for cgroup2")?;
    Ok(root.join(own))
}

/// As an init system does it: only where nothing else is mounted at that place.
fn mount_cgroup2() -> Result<PathBuf> {
    let what = "cgroup2 is mounted nowhere and cannot be mounted at /sys/fs/cgroup";
    mount(
        Some("cgroup2"),
        CGROUP_DIR,
        Some("cgroup2"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .context(what)?;
    Ok(PathBuf::from(CGROUP_DIR))
}

/// Where a kind of filesystem is mounted first.
fn mount_point(kind: &str) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().find_map(|line| {
        let (at, of_kind) = place_and_kind(line)?;
        (of_kind == kind).then(|| PathBuf::from(at))
    }))
}

/// Whether a filesystem of this kind is mounted at this place.
pub(super) fn mounted(at: &str, kind: &str) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts
        .lines()
        .any(|line| place_and_kind(line) == Some((at, kind))))
}

fn place_and_kind(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split(' ');
    Some((fields.nth(1)?, fields.next()?))
}
