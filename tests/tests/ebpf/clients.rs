//! Clients that are plain sockets of a pod, in threads that live there.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread::JoinHandle;

use anyhow::Result;
use switchyard_tests::testbed::{Place, Testbed};

use super::stage::ANSWER_TIMEOUT;

/// `EDESTADDRREQ`: what a destroyed datagram socket says to who sends first.
const NO_PEER_ANY_MORE: i32 = 89;

/// Runs `job` in a thread of its own that lives in `place`: its sockets belong there.
pub(super) fn spawn_in<T, F>(bed: &Testbed, place: Place, job: F) -> Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    // A thread is born into the namespace and the control group of the one that makes it.
    bed.in_place(place, move || std::thread::spawn(job))
}

/// One new TCP connection, one line there and back; the endpoint's own word for who it is.
pub(super) fn ask_tcp(to: SocketAddr) -> io::Result<SocketAddr> {
    let stream = TcpStream::connect_timeout(&to, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_nodelay(true)?;
    (&stream).write_all(b"?\n")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    answered_by(&line)
}

/// One new connected UDP socket, one datagram there and back.
pub(super) fn ask_udp(to: SocketAddr) -> io::Result<SocketAddr> {
    let socket = udp_socket(to.is_ipv4())?;
    socket.connect(to)?;
    socket.send(b"?\n")?;
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer)?;
    answered_by(&String::from_utf8_lossy(&buffer[..length]))
}

/// A UDP socket that waits for answers only so long.
pub(super) fn udp_socket(ipv4: bool) -> io::Result<UdpSocket> {
    let any = if ipv4 { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(socket)
}

/// Whether the socket was destroyed because its endpoint is gone: its owner connects anew.
pub(super) fn is_destroyed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionAborted
        || error.raw_os_error() == Some(NO_PEER_ANY_MORE)
}

/// The second word of an echo server's answer.
pub(super) fn answered_by(line: &str) -> io::Result<SocketAddr> {
    line.split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| io::Error::other(format!("odd answer {line:?}")))
}
