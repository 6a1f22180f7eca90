//! The life of the process, seen from outside: start, reload, stop, and what it says when
//! it can't.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here should take, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

/// An ANY query, which the plugin `any` answers.
const QUERY: &[u8] = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\xFF\x00\x01";

struct Server {
    child: Child,
    dir: tempfile::TempDir,
    dns: SocketAddr,
    http: SocketAddr,
}

/// A port that is free for both UDP and TCP.
fn free() -> SocketAddr {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn command(dir: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchyard-dns"));
    command.arg("-conf").arg(dir.path().join("Corefile"));
    command
}

impl Server {
    fn start(lameduck: &str) -> Self {
        let (dir, dns, http) = (tempfile::tempdir().unwrap(), free(), free());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let errors = log.try_clone().unwrap();
        let corefile = format!(
            ".:{} {{\nbind 127.0.0.1\nany\nhealth {http} {{\nlameduck {lameduck}\n}}\n\
             ready {http}\nprometheus {http}\n}}\n",
            dns.port()
        );
        std::fs::write(dir.path().join("Corefile"), corefile).unwrap();
        let mut command = command(&dir);
        command.stdout(log).stderr(errors).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let server = Self {
            child,
            dir,
            dns,
            http,
        };
        server.wait_for("an answer", || server.answers());
        server
    }

    fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "no {what}; the log: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn answers(&self) -> bool {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        socket.connect(self.dns).unwrap();
        let _refused = socket.send(QUERY);
        socket.recv(&mut [0; 512]).is_ok()
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        Some(reply)
    }

    fn status(&self, path: &str) -> Option<String> {
        self.get(path)?.split(' ').nth(1).map(str::to_owned)
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    fn change(&self, from: &str, to: &str) {
        let path = self.dir.path().join("Corefile");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    fn end(mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < end,
                "it does not end; the log: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn while_it_stops_dns_goes_on_and_probes_are_told() {
    let server = Server::start("2s");
    assert_eq!(server.status("/ready").as_deref(), Some("200"));
    server.signal(Signal::SIGHUP);
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    server.wait_for("503 of /ready", || {
        server.status("/ready").as_deref() == Some("503")
    });
    assert!(
        server
            .get("/ready")
            .unwrap()
            .ends_with("\r\n\r\nShutting down")
    );
    assert_eq!(server.status("/health").as_deref(), Some("200"));
    assert!(server.answers());
    assert_eq!(server.end(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_second_sigint_ends_at_once_with_status_2_and_sigquit_with_0() {
    let server = Server::start("1h");
    server.signal(Signal::SIGINT);
    server.wait_for("503 of /ready", || {
        server.status("/ready").as_deref() == Some("503")
    });
    server.signal(Signal::SIGINT);
    assert_eq!(server.end(), Some(2));
    let server = Server::start("1h");
    server.signal(Signal::SIGQUIT);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_reload_loses_no_query_and_a_bad_one_changes_nothing() {
    let server = Server::start("1s");
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (stop, dns) = (Arc::clone(&stop), server.dns);
            std::thread::spawn(move || {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                socket.connect(dns).unwrap();
                let mut answered = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    socket.send(QUERY).unwrap();
                    socket.recv(&mut [0; 512]).unwrap();
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let reloads = |server: &Server, text: &str| server.log().matches(text).count();
    let wants = ["any\n", "any\ndebug\n"];
    for round in 0..10 {
        server.change(wants[round % 2], wants[(round + 1) % 2]);
        server.signal(Signal::SIGUSR1);
        server.wait_for("reload", || {
            reloads(&server, "[INFO] Reloading complete") == round + 1
        });
        assert_eq!(server.status("/health").as_deref(), Some("200"));
    }
    server.change("any\n", "many\n");
    server.signal(Signal::SIGUSR1);
    server.wait_for("error", || reloads(&server, "reload failed") == 1);
    assert!(server.log().contains("Corefile:3: unknown plugin `many`"));
    stop.store(true, Ordering::Relaxed);
    for thread in asking {
        assert!(thread.join().expect("no query was lost") > 0);
    }
    assert!(server.answers());
    let metrics = server.get("/metrics").unwrap();
    assert!(metrics.contains("\ncoredns_reload_failed_total 1\n"));
    // One endpoint per address all the time: what is counted goes on.
    assert!(metrics.contains("coredns_dns_responses_total{plugin=\"any\",rcode=\"NOERROR\""));
}

fn fails(corefile: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Corefile"), corefile).unwrap();
    command(&dir).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_port_that_is_taken_is_named_and_the_status_is_1() {
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = held.local_addr().unwrap();
    let output = fails(&format!(".:{} {{\nbind 127.0.0.1\nany\n}}\n", taken.port()));
    let text = String::from_utf8_lossy(&output.stderr);
    let expected = format!("switchyard-dns: cannot listen on udp and tcp {taken}: ");
    assert!(text.starts_with(&expected), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_bad_corefile_is_named_with_its_line_and_the_status_is_2() {
    for (corefile, said) in [
        (
            ".:0 {\n\nnonsense\n}\n",
            "Corefile:3: unknown plugin `nonsense`",
        ),
        (
            ".:0 {\nhealth 8080\n}\n",
            "Corefile:2: `8080` is no address to listen on",
        ),
        (
            ".:0 {\nreload soon\n}\n",
            "Corefile:2: the interval must be a duration",
        ),
        (
            ".:0 {\ntimeouts {\nread 0s\n}\n}\n",
            "Corefile:3: read must be from 1s to 24h",
        ),
        ("", "Corefile has no server block"),
    ] {
        let output = fails(corefile);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(said), "{text}");
        assert_eq!(output.status.code(), Some(2));
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_switchyard-dns"))
        .current_dir(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("-conf FILE"));
}

#[test]
fn the_process_id_is_written_where_it_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let address = free();
    let corefile = format!(".:{} {{\nbind 127.0.0.1\nany\n}}\n", address.port());
    std::fs::write(dir.path().join("Corefile"), corefile).unwrap();
    let pid_file: PathBuf = dir.path().join("pid");
    let mut command = command(&dir);
    command
        .arg("-pidfile")
        .arg(&pid_file)
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    let mut text = String::new();
    while text.is_empty() && Instant::now() < end {
        text = std::fs::read_to_string(&pid_file).unwrap_or_default();
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = child.id();
    let _has_ended = child.kill();
    let _status = child.wait();
    assert_eq!(text, format!("{id}\n"));
}
