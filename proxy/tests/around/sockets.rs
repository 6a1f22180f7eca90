use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use switchyard_proxy::sockets::{GivenEndpoint, Janitor, NamespaceSources};

use crate::namespace::{in_own_network, run, without_net_admin};

const WAIT: Duration = Duration::from_secs(5);
/// Longer than it takes until the second look is over.
const QUIET: Duration = Duration::from_secs(3);
const A: &str = "127.0.0.5:53";
const B: &str = "127.0.0.6:53";

fn given(service: u32, address: &str) -> GivenEndpoint {
    GivenEndpoint {
        service,
        address: address.parse().unwrap(),
    }
}

/// A second namespace beside the test's own, under a name in a directory.
struct Pod {
    file: std::fs::File,
    directory: tempfile::TempDir,
}

impl Pod {
    fn new() -> Self {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip link set lo up");
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        let file = file.join().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let path = format!("/proc/{}/fd/{fd}", std::process::id());
        std::os::unix::fs::symlink(path, directory.path().join("pod")).unwrap();
        std::fs::write(directory.path().join("no-namespace"), "").unwrap();
        Self { file, directory }
    }

    fn connected(&self, local: &str, remote: &str) -> UdpSocket {
        thread::scope(|scope| {
            let connect = || {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                connected(local, remote)
            };
            scope.spawn(connect).join().unwrap()
        })
    }

    fn sources(&self) -> NamespaceSources {
        NamespaceSources {
            directories: vec![self.directory.path().to_owned()],
            proc: self.directory.path().join("no-proc"),
        }
    }
}

fn connected(local: &str, remote: &str) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.connect(remote).unwrap();
    socket
}

/// What the socket programs would remember.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<HashMap<u64, GivenEndpoint>>>);

impl Memory {
    fn remember(&self, socket: &UdpSocket, given: GivenEndpoint) {
        let cookie = socket2::SockRef::from(socket).cookie().unwrap();
        self.0.lock().unwrap().insert(cookie, given);
    }

