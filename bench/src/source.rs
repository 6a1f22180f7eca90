//! Where a subject reads the cluster.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use switchyard_tests::testbed::{Place, Testbed, wait_for};

use crate::cluster::{
    PROBE_PATH, Side, Size, change_manifest, probe_slice, write_manifests, write_objects,
};

/// Where the stand-in API server listens, in node1's namespace.
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 6443);
/// It reads the manifests first.
const SERVER_START_LIMIT: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(50);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// A source of one cluster, which can be changed.
pub trait Source {
    /// The flags that make a subject read it.
    fn flags(&self) -> Vec<String>;
    /// Gives the probed Service the endpoint of this side.
    ///
    /// # Errors
    /// It can't be changed.
    fn change(&self, bed: &Testbed, side: Side) -> Result<()>;
}

/// A directory of manifests, which only Switchyard reads.
pub struct Manifests(PathBuf);

impl Manifests {
    /// Lays the cluster down in the testbed's own directory.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(bed: &Testbed, size: Size) -> Result<Self> {
        let dir = directory(bed);
        write_manifests(&dir, size, Side::Here)?;
        Ok(Self(dir))
    }

    /// The same of objects that are given, and the probed Service's slice.
    pub(crate) fn of(bed: &Testbed, objects: &[Value]) -> Result<Self> {
        let dir = directory(bed);
        write_objects(&dir, objects, Side::Here)?;
        Ok(Self(dir))
    }
}

impl Source for Manifests {
    fn flags(&self) -> Vec<String> {
        vec![format!("--manifests={}", self.0.display())]
    }

    fn change(&self, _bed: &Testbed, side: Side) -> Result<()> {
        change_manifest(&self.0, side)
    }
}

fn directory(bed: &Testbed) -> PathBuf {
    bed.work_dir().join("manifests")
}

/// A stand-in API server in node1's namespace, by plain HTTP. Killed when dropped.
pub struct ApiServer {
    child: Child,
    kubeconfig: PathBuf,
}

impl ApiServer {
    /// Starts the program with a cluster, and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(bed: &Testbed, program: &Path, size: Size) -> Result<Self> {
        Self::serve(bed, program, &Manifests::write(bed, size)?)
    }

    /// Starts the program with what was laid down.
    pub(crate) fn serve(bed: &Testbed, program: &Path, manifests: &Manifests) -> Result<Self> {
        let server = SocketAddr::from(SERVER);
        let kubeconfig = bed.work_dir().join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_of(server))?;
        let log = File::create(bed.work_dir().join("standin-apiserver.log"))?;
        let mut command = Command::new(program);
        command
            .arg("--manifests")
            .arg(&manifests.0)
            .args(["--listen", &server.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = bed
            .in_place(Place::Node1, move || command.spawn())?
            .with_context(|| format!("start {}", program.display()))?;
        let server = Self { child, kubeconfig };
        wait_for(
            "the stand-in API server",
            SERVER_START_LIMIT,
            POLL_EVERY,
            || {
                Ok(bed
                    .http_get(
                        Place::Node1,
                        SocketAddr::from(SERVER),
                        "/api/v1/nodes?limit=1",
                    )
                    .is_ok_and(|answer| answer.status == 200))
            },
        )?;
        Ok(server)
    }
}

impl Source for ApiServer {
    fn flags(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfig.display()),
            // The stand-in speaks no protobuf.
            "--kube-api-content-type=application/json".to_owned(),
        ]
    }

    fn change(&self, bed: &Testbed, side: Side) -> Result<()> {
        let body = probe_slice(side).to_string();
        bed.in_place(Place::Node1, move || put(PROBE_PATH, &body))?
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn put(path: &str, body: &str) -> Result<()> {
    let server = SocketAddr::from(SERVER);
    let mut stream = TcpStream::connect_timeout(&server, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("PUT {path}: {status}");
    }
    Ok(())
}

fn kubeconfig_of(server: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: bench\n  cluster: {{server: \"http://{server}\"}}\n\
         users:\n- name: bench\n  user: {{}}\ncontexts:\n- name: bench\n  context: {{cluster: bench, user: bench}}\n\
         current-context: bench\n"
    )
}
