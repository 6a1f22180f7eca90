//! Servers that read a Corefile and follow an API server: ours, and CoreDNS where it is given.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::cpus::{Cpus, Role};
use super::server::{Server, free_address};

const HTTP_TIMEOUT: Duration = Duration::from_secs(2);

/// A program that takes CoreDNS' flags.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it is called in tables.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

/// What its Corefile names.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) kubeconfig: &'a Path,
    /// Who knows the names outside.
    pub(super) outside: SocketAddr,
    /// Who never answers, for names under [`SILENT_ZONE`].
    pub(super) silent: Option<SocketAddr>,
}

/// Names under it go to an upstream that says nothing.
pub(super) const SILENT_ZONE: &str = "silent.example";

/// A program that runs, and where it says that it is ready.
pub(super) struct Subject {
    pub(super) server: Server,
    ready: SocketAddr,
}

impl Subject {
    /// Starts it with a Corefile like kubeadm's.
    pub(super) fn start(
        cpus: Cpus,
        program: &Program,
        work: &Path,
        sources: Sources<'_>,
    ) -> Result<Self> {
        let dir = work.join(program.name);
        fs::create_dir_all(&dir)?;
        let address = free_address()?;
        let ready = free_address()?;
        let file = dir.join("Corefile");
        fs::write(&file, corefile(address, ready, sources)?)?;
        let mut command = Command::new(&program.path);
        command.arg("-conf").arg(&file);
        let server = Server::start(cpus, Role::Server, program.name, address, command, &dir)?;
        Ok(Self { server, ready })
    }

    /// Whether it says that it is ready.
    pub(super) fn is_ready(&self) -> bool {
        get(self.ready, "/ready").is_ok_and(|answer| answer.contains(" 200 "))
    }
}

/// kubeadm's Corefile, on ports of our own, with an API server and upstreams of our own.
fn corefile(address: SocketAddr, ready: SocketAddr, sources: Sources<'_>) -> Result<String> {
    let (health, metrics) = (free_address()?, free_address()?);
    let (ip, port) = (address.ip(), address.port());
    let mut text = format!(
        ".:{port} {{
    bind {ip}
    errors
    health {health} {{
       lameduck 5s
    }}
    ready {ready}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
       kubeconfig {kubeconfig}
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus {metrics}
    forward . {outside} {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success cluster.local
       disable denial cluster.local
    }}
    loop
    reload
    loadbalance
}}
",
        kubeconfig = sources.kubeconfig.display(),
        outside = sources.outside,
    );
    if let Some(silent) = sources.silent {
        text += &format!(
            "{SILENT_ZONE}:{port} {{
    bind {ip}
    errors
    forward . {silent} {{
       max_concurrent 1000
    }}
    cache 30
}}
"
        );
    }
    Ok(text)
}

/// The whole answer to a GET, status line first.
fn get(server: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
