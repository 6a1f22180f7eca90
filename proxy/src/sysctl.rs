//! Kernel settings a service proxy makes: the size and time-outs of connection tracking, and
//! `route_localnet`.
//!
//! A setting is written only where it differs. One that cannot be made (a read-only /proc, a
//! kernel without the file, a network namespace in which it is not ours to set) is a warning
//! that says what does not work then; the agent goes on.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

/// Where the settings are on a running system.
pub const PROC_SYS: &str = "/proc/sys";

/// Upper bound of `nf_conntrack_max` however many CPUs there are.
pub const CONNTRACK_ENTRIES_MAX: u64 = 1_048_576;
/// Entries a hash bucket is meant to hold.
const ENTRIES_PER_BUCKET: u64 = 4;

/// What connection tracking is to be like (`conntrack.*` of the configuration).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// Table entries for each CPU; 0 leaves the table's size as it is.
    pub max_per_core: u32,
    /// Table entries at least.
    pub min: u32,
    /// Idle time-out of established TCP connections; zero leaves it as it is.
    pub tcp_established_timeout: Duration,
    /// Time-out of TCP connections in CLOSE_WAIT; zero leaves it as it is.
    pub tcp_close_wait_timeout: Duration,
    /// Accept TCP packets outside the window instead of calling them invalid; false leaves it
    /// as it is.
    pub tcp_be_liberal: bool,
    /// Idle time-out of UDP flows that saw one direction; zero leaves it as it is.
    pub udp_timeout: Duration,
    /// Idle time-out of UDP flows that saw both; zero leaves it as it is.
    pub udp_stream_timeout: Duration,
}

impl ConntrackSettings {
    /// What `nf_conntrack_max` should be, `None` to leave it.
    #[must_use]
    pub fn max_entries(&self, cpus: usize) -> Option<u64> {
        if self.max_per_core == 0 {
            return None;
        }
        let cpus = u64::try_from(cpus).unwrap_or(u64::MAX);
        let entries = u64::from(self.max_per_core)
            .saturating_mul(cpus)
            .max(self.min.into());
        Some(entries.min(CONNTRACK_ENTRIES_MAX))
    }
}

/// A setting that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {} to {wanted}: {source}; {consequence}", path.display())]
pub struct SysctlError {
    /// The file.
    pub path: PathBuf,
    /// What was to be written.
    pub wanted: String,
    /// What does not work then.
    pub consequence: &'static str,
    /// The system's answer.
    pub source: io::Error,
}

/// Sets up connection tracking. `proc_sys` is normally [`PROC_SYS`]. Returns what could not
/// be set, already logged.
#[must_use]
pub fn apply_conntrack(
    proc_sys: &Path,
    settings: &ConntrackSettings,
    cpus: usize,
) -> Vec<SysctlError> {
    let mut failed = Vec::new();
    if let Some(max) = settings.max_entries(cpus) {
        failed.extend(ensure(proc_sys, &NF_CONNTRACK_MAX, max).err());
        failed.extend(raise(proc_sys, &NF_CONNTRACK_BUCKETS, max / ENTRIES_PER_BUCKET).err());
    }
    let liberal = u64::from(settings.tcp_be_liberal);
    let rest = [
        (
            &TCP_TIMEOUT_ESTABLISHED,
            whole_seconds(settings.tcp_established_timeout),
        ),
        (
            &TCP_TIMEOUT_CLOSE_WAIT,
            whole_seconds(settings.tcp_close_wait_timeout),
        ),
        (&TCP_BE_LIBERAL, liberal),
        (&UDP_TIMEOUT, whole_seconds(settings.udp_timeout)),
        (
            &UDP_TIMEOUT_STREAM,
            whole_seconds(settings.udp_stream_timeout),
        ),
    ];
    for (setting, value) in rest {
        if value > 0 {
            failed.extend(ensure(proc_sys, setting, value).err());
        }
    }
    log(&failed);
    failed
}

/// Lets the kernel route packets from 127.0.0.0/8 that were translated to an endpoint, which
/// IPv4 node ports at 127.0.0.1 need. Returns what could not be set, already logged.
#[must_use]
pub fn apply_route_localnet(proc_sys: &Path) -> Option<SysctlError> {
    let failed = ensure(proc_sys, &ROUTE_LOCALNET, 1).err();
    log(failed.as_slice());
    failed
}

