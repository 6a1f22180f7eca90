//! Debian's servers, configured to be as fast as they are and to need nothing of the machine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::cpus::{Cpus, Role};
use super::server::{Server, free_address};

/// A zone and its file.
pub(super) struct ZoneFile {
    pub(super) zone: &'static str,
    pub(super) path: PathBuf,
}

/// Where administrators' programs live, whether or not `PATH` says so.
fn program(name: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.is_file() { sbin } else { name.into() }
}

/// A directory of a server's own.
fn own_dir(work: &Path, name: &str) -> Result<PathBuf> {
    let dir = work.join(name);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// nsd: one server process, answers without authority and additional sections.
pub(super) fn nsd(
    cpus: Cpus,
    role: Role,
    name: &'static str,
    work: &Path,
    zones: &[ZoneFile],
) -> Result<Server> {
    let dir = own_dir(work, name)?;
    let address = free_address()?;
    let mut config = format!(
        "server:\n server-count: 1\n ip-address: {}@{}\n username: \"\"\n database: \"\"\n\
         \x20zonesdir: \"{dir}\"\n pidfile: \"{dir}/pid\"\n xfrdfile: \"{dir}/xfrd\"\n\
         \x20xfrdir: \"{dir}\"\n zonelistfile: \"{dir}/zones\"\n\
         \x20rrl-ratelimit: 0\n rrl-whitelist-ratelimit: 0\n minimal-responses: yes\n\
         remote-control:\n control-enable: no\n",
        address.ip(),
        address.port(),
        dir = dir.display(),
    );
    for zone in zones {
        config += &format!(
            "zone:\n name: \"{}\"\n zonefile: \"{}\"\n",
            zone.zone,
            zone.path.display()
        );
    }
    let file = dir.join("nsd.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(program("nsd"));
    command.arg("-d").arg("-c").arg(file);
    Server::start(cpus, role, name, address, command, &dir)
}

/// Knot: one UDP worker.
pub(super) fn knot(cpus: Cpus, work: &Path, zones: &[ZoneFile]) -> Result<Server> {
    let dir = own_dir(work, "knot")?;
    let address = free_address()?;
    let mut config = format!(
        "server:\n  rundir: \"{dir}\"\n  listen: {}@{}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         log:\n  - target: stderr\n    any: warning\n\
         database:\n  storage: \"{dir}\"\n\
         template:\n  - id: default\n    semantic-checks: off\n    zonefile-sync: -1\n    journal-content: none\n\
         zone:\n",
        address.ip(),
        address.port(),
        dir = dir.display(),
    );
    for zone in zones {
        config += &format!(
            "  - domain: \"{}\"\n    file: \"{}\"\n",
            zone.zone,
            zone.path.display()
        );
    }
    let file = dir.join("knot.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(program("knotd"));
    command.arg("-c").arg(file);
    Server::start(cpus, Role::Server, "knot", address, command, &dir)
}

/// unbound: one thread, no validation, everything forwarded to `upstream`.
pub(super) fn unbound(cpus: Cpus, work: &Path, upstream: SocketAddr) -> Result<Server> {
    let dir = own_dir(work, "unbound")?;
    let address = free_address()?;
    let config = format!(
        "server:\n directory: \"{dir}\"\n chroot: \"\"\n username: \"\"\n pidfile: \"{dir}/pid\"\n\
         \x20use-syslog: no\n do-daemonize: no\n num-threads: 1\n interface: {}@{}\n\
         \x20access-control: 127.0.0.0/8 allow\n do-ip6: no\n module-config: \"iterator\"\n\
         \x20do-not-query-localhost: no\n msg-cache-size: 16m\n rrset-cache-size: 32m\n\
         \x20outgoing-range: 512\n\
         remote-control:\n control-enable: no\n\
         forward-zone:\n name: \".\"\n forward-addr: {}@{}\n",
        address.ip(),
        address.port(),
        upstream.ip(),
        upstream.port(),
        dir = dir.display(),
    );
    let file = dir.join("unbound.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(program("unbound"));
    command.arg("-d").arg("-c").arg(file);
    Server::start(cpus, Role::Server, "unbound", address, command, &dir)
}

/// dnsmasq: everything forwarded to `upstream`.
pub(super) fn dnsmasq(cpus: Cpus, work: &Path, upstream: SocketAddr) -> Result<Server> {
    let dir = own_dir(work, "dnsmasq")?;
    let address = free_address()?;
    let mut command = Command::new(program("dnsmasq"));
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--cache-size=10000",
            "--dns-forward-max=1000",
            "--user=root",
            "--pid-file",
            "--log-facility=-",
        ])
        .arg(format!("--listen-address={}", address.ip()))
        .arg(format!("--port={}", address.port()))
        .arg(format!("--server={}#{}", upstream.ip(), upstream.port()));
    Server::start(cpus, Role::Server, "dnsmasq", address, command, &dir)
}
