//! The cgroup2 directory of what lives on node1.

use std::fs;
use std::path::{Path, PathBuf};

/// A threaded cgroup2 group below this process' own; removed on drop.
///
/// Threaded, because the threads of one test process live in several places. A socket program
/// attached here sees exactly the sockets made on node1 and in its pods.
pub(super) struct NodeCgroup {
    path: PathBuf,
    keep: bool,
}

impl NodeCgroup {
    /// Makes the group, or `None` where the machine has no cgroup2 or does not let us.
    pub(super) fn create(name: &str) -> Option<Self> {
        let path = own_directory()?.join(name);
        fs::create_dir(&path).ok()?;
        let group = Self { path, keep: false };
        fs::write(group.path.join("cgroup.type"), "threaded").ok()?;
        Some(group)
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
    let Some(entries) = own_directory().and_then(|directory| fs::read_dir(directory).ok()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name
            .to_str()
            .and_then(super::sweep::owner_pid)
            .is_some_and(|pid| !super::sweep::is_running(pid))
        {
            // One that still holds a process is left for the next sweep.
            drop(fs::remove_dir(entry.path()));
        }
    }
}

fn own_directory() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (at, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(root.join(own))
}