/// What IPVS needs to work together with the rules: connections it makes are known to connection
/// tracking, those of endpoints that are gone end, clients that were to stay with one that
/// drains are sent elsewhere, and packets are forwarded. Returns what could not be set, already
/// logged.
///
/// (`conn_reuse_mode` stays: what was wrong with its default is mended since Linux 5.9.)
#[must_use]
pub fn apply_ipvs(proc_sys: &Path, strict_arp: bool) -> Vec<SysctlError> {
    let mut wanted = vec![
        (&VS_CONNTRACK, 1),
        (&VS_EXPIRE_NODEST_CONN, 1),
        (&VS_EXPIRE_QUIESCENT_TEMPLATE, 1),
        (&IP_FORWARD, 1),
    ];
    if strict_arp {
        wanted.extend([(&ARP_IGNORE, 1), (&ARP_ANNOUNCE, 2)]);
    }
    let failed: Vec<_> = wanted
        .into_iter()
        .filter_map(|(setting, value)| ensure(proc_sys, setting, value).err())
        .collect();
    log(&failed);
    failed
}

/// Whether packets outside the TCP window are called invalid (`nf_conntrack_tcp_be_liberal`
/// is 0): only then dropping invalid packets is right. A file that cannot be read counts as 0,
/// the kernel's default.
#[must_use]
pub fn tcp_is_strict(proc_sys: &Path) -> bool {
    std::fs::read_to_string(proc_sys.join(TCP_BE_LIBERAL.file))
        .map_or(true, |text| text.trim() == "0")
}

struct Setting {
    file: &'static str,
    consequence: &'static str,
}

const NF_CONNTRACK_MAX: Setting = Setting {
    file: "net/netfilter/nf_conntrack_max",
    consequence: "new connections fail once the table as it is now is full",
};
const NF_CONNTRACK_BUCKETS: Setting = Setting {
    file: "net/netfilter/nf_conntrack_buckets",
    consequence: "with many connections each packet takes longer to look up",
};
const TCP_TIMEOUT_ESTABLISHED: Setting = Setting {
    file: "net/netfilter/nf_conntrack_tcp_timeout_established",
    consequence: "idle TCP connections are forgotten after the present time-out",
};
const TCP_TIMEOUT_CLOSE_WAIT: Setting = Setting {
    file: "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    consequence: "half-closed TCP connections are forgotten after the present time-out",
};
const TCP_BE_LIBERAL: Setting = Setting {
    file: "net/netfilter/nf_conntrack_tcp_be_liberal",
    consequence: "TCP packets outside the window are still taken for invalid",
};
const UDP_TIMEOUT: Setting = Setting {
    file: "net/netfilter/nf_conntrack_udp_timeout",
    consequence: "unanswered UDP flows are forgotten after the present time-out",
};
const UDP_TIMEOUT_STREAM: Setting = Setting {
    file: "net/netfilter/nf_conntrack_udp_timeout_stream",
    consequence: "idle UDP flows are forgotten after the present time-out",
};
const ROUTE_LOCALNET: Setting = Setting {
    file: "net/ipv4/conf/all/route_localnet",
    consequence: "node ports do not answer at 127.0.0.1",
};

const VS_CONNTRACK: Setting = Setting {
    file: "net/ipv4/vs/conntrack",
    consequence: "traffic to Services is not masqueraded",
};
const VS_EXPIRE_NODEST_CONN: Setting = Setting {
    file: "net/ipv4/vs/expire_nodest_conn",
    consequence: "connections to endpoints that are gone get no answer until they time out",
};
const VS_EXPIRE_QUIESCENT_TEMPLATE: Setting = Setting {
    file: "net/ipv4/vs/expire_quiescent_template",
    consequence: "clients with affinity go on to endpoints that are about to end",
};
const IP_FORWARD: Setting = Setting {
    file: "net/ipv4/ip_forward",
    consequence: "nothing reaches an endpoint on another machine, or in a pod",
};
const ARP_IGNORE: Setting = Setting {
    file: "net/ipv4/conf/all/arp_ignore",
    consequence: "ARP is answered for VIPs on every interface",
};
const ARP_ANNOUNCE: Setting = Setting {
    file: "net/ipv4/conf/all/arp_announce",
    consequence: "ARP requests may carry VIPs as source",
};

