//! The stand-in API server, and changes made through it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use switchyard_tests::testbed::wait_for;

use super::cpus::{Cpus, Role};
use super::server::{Server, free_address};

/// It reads the manifests first.
const START_LIMIT: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(50);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// A longer answer is none of the stand-in's to a change.
const ANSWER_BYTES: usize = 1 << 20;

/// A stand-in API server by plain HTTP. Killed when dropped.
pub(super) struct ApiServer {
    server: Server,
}

impl ApiServer {
    /// Starts it with a folder of manifests, and waits until it answers.
    pub(super) fn start(cpus: Cpus, program: &Path, work: &Path, manifests: &Path) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .arg("--manifests")
            .arg(manifests)
            .args(["--listen", &address.to_string()]);
        let mut server = Server::start(
            cpus,
            Role::Load,
            "standin-apiserver",
            address,
            command,
            work,
        )?;
        wait_for("the stand-in API server", START_LIMIT, POLL_EVERY, || {
            server.check()?;
            Ok(TcpStream::connect_timeout(&address, HTTP_TIMEOUT).is_ok())
        })?;
        Ok(Self { server })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.server.address
    }
}

/// Writes a kubeconfig that leads to this address.
pub(super) fn write_kubeconfig(work: &Path, name: &str, server: SocketAddr) -> Result<PathBuf> {
    let path = work.join(name);
    fs::write(
        &path,
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: bench\n  cluster: {{server: \"http://{server}\"}}\n\
             users:\n- name: bench\n  user: {{}}\ncontexts:\n- name: bench\n  context: {{cluster: bench, user: bench}}\n\
             current-context: bench\n"
        ),
    )?;
    Ok(path)
}

/// A connection on which objects are changed, one after the other.
pub(super) struct Editor {
    stream: BufReader<TcpStream>,
    server: SocketAddr,
}

impl Editor {
    pub(super) fn connect(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, HTTP_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
        Ok(Self {
            stream: BufReader::new(stream),
            server,
        })
    }

    /// Sends an object, and reads the answer.
    ///
    /// # Errors
    /// The answer is not one of the 200s.
    pub(super) fn send(&mut self, method: &str, path: &str, object: &Value) -> Result<()> {
        let body = object.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.server,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                bail!("{method} {path}: the connection ended");
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().context("content-length")?;
            }
        }
        if length > ANSWER_BYTES {
            bail!("{method} {path}: an answer of {length} bytes");
        }
        self.stream.read_exact(&mut vec![0; length])?;
        if !status.contains(" 20") {
            bail!("{method} {path}: {}", status.trim());
        }
        Ok(())
    }
}
