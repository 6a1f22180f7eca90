//! Where the eBPF proxy under test attaches and pins: a node's cgroup, and a directory of the
//! testbed's own on the bpf filesystem.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

/// Where the bpf filesystem is, or is mounted where it is missing.
pub(super) const BPF_FS: &str = "/sys/fs/bpf";
/// The oldest kernel the eBPF backend is for.
const MIN_KERNEL: (u32, u32) = (5, 10);

/// What `--cgroup-root` and `--bpf-root` of a testbed's proxy are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EbpfRoots {
    /// The cgroup2 directory of all that lives on the node.
    pub cgroup: PathBuf,
    /// The directory for pins; the proxy makes it, the testbed removes it.
    pub bpf: PathBuf,
}

impl EbpfRoots {
    /// The two flags.
    pub fn arguments(&self) -> [String; 2] {
        [
            format!("--cgroup-root={}", self.cgroup.display()),
            format!("--bpf-root={}", self.bpf.display()),
        ]
    }
}

/// The directory for a testbed's pins. It need not exist.
pub(super) fn pin_dir(id: &str) -> PathBuf {
    Path::new(BPF_FS).join(id)
}

/// Fails unless the kernel is new enough and the bpf filesystem is mounted, or can be.
pub(super) fn require_bpf() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    if kernel_version(&release).is_none_or(|version| version < MIN_KERNEL) {
        let (major, minor) = MIN_KERNEL;
        bail!(
            "the eBPF backend needs Linux {major}.{minor} or later, this is {}",
            release.trim()
        );
    }
    ensure_mounted()
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn ensure_mounted() -> Result<()> {
    let directory = File::open(BPF_FS)
        .with_context(|| format!("{BPF_FS} is missing: the kernel has no bpf filesystem"))?;
    // Two test processes must not mount it over each other.
    directory.lock()?;
    if super::cgroup::mounted(BPF_FS, "bpf")? {
        return Ok(());
    }
    mount(
        Some("bpf"),
        BPF_FS,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .with_context(|| format!("mount the bpf filesystem at {BPF_FS}"))
}

/// Removes the pins of testbed `id`; what only they held in the kernel goes with them.
pub(super) fn remove_pins(id: &str) {
    let dir = pin_dir(id);
    if dir.exists()
        && let Err(error) = fs::remove_dir_all(&dir)
    {
        eprintln!("testbed: {} could not be removed: {error}", dir.display());
    }
}

/// Removes the pins of testbeds whose process no longer runs.
pub(super) fn sweep_leftovers() {
    for path in super::sweep::left_in(Path::new(BPF_FS)) {
        // Another sweeper may be faster.
        drop(fs::remove_dir_all(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_by_their_first_two_numbers() {
        assert_eq!(kernel_version("6.18.44-fc-v595\n"), Some((6, 18)));
        assert_eq!(kernel_version("5.10.0-8-amd64"), Some((5, 10)));
        assert_eq!(kernel_version("odd"), None);
    }
}