/// The kernel counts in whole seconds; less than one still means "set it".
fn whole_seconds(duration: Duration) -> u64 {
    if duration.is_zero() {
        0
    } else {
        duration.as_secs().max(1)
    }
}

/// Sets a file to a value unless it has it.
fn ensure(proc_sys: &Path, setting: &Setting, wanted: u64) -> Result<(), SysctlError> {
    change(proc_sys, setting, wanted, |present| present != wanted)
}

/// Sets a file to a value unless it has that or more.
fn raise(proc_sys: &Path, setting: &Setting, wanted: u64) -> Result<(), SysctlError> {
    change(proc_sys, setting, wanted, |present| present < wanted)
}

fn change(
    proc_sys: &Path,
    setting: &Setting,
    wanted: u64,
    is_needed: impl FnOnce(u64) -> bool,
) -> Result<(), SysctlError> {
    let path = proc_sys.join(setting.file);
    let outcome = read_number(&path).and_then(|present| {
        if is_needed(present) {
            std::fs::write(&path, wanted.to_string())?;
            info!(file = %path.display(), from = present, to = wanted, "kernel setting changed");
        }
        Ok(())
    });
    outcome.map_err(|source| SysctlError {
        path,
        wanted: wanted.to_string(),
        consequence: setting.consequence,
        source,
    })
}

fn read_number(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it holds {:?} where a number is expected", text.trim()),
        )
    })
}

