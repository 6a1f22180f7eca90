//! Upstream servers on loopback: Debian's unbound and dnsmasq with names of our own, and one that
//! does whatever a test says.

use std::collections::VecDeque;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use switchyard_tests::dns::{Client, Ports};
use switchyard_tests::testbed::{require_tools, wait_for};

const START_LIMIT: Duration = Duration::from_secs(10);

/// The names that both servers know, as unbound's `local-data` writes them.
const NAMES: [&str; 7] = [
    "www.upstream.test. 300 IN A 192.0.2.80",
    "www.upstream.test. 300 IN AAAA 2001:db8::80",
    "two.upstream.test. 60 IN A 192.0.2.1",
    "two.upstream.test. 60 IN A 192.0.2.2",
    "alias.upstream.test. 300 IN CNAME www.upstream.test.",
    "mx.upstream.test. 300 IN MX 10 www.upstream.test.",
    "srv.upstream.test. 300 IN SRV 1 2 3 www.upstream.test.",
];
/// Records of `big.upstream.test. TXT`, each of 200 octets: more than any datagram of ours.
const BIG_RECORDS: usize = 20;

/// A server process with a directory of its own. Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    command: Arc<dyn Fn() -> Command>,
    dir: tempfile::TempDir,
    /// Plain DNS.
    pub(crate) address: SocketAddr,
    /// DNS over TLS, where it speaks it.
    pub(crate) tls: SocketAddr,
}

impl Daemon {
    /// unbound, all of whose names are local, so that it asks nobody; also over TLS, as
    /// `dns.upstream.test`.
    pub(crate) fn unbound() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let ports = Ports::free()?;
        write_certificates(dir.path())?;
        let path = dir.path().join("unbound.conf");
        fs::write(&path, unbound_conf(dir.path(), ports))?;
        Self::start(dir, ports, move || {
            let mut command = Command::new("unbound");
            command.args(["-d", "-p", "-c"]).arg(&path);
            command
        })
    }

    /// dnsmasq without upstreams of its own.
    pub(crate) fn dnsmasq() -> Result<Self> {
        let ports = Ports::free()?;
        Self::start(tempfile::tempdir()?, ports, move || {
            let mut command = Command::new("dnsmasq");
            command.args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
                "--listen-address=127.0.0.1",
                "--user=root",
                "--pid-file",
                "--log-facility=-",
                "--local=/upstream.test/",
                "--local-ttl=300",
                "--host-record=www.upstream.test,192.0.2.80,2001:db8::80",
                "--mx-host=mx.upstream.test,www.upstream.test,10",
            ]);
            command.arg(format!("--port={}", ports.dns));
            command
        })
    }

    fn start(
        dir: tempfile::TempDir,
        ports: Ports,
        command: impl Fn() -> Command + 'static,
    ) -> Result<Self> {
        require_tools(&["unbound", "dnsmasq"])?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut daemon = Self {
            child: quiet(command(), dir.path())?,
            command: Arc::new(command),
            dir,
            address: at(ports.dns),
            tls: at(ports.dot),
        };
        daemon.wait_up()?;
        Ok(daemon)
    }

    fn wait_up(&mut self) -> Result<()> {
        let client = self.client().with_patience(Duration::from_millis(200));
        wait_for("an answer", START_LIMIT, Duration::from_millis(20), || {
            Ok(client.ask("www.upstream.test.", "A").is_ok())
        })
        .with_context(|| fs::read_to_string(self.dir.path().join("log")).unwrap_or_default())
    }

    /// Asks it directly.
    pub(crate) const fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The file with the authority of its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.child = quiet((self.command)(), self.dir.path())?;
        self.wait_up()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already ended is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn quiet(mut command: Command, dir: &Path) -> Result<Child> {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command
        .spawn()
        .with_context(|| format!("start {command:?}"))
}

fn unbound_conf(dir: &Path, ports: Ports) -> String {
    let dir = dir.display();
    let data: String = NAMES
        .iter()
        .map(|name| format!("  local-data: \"{name}\"\n"))
        .collect();
    let big: String = (0..BIG_RECORDS)
        .map(|at| {
            let text = format!("{at:04}").repeat(50);
            format!("  local-data: 'big.upstream.test. 300 IN TXT \"{text}\"'\n")
        })
        .collect();
    format!(
        "server:\n  interface: 127.0.0.1@{}\n  interface: 127.0.0.1@{}\n  tls-port: {}\n  \
         tls-service-key: {dir}/server.key\n  tls-service-pem: {dir}/server.pem\n  \
         do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{dir}\"\n  pidfile: \"\"\n  \
         use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  module-config: \"iterator\"\n  \
         access-control: 127.0.0.0/8 allow\n  local-zone: \".\" static\n{data}{big}remote-control:\n  control-enable: no\n",
        ports.dns, ports.dot, ports.dot
    )
}

fn write_certificates(dir: &Path) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(dir.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["dns.upstream.test".to_owned()])?;
    fs::write(
        dir.join("server.pem"),
        params.signed_by(&key, &issuer)?.pem(),
    )?;
    fs::write(dir.join("server.key"), key.serialize_pem())?;
    Ok(())
}

/// A UDP server that sends, for each query, the messages that a function makes of it and of its
/// number, from 1.
pub(crate) struct Odd {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Odd {
    pub(crate) fn start(
        answer: impl Fn(&[u8], usize) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Result<Self> {
        Self::start_delayed(Duration::ZERO, answer)
    }

    /// One that answers rightly, each query after this time.
    pub(crate) fn slow(delay: Duration) -> Result<Self> {
        Self::start_delayed(delay, |query, _| vec![reply_to(query, 9)])
    }

    fn start_delayed(
        delay: Duration,
        answer: impl Fn(&[u8], usize) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        let asked = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (count, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut held = VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                    let due = Instant::now() + delay;
                    held.push_back((due, from, answer(&buffer[..length], number)));
                }
                while let Some((_, from, messages)) =
                    held.pop_front_if(|(due, _, _)| *due <= Instant::now())
                {
                    for message in messages {
                        // A client that has gone is no concern of a test.
                        drop(socket.send_to(&message, from));
                    }
                }
            }
        });
        Ok(Self {
            address,
            asked,
            is_over,
            thread: Some(thread),
        })
    }

    pub(crate) fn silent() -> Result<Self> {
        Self::start(|_, _| Vec::new())
    }

    /// How many queries came.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A right reply to `query` with one A record, 192.0.2.`last`.
pub(crate) fn reply_to(query: &[u8], last: u8) -> Vec<u8> {
    let mut end = 12;
    while query[end] != 0 {
        end += usize::from(query[end]) + 1;
    }
    let mut reply = query[..end + 5].to_vec();
    reply[2] |= 0x80;
    reply[3] = 0x80;
    reply[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    reply
}