    fn start(&self, sources: NamespaceSources) -> (Janitor, Receiver<Report>) {
        let memory = Arc::clone(&self.0);
        let (sender, passes) = channel();
        let recall = Box::new(move |on_socket: &mut dyn FnMut(u64, GivenEndpoint)| {
            for (cookie, given) in memory.lock().unwrap().iter() {
                on_socket(*cookie, *given);
            }
            Ok(())
        });
        let janitor = Janitor::start(sources, recall, move |pass| {
            sender
                .send(Report {
                    destroyed: pass.destroyed_count(),
                    namespaces: pass.namespaces,
                    skipped: pass.skipped,
                    failure: pass.failure.as_ref().map(ToString::to_string),
                })
                .ok();
        });
        (janitor.unwrap(), passes)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Report {
    destroyed: u64,
    namespaces: u64,
    skipped: u64,
    failure: Option<String>,
}

fn is_connected(socket: &UdpSocket) -> bool {
    match socket.take_error().unwrap() {
        None => socket.peer_addr().is_ok(),
        Some(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            assert!(socket.peer_addr().is_err());
            false
        }
    }
}

#[test]
fn sockets_of_stale_endpoints_are_destroyed_in_every_namespace_and_no_others() {
    in_own_network(|| {
        run("ip link set lo up");
        let pod = Pod::new();
        let memory = Memory::default();
        let own = connected("127.0.0.1:0", A);
        let mapped = pod.connected("[::]:0", "[::ffff:127.0.0.5]:53");
        let v4 = pod.connected("127.0.0.1:0", A);
        let v6 = pod.connected("[::1]:0", "[::1]:53");
        let stale = [&own, &mapped, &v4];
        for socket in stale {
            memory.remember(socket, given(7, A));
        }
        memory.remember(&v6, given(8, "[::1]:53"));
        let direct = pod.connected("127.0.0.1:0", A);
        let of_other_service = pod.connected("127.0.0.1:0", A);
        memory.remember(&of_other_service, given(9, A));
        let other_endpoint = pod.connected("127.0.0.1:0", B);
        memory.remember(&other_endpoint, given(7, B));
        // Given A, connected to B since.
        let moved = pod.connected("127.0.0.1:0", B);
        memory.remember(&moved, given(7, A));

        let (janitor, passes) = memory.start(pod.sources());
        assert!(passes.recv_timeout(Duration::from_millis(200)).is_err());
        janitor.stale(&[given(7, A), given(8, "[::1]:53")]);
        let report = passes.recv_timeout(WAIT).unwrap();
        assert_eq!(
            report,
            Report {
                destroyed: 4,
                namespaces: 2,
                skipped: 1,
                failure: None
            }
        );
        for socket in [&own, &mapped, &v4, &v6] {
            assert!(!is_connected(socket), "{socket:?}");
        }
        for socket in [&direct, &of_other_service, &other_endpoint, &moved] {
            assert!(is_connected(socket), "{socket:?}");
        }
        // The second look finds nothing, and there is no third.
        assert_eq!(passes.recv_timeout(WAIT).unwrap().destroyed, 0);
        assert!(passes.recv_timeout(QUIET).is_err());
    });
}

#[test]
fn the_owner_connects_anew_and_keeps_that() {
    in_own_network(|| {
        run("ip link set lo up");
        let pod = Pod::new();
        let memory = Memory::default();
        let socket = pod.connected("127.0.0.1:0", A);
        memory.remember(&socket, given(7, A));
        let (janitor, passes) = memory.start(pod.sources());
        let waiting = socket.try_clone().unwrap();
        let owner = thread::spawn(move || {
            let error = waiting.recv(&mut [0; 8]).unwrap_err();
            waiting.connect(B).unwrap();
            error.kind()
        });
        janitor.stale(&[given(7, A)]);
        assert_eq!(owner.join().unwrap(), io::ErrorKind::ConnectionAborted);
        memory.remember(&socket, given(7, B));
        for destroyed in [1, 0] {
            assert_eq!(passes.recv_timeout(WAIT).unwrap().destroyed, destroyed);
        }
        assert_eq!(
            socket.peer_addr().unwrap(),
            B.parse::<SocketAddr>().unwrap()
        );
    });
}

#[test]
fn a_socket_that_was_being_connected_is_found_by_the_second_look() {
    in_own_network(|| {
        run("ip link set lo up");
        let pod = Pod::new();
        let memory = Memory::default();
        let (janitor, passes) = memory.start(pod.sources());
        janitor.stale(&[given(7, A)]);
        // Nothing is remembered: no namespace is searched.
        assert_eq!(passes.recv_timeout(WAIT).unwrap().namespaces, 0);
        let late = pod.connected("127.0.0.1:0", A);
        memory.remember(&late, given(7, A));
        assert_eq!(passes.recv_timeout(WAIT).unwrap().destroyed, 1);
        assert!(!is_connected(&late));
    });
}

#[test]
fn an_endpoint_that_serves_again_keeps_its_sockets() {
    in_own_network(|| {
        run("ip link set lo up");
        let pod = Pod::new();
        let memory = Memory::default();
        let (janitor, passes) = memory.start(pod.sources());
        janitor.stale(&[given(7, A), given(7, B)]);
        passes.recv_timeout(WAIT).unwrap();
        janitor.serving(&[given(7, A)]);
        let sockets = [A, B].map(|address| {
            let socket = connected("127.0.0.1:0", address);
            memory.remember(&socket, given(7, address));
            socket
        });
        assert_eq!(passes.recv_timeout(WAIT).unwrap().destroyed, 1);
        assert!(is_connected(&sockets[0]) && !is_connected(&sockets[1]));
    });
}

#[test]
fn after_a_restart_all_that_does_not_serve_goes() {
    in_own_network(|| {
        run("ip link set lo up");
        let pod = Pod::new();
        let memory = Memory::default();
        let sockets: Vec<_> = (1..=100)
            .map(|number| {
                let address = format!("127.0.1.{number}:53");
                let socket = pod.connected("127.0.0.1:0", &address);
                memory.remember(&socket, given(number % 2, &address));
                socket
            })
            .collect();
        let (janitor, passes) = memory.start(pod.sources());
        janitor.retain(|given| given.service == 1);
        assert_eq!(passes.recv_timeout(WAIT).unwrap().destroyed, 50);
        let left = sockets.iter().filter(|socket| is_connected(socket));
        assert_eq!(left.count(), 50);
        assert_eq!(passes.recv_timeout(WAIT).unwrap().destroyed, 0);
        assert!(passes.recv_timeout(QUIET).is_err());
    });
}

#[test]
fn a_pass_that_fails_is_tried_again() {
    without_net_admin("sockets::a_pass_that_fails_is_tried_again", || {
        let memory = Memory::default();
        let socket = connected("127.0.0.1:0", A);
        memory.remember(&socket, given(7, A));
        let sources = NamespaceSources {
            directories: Vec::new(),
            proc: "/no-proc".into(),
        };
        let (janitor, passes) = memory.start(sources);
        janitor.stale(&[given(7, A)]);
        for _ in 0..2 {
            let report = passes.recv_timeout(WAIT).unwrap();
            let failure = report.failure.unwrap();
            assert!(failure.contains("CAP_NET_ADMIN is needed"), "{failure}");
        }
        assert!(is_connected(&socket));
    });
}