fn log(failed: &[SysctlError]) {
    for error in failed {
        warn!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SETTINGS: ConntrackSettings = ConntrackSettings {
        max_per_core: 32_768,
        min: 131_072,
        tcp_established_timeout: Duration::from_hours(24),
        tcp_close_wait_timeout: Duration::from_hours(1),
        tcp_be_liberal: false,
        udp_timeout: Duration::ZERO,
        udp_stream_timeout: Duration::ZERO,
    };

    fn proc_sys(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn all_files() -> tempfile::TempDir {
        proc_sys(&[
            (NF_CONNTRACK_MAX.file, "65536\n"),
            (NF_CONNTRACK_BUCKETS.file, "16384\n"),
            (TCP_TIMEOUT_ESTABLISHED.file, "432000\n"),
            (TCP_TIMEOUT_CLOSE_WAIT.file, "3600\n"),
            (TCP_BE_LIBERAL.file, "0\n"),
            (UDP_TIMEOUT.file, "30\n"),
            (UDP_TIMEOUT_STREAM.file, "120\n"),
            (ROUTE_LOCALNET.file, "0\n"),
        ])
    }

    fn read(root: &tempfile::TempDir, setting: &Setting) -> String {
        fs::read_to_string(root.path().join(setting.file)).unwrap()
    }

    #[test]
    fn the_table_grows_with_the_cpus_between_its_bounds() {
        assert_eq!(SETTINGS.max_entries(1), Some(131_072));
        assert_eq!(SETTINGS.max_entries(8), Some(262_144));
        assert_eq!(SETTINGS.max_entries(64), Some(CONNTRACK_ENTRIES_MAX));
        assert_eq!(
            SETTINGS.max_entries(usize::MAX),
            Some(CONNTRACK_ENTRIES_MAX)
        );
        let kept = ConntrackSettings {
            max_per_core: 0,
            ..SETTINGS
        };
        assert_eq!(kept.max_entries(8), None);
    }

    #[test]
    fn writes_what_differs_and_only_that() {
        let root = all_files();
        assert!(apply_conntrack(root.path(), &SETTINGS, 8).is_empty());
        assert_eq!(read(&root, &NF_CONNTRACK_MAX), "262144");
        assert_eq!(read(&root, &NF_CONNTRACK_BUCKETS), "65536");
        assert_eq!(read(&root, &TCP_TIMEOUT_ESTABLISHED), "86400");
        // Untouched files keep their line end.
        assert_eq!(read(&root, &TCP_TIMEOUT_CLOSE_WAIT), "3600\n");
        assert_eq!(read(&root, &TCP_BE_LIBERAL), "0\n");
        assert_eq!(read(&root, &UDP_TIMEOUT), "30\n");
        assert_eq!(read(&root, &UDP_TIMEOUT_STREAM), "120\n");
    }

    #[test]
    fn buckets_are_raised_but_never_lowered() {
        let root = all_files();
        fs::write(root.path().join(NF_CONNTRACK_BUCKETS.file), "1048576\n").unwrap();
        assert!(apply_conntrack(root.path(), &SETTINGS, 8).is_empty());
        assert_eq!(read(&root, &NF_CONNTRACK_BUCKETS), "1048576\n");
    }

    #[test]
    fn optional_settings_are_made_when_asked_for() {
        let root = all_files();
        let settings = ConntrackSettings {
            max_per_core: 0,
            tcp_established_timeout: Duration::ZERO,
            tcp_be_liberal: true,
            udp_timeout: Duration::from_millis(10),
            udp_stream_timeout: Duration::from_mins(5),
            ..SETTINGS
        };
        assert!(tcp_is_strict(root.path()));
        assert!(apply_conntrack(root.path(), &settings, 8).is_empty());
        assert!(!tcp_is_strict(root.path()));
        assert_eq!(read(&root, &NF_CONNTRACK_MAX), "65536\n");
        assert_eq!(read(&root, &TCP_TIMEOUT_ESTABLISHED), "432000\n");
        assert_eq!(read(&root, &TCP_BE_LIBERAL), "1");
        assert_eq!(read(&root, &UDP_TIMEOUT), "1");
        assert_eq!(read(&root, &UDP_TIMEOUT_STREAM), "300");
    }

    #[test]
    fn what_cannot_be_set_is_named_with_its_consequence_and_the_rest_is_set() {
        let root = all_files();
        let missing = root.path().join(NF_CONNTRACK_MAX.file);
        fs::remove_file(&missing).unwrap();
        fs::write(root.path().join(TCP_TIMEOUT_ESTABLISHED.file), "often\n").unwrap();
        let failed = apply_conntrack(root.path(), &SETTINGS, 8);
        let texts: Vec<_> = failed.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with(&format!("cannot set {} to 262144: ", missing.display())));
        assert!(texts[0].ends_with("new connections fail once the table as it is now is full"));
        assert!(
            texts[1].contains("it holds \"often\" where a number is expected"),
            "{}",
            texts[1]
        );
        assert_eq!(read(&root, &NF_CONNTRACK_BUCKETS), "65536");
    }

    #[test]
    fn ipvs_gets_what_it_needs_and_arp_is_touched_only_where_asked_for() {
        let files = [
            (VS_CONNTRACK.file, "0\n"),
            (VS_EXPIRE_NODEST_CONN.file, "0\n"),
            (VS_EXPIRE_QUIESCENT_TEMPLATE.file, "0\n"),
            (IP_FORWARD.file, "1\n"),
            (ARP_IGNORE.file, "0\n"),
            (ARP_ANNOUNCE.file, "0\n"),
        ];
        let root = proc_sys(&files);
        assert!(apply_ipvs(root.path(), false).is_empty());
        assert_eq!(read(&root, &VS_CONNTRACK), "1");
        assert_eq!(read(&root, &VS_EXPIRE_NODEST_CONN), "1");
        assert_eq!(read(&root, &VS_EXPIRE_QUIESCENT_TEMPLATE), "1");
        assert_eq!(read(&root, &IP_FORWARD), "1\n");
        assert_eq!(read(&root, &ARP_IGNORE), "0\n");
        assert!(apply_ipvs(root.path(), true).is_empty());
        assert_eq!(read(&root, &ARP_IGNORE), "1");
        assert_eq!(read(&root, &ARP_ANNOUNCE), "2");
    }

    #[test]
    fn route_localnet_is_switched_on() {
        let root = all_files();
        assert!(apply_route_localnet(root.path()).is_none());
        assert_eq!(read(&root, &ROUTE_LOCALNET), "1");
        fs::remove_file(root.path().join(ROUTE_LOCALNET.file)).unwrap();
        let error = apply_route_localnet(root.path()).unwrap();
        assert!(error.to_string().contains("127.0.0.1"));
    }
}
