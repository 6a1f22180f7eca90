//! What the machine can do, found out by trying.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use aya::util::KernelVersion;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::Paths;

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS: u64 = 0xcafe_4a11;
/// Where bpf file systems are mounted.
const BPF_MOUNT: &str = "/sys/fs/bpf";

/// What the machine can do beyond what is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Socket programs may choose the error of a refused call (Linux 5.18); else it is EPERM
    /// where ECONNREFUSED is meant.
    pub set_retval: bool,
    /// Programs have a clock that costs next to nothing (Linux 5.11); else they read one that
    /// costs some 20 ns a packet.
    pub coarse_clock: bool,
    /// Device programs can be attached by links (Linux 6.6); else by filters.
    pub tcx: bool,
}

/// Something that is needed and not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What.
    pub feature: &'static str,
    /// What would have it, such as a version of Linux or an option of the kernel's build.
    pub needs: String,
    /// What the system said when it was tried.
    pub said: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            feature,
            needs,
            said,
        } = self;
        write!(f, "no {feature} (needs {needs}; the system said: {said})")
    }
}

/// Tries whether the machine has all that is needed. A bpf file system is mounted at its usual
/// place if none is there; nothing else is left behind.
///
/// # Errors
/// Everything that is missing.
pub fn probe(paths: &Paths) -> Result<Features, Vec<Missing>> {
    let mut missing = Vec::new();
    let mut need = |feature, needs: &str, said: Result<(), String>| {
        if let Err(said) = said {
            missing.push(Missing {
                feature,
                needs: needs.to_owned(),
                said,
            });
        }
    };
    need(
        "bpf(2)",
        "Linux 5.10 with CONFIG_BPF_SYSCALL, and root or CAP_BPF",
        version(),
    );
    need(
        "cgroup2 directory",
        "a cgroup2 mount; --cgroup-root names a directory in it",
        is_on(&paths.cgroup_root, CGROUP2_SUPER_MAGIC),
    );
    need(
        "bpf file system",
        "`mount -t bpf bpf /sys/fs/bpf`, or --bpf-root in another one",
        bpf_file_system(&paths.bpf_root),
    );
    for (feature, needs, kind) in PROGRAMS {
        let tried = is_program_supported(kind).map_err(|error| error.to_string());
        need(feature, needs, there(tried));
    }
    for (feature, needs, kind) in MAPS {
        let tried = is_map_supported(kind).map_err(|error| error.to_string());
        need(feature, needs, there(tried));
    }
    for (feature, needs, helper) in HELPERS {
        let tried = is_helper_supported(ProgramType::CgroupSockAddr, helper);
        need(
            feature,
            needs,
            there(tried.map_err(|error| error.to_string())),
        );
    }
    if missing.is_empty() {
        Ok(features())
    } else {
        Err(missing)
    }
}

const PROGRAMS: [(&str, &str, ProgramType); 3] = [
    (
        "programs at sockets",
        "Linux 5.8 with CONFIG_CGROUP_BPF",
        ProgramType::CgroupSockAddr,
    ),
    (
        "programs at the closing of sockets",
        "Linux 5.9 with CONFIG_CGROUP_BPF",
        ProgramType::CgroupSock,
    ),
    (
        "programs at devices",
        "CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT",
        ProgramType::SchedClassifier,
    ),
];
const MAPS: [(&str, &str, MapType); 3] = [
    (
        "socket storage",
        "Linux 5.2 with CONFIG_DEBUG_INFO_BTF or CONFIG_BPF_SYSCALL's BTF",
        MapType::SkStorage,
    ),
    ("prefix tries", "Linux 4.11", MapType::LpmTrie),
    ("ring buffers", "Linux 5.8", MapType::RingBuf),
];
const HELPERS: [(&str, &str, BpfHelper); 2] = [
    (
        "cookies of network namespaces",
        "Linux 5.7",
        BpfHelper::BPF_FUNC_get_netns_cookie,
    ),
    (
        "socket storage at sockets' calls",
        "Linux 5.8",
        BpfHelper::BPF_FUNC_sk_storage_get,
    ),
];

fn there(tried: Result<bool, String>) -> Result<(), String> {
    match tried {
        Ok(true) => Ok(()),
        Ok(false) => Err("not supported".to_owned()),
        Err(said) => Err(said),
    }
}

/// What is not needed.
pub(super) fn features() -> Features {
    let set_retval =
        is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval);
    let coarse_clock = is_helper_supported(
        ProgramType::SchedClassifier,
        BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
    );
    Features {
        coarse_clock: coarse_clock.unwrap_or(false),
        set_retval: set_retval.unwrap_or(false),
        tcx: is_at_least(6, 6, 0),
    }
}

fn is_at_least(major: u8, minor: u8, patch: u16) -> bool {
    KernelVersion::current().is_ok_and(|current| current >= KernelVersion::new(major, minor, patch))
}

fn version() -> Result<(), String> {
    if is_at_least(5, 10, 0) {
        return Ok(());
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Err(format!("this is Linux {}", release.trim()))
}

fn is_on(path: &Path, kind: FsType) -> Result<(), String> {
    let found = statfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if found.filesystem_type() == kind {
        Ok(())
    } else {
        Err(format!(
            "{} is on another kind of file system",
            path.display()
        ))
    }
}

/// Whether `root` is, or can be made, in a bpf file system.
fn bpf_file_system(root: &Path) -> Result<(), String> {
    // The type's own number differs in width between architectures.
    let magic = |path: &Path| -> Result<bool, String> {
        let found = statfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let FsType(number) = found.filesystem_type();
        Ok(u64::try_from(number).is_ok_and(|number| number & 0xffff_ffff == BPF_FS))
    };
    let there = |root: &Path| {
        let existing = root.ancestors().find(|path| path.exists());
        magic(existing.unwrap_or(Path::new("/")))
    };
    if there(root)? {
        return Ok(());
    }
    if root.starts_with(BPF_MOUNT) && Path::new(BPF_MOUNT).is_dir() {
        let result: nix::Result<()> = mount(
            Some("bpf"),
            BPF_MOUNT,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=0700"),
        );
        result
            .map_err(|error| format!("mounting one at {BPF_MOUNT}: {}", io::Error::from(error)))?;
        if there(root)? {
            return Ok(());
        }
    }
    Err(format!(
        "{} is on another kind of file system",
        root.display()
    ))
}
