use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use switchyard_netlink::Family;
use switchyard_netlink::sock_diag::{self, Destroyed, Diag};

use crate::namespace::{in_own_network, run, without_net_admin};

const WAIT: Duration = Duration::from_secs(5);

fn with_loopback(test: impl FnOnce() + Send + 'static) {
    in_own_network(|| {
        run("ip link set lo up");
        test();
    });
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn bound(local: &str) -> UdpSocket {
    let bound = UdpSocket::bind(local).unwrap();
    bound.set_read_timeout(Some(WAIT)).unwrap();
    bound
}

fn connected(local: &str, remote: SocketAddr) -> UdpSocket {
    let connected = bound(local);
    connected.connect(remote).unwrap();
    connected
}

fn list(family: Family) -> Vec<sock_diag::UdpSocket> {
    Diag::open().unwrap().connected_udp(family).unwrap()
}

fn ends(family: Family) -> Vec<(SocketAddr, SocketAddr)> {
    let mut ends: Vec<_> = list(family)
        .iter()
        .map(|socket| (socket.local, socket.remote))
        .collect();
    ends.sort();
    ends
}

fn find(local: SocketAddr) -> sock_diag::UdpSocket {
    let all = list(Family::of(local.ip()));
    let found = all.into_iter().find(|socket| socket.local == local);
    found.expect("the socket is listed")
}

fn aborted<T: std::fmt::Debug>(result: std::io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[test]
fn connected_sockets_are_listed_and_others_are_not() {
    with_loopback(|| {
        let _unconnected = (bound("127.0.0.1:0"), bound("[::1]:0"));
        let v4 = connected("127.0.0.1:0", socket("127.0.0.2:53"));
        let v6 = connected("[::1]:0", socket("[::1]:53"));
        let mapped = connected("[::]:0", socket("[::ffff:127.0.0.3]:53"));
        let end = |socket: &UdpSocket| (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
        assert_eq!(ends(Family::V4), [end(&v4)]);
        let mut expected = [end(&v6), end(&mapped)];
        expected.sort();
        assert_eq!(ends(Family::V6), expected);

        let listed = find(mapped.local_addr().unwrap());
        assert_eq!(listed.remote, socket("[::ffff:127.0.0.3]:53"));
        assert_eq!(listed.destination(), socket("127.0.0.3:53"));
        let listed = find(v4.local_addr().unwrap());
        assert_eq!(listed.uid, 0);
        let file = format!("socket:[{}]", listed.inode);
        let is_open = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .any(|target| target.to_str() == Some(&file));
        assert!(is_open, "{file}");
    });
}

#[test]
fn destroying_one_of_two_leaves_the_other() {
    for (local, remote) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:0", "[::1]:0"),
        ("[::]:0", "127.0.0.1:0"),
    ] {
        with_loopback(move || {
            let server = bound(remote);
            let to = server.local_addr().unwrap();
            let (one, other) = (connected_to(local, to), connected_to(local, to));
            let listed = find(one.local_addr().unwrap());
            let mut diag = Diag::open().unwrap();
            assert_eq!(diag.destroy(&listed).unwrap(), Destroyed::Now);

            aborted(one.recv(&mut [0; 8]));
            assert_eq!(
                one.send(b"lost").unwrap_err().raw_os_error(),
                Some(nix::libc::EDESTADDRREQ)
            );
            other.send(b"hello").unwrap();
            let mut buffer = [0; 8];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"hello");
            server.send_to(b"back", from).unwrap();
            assert_eq!(other.recv(&mut buffer).unwrap(), 4);

            assert_eq!(diag.destroy(&listed).unwrap(), Destroyed::NotFound);
            one.connect(mapped_like(local, to)).unwrap();
            one.send(b"again").unwrap();
            assert_eq!(server.recv_from(&mut buffer).unwrap().0, 5);
        });
    }
}

/// IPv4 destinations of IPv6 sockets are written as mapped ones.
fn mapped_like(local: &str, to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(v4) if local.starts_with('[') => {
            SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
        }
        _ => to,
    }
}

fn connected_to(local: &str, to: SocketAddr) -> UdpSocket {
    connected(local, mapped_like(local, to))
}

#[test]
fn a_waiting_owner_learns_of_it_at_once() {
    with_loopback(|| {
        let waiting = connected("127.0.0.1:0", socket("127.0.0.2:53"));
        let listed = find(waiting.local_addr().unwrap());
        let start = Instant::now();
        let owner = thread::spawn(move || waiting.recv(&mut [0; 8]));
        thread::sleep(Duration::from_millis(50));
        Diag::open().unwrap().destroy(&listed).unwrap();
        aborted(owner.join().unwrap());
        assert!(start.elapsed() < WAIT);
    });
}

#[test]
fn a_socket_that_was_closed_or_moved_is_no_error_and_its_successor_stays() {
    with_loopback(|| {
        let first = connected("127.0.0.1:4000", socket("127.0.0.2:53"));
        let listed = find(socket("127.0.0.1:4000"));
        drop(first);
        let mut diag = Diag::open().unwrap();
        assert_eq!(diag.destroy(&listed).unwrap(), Destroyed::NotFound);
        let _second = connected("127.0.0.1:4000", socket("127.0.0.2:53"));
        assert_eq!(diag.destroy(&listed).unwrap(), Destroyed::NotFound);
        assert_ne!(find(socket("127.0.0.1:4000")).cookie(), listed.cookie());
    });
}

#[test]
fn twins_are_destroyed_one_after_the_other() {
    with_loopback(|| {
        let twin = || {
            let twin = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            twin.set_reuse_address(true).unwrap();
            twin.bind(&socket("127.0.0.1:4000").into()).unwrap();
            twin.connect(&socket("127.0.0.2:53").into()).unwrap();
            twin
        };
        let twins = [twin(), twin()];
        let mut diag = Diag::open().unwrap();
        let mut destroyed = 0;
        for _ in 0..twins.len() {
            for listed in list(Family::V4) {
                if diag.destroy(&listed).unwrap() == Destroyed::Now {
                    destroyed += 1;
                }
            }
        }
        assert_eq!((destroyed, list(Family::V4).len()), (2, 0));
    });
}

#[test]
fn many_sockets_are_listed_in_several_datagrams() {
    with_loopback(|| {
        let sockets: Vec<_> = (0..600)
            .map(|_| connected("127.0.0.1:0", socket("127.0.0.2:53")))
            .collect();
        let mut expected: Vec<_> = sockets
            .iter()
            .map(|socket| (socket.local_addr().unwrap(), socket.peer_addr().unwrap()))
            .collect();
        expected.sort();
        assert_eq!(ends(Family::V4), expected);
    });
}

#[test]
fn without_the_right_nothing_is_destroyed() {
    without_net_admin("sock_diag::without_the_right_nothing_is_destroyed", || {
        let own = connected("127.0.0.1:0", socket("127.0.0.2:53"));
        let listed = find(own.local_addr().unwrap());
        let error = Diag::open().unwrap().destroy(&listed).unwrap_err();
        assert!(
            error.to_string().contains("CAP_NET_ADMIN is needed"),
            "{error}"
        );
        assert_eq!(list(Family::V4).len(), 1);
    });
}
