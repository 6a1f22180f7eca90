//! What the machine must have and how it is set up.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use switchyard_cluster::object::IpFamily;

use super::error::{StartError, system};
use crate::backend::xtables::Tool;
use crate::backend::{Mode, ipvs};
use crate::plan::NodePortAddresses;
use crate::settings::{IpvsSettings, Settings};
use crate::sysctl;

/// The capability to change rules, as a bit of `CapEff` in `/proc/self/status`.
const CAP_NET_ADMIN_BIT: u32 = 12;

/// Fails early and clearly rather than at the first rule.
pub(super) fn check_privileges() -> Result<(), StartError> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|source| system("reading /proc/self/status", source))?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    if effective & (1 << CAP_NET_ADMIN_BIT) == 0 {
        return Err(StartError::NotPrivileged);
    }
    Ok(())
}

/// The relay for node ports on localhost takes a descriptor for each port; the soft limit is
/// often 1,024 for no better reason than `select()`. Before Linux 5.11 maps of eBPF count as locked
/// memory.
pub(super) fn raise_limits() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
    // Later kernels do without; earlier ones say so when a map can't be made.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// The tools of every family the node has. One family without is a warning.
pub(super) fn find_tools() -> Result<Vec<Tool>, StartError> {
    let mut tools = Vec::new();
    for family in IpFamily::BOTH {
        if family == IpFamily::V6 && !has_ipv6() {
            tracing::info!("this node has no IPv6: IPv4 only");
            continue;
        }
        match Tool::find(family) {
            Ok(tool) => {
                tracing::info!(%family, version = %tool.version, "found iptables");
                tools.push(tool);
            }
            Err(error) if family == IpFamily::V4 => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "IPv4 only"),
        }
    }
    Ok(tools)
}

/// The families the node has.
pub(super) fn families() -> Vec<IpFamily> {
    let has = |family: &IpFamily| *family == IpFamily::V4 || has_ipv6();
    IpFamily::BOTH.into_iter().filter(has).collect()
}

/// Where the machine has its cgroup2 file system.
pub(super) fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    first_cgroup2(&mounts)
}

/// Blanks, tabs, newlines and backslashes of a path are octal numbers there.
fn first_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| {
            let path = path.replace(r"\040", " ").replace(r"\011", "\t");
            PathBuf::from(path.replace(r"\012", "\n").replace(r"\134", r"\"))
        })
    })
}

fn has_ipv6() -> bool {
    let disabled = Path::new(sysctl::PROC_SYS).join("net/ipv6/conf/all/disable_ipv6");
    Path::new("/proc/net/if_inet6").exists()
        && std::fs::read_to_string(disabled).is_ok_and(|text| text.trim() != "1")
}

/// The kernel should kill others for memory first: the node's Services depend on this process.
pub(super) fn set_oom_score(adjustment: i64) {
    let set = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
    if let Err(error) = set {
        tracing::info!(%error, adjustment, "oom_score_adj can't be set");
    }
}

/// Sets the kernel's parameters for a mode. Rules alone can't do it all; programs can.
pub(super) fn set_up_kernel(settings: &Settings, mode: Mode) {
    if mode == Mode::Ebpf {
        return;
    }
    let proc_sys = Path::new(sysctl::PROC_SYS);
    let wanted = &settings.conntrack;
    let conntrack = sysctl::ConntrackSettings {
        max_per_core: wanted.max_per_core,
        min: wanted.min,
        tcp_established_timeout: wanted.tcp_established,
        tcp_close_wait_timeout: wanted.tcp_close_wait,
        tcp_be_liberal: wanted.tcp_be_liberal,
        udp_timeout: wanted.udp,
        udp_stream_timeout: wanted.udp_stream,
    };
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    // What could not be set is in the log, with what it means.
    let _ = sysctl::apply_conntrack(proc_sys, &conntrack, cpus);
    if mode == Mode::Ipvs {
        let _ = sysctl::apply_ipvs(proc_sys, settings.ipvs.strict_arp);
        set_ipvs_timeouts(&settings.ipvs);
    } else if mode == Mode::Iptables && localhost_node_ports(settings) {
        let _ = sysctl::apply_route_localnet(proc_sys);
    }
}

fn set_ipvs_timeouts(settings: &IpvsSettings) {
    let wanted = ipvs::Timeouts {
        tcp: settings.tcp_timeout,
        tcp_fin: settings.tcp_fin_timeout,
        udp: settings.udp_timeout,
    };
    if let Err(error) = ipvs::set_timeouts(&wanted) {
        tracing::warn!(%error, "the time-outs of IPVS stay as they are");
    }
}

/// Whether node ports are to answer at 127.0.0.1: not if the accepted addresses leave it out.
pub(super) fn localhost_node_ports(settings: &Settings) -> bool {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    settings.localhost_node_ports
        && match &settings.node_port_addresses {
            NodePortAddresses::Primary => false,
            accepted => accepted.accepts(loopback, &[]),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cgroup2_mount_is_found_whatever_its_name() {
        let mounts = "proc /proc proc rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/the\\040\\134one cgroup2 rw 0 0\n\
                      cgroup2 /other cgroup2 rw 0 0\n";
        let found = first_cgroup2(mounts);
        assert_eq!(found.as_deref(), Some(Path::new(r"/sys/fs/the \one")));
        assert_eq!(first_cgroup2("proc /proc proc rw 0 0\n\n"), None);
    }
}
