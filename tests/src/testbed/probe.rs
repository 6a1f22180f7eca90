//! Client probes: one request from a place, and what came of it.

use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use super::Testbed;
use super::place::{Place, Protocol};

/// One request: a new TCP connection or a new UDP socket, one line there and one back.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Where the client lives.
    pub from: Place,
    /// The client's own address; port 0 lets the kernel choose. `None` leaves both to the kernel.
    pub source: Option<SocketAddr>,
    /// Where the packet is sent.
    pub to: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// Length of the request in bytes, at least 1.
    pub bytes: usize,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A server answered.
    Answered(Answer),
    /// The connection or datagram was refused: TCP reset or ICMP port unreachable.
    Refused,
    /// Nothing came back in time.
    TimedOut,
    /// The system refused to connect at all ("operation not permitted"): a program at the socket does so.
    Denied,
    /// The socket was destroyed under its owner, who must make a new one.
    Destroyed,
    /// Any other error, in the system's words.
    Failed(String),
}

/// Who answered, and whom it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The place of the server.
    pub place: String,
    /// The server's own address and port.
    pub by: SocketAddr,
    /// The source the server saw.
    pub seen: SocketAddr,
    /// The client's own address and port, before anybody translated it.
    pub own: SocketAddr,
    /// How many bytes of the request arrived.
    pub bytes: usize,
}

impl Probe {
    /// A connection refused by an ICMP error that met a socket still inside `connect()` is
    /// noticed at TCP's first retry, after 1 s; sometimes only at the second.
    pub const REFUSAL_TIMEOUT: Duration = Duration::from_millis(3300);

    /// A probe with the kernel's choice of source and a time-out that fits refusals.
    pub fn new(from: Place, protocol: Protocol, to: SocketAddr) -> Self {
        Self {
            from,
            source: None,
            to,
            protocol,
            timeout: Self::REFUSAL_TIMEOUT,
            bytes: 2,
        }
    }

    /// The same with another time-out.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same from a given source; port 0 for any.
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    fn request(&self) -> Vec<u8> {
        let mut request = vec![b'?'; self.bytes.max(1)];
        if let Some(last) = request.last_mut() {
            *last = b'\n';
        }
        request
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answer) => {
                write!(
                    f,
                    "{} in {} (saw {}, client {})",
                    answer.by, answer.place, answer.seen, answer.own
                )
            }
            Self::Refused => f.write_str("refused"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Denied => f.write_str("not permitted"),
            Self::Destroyed => f.write_str("the socket was destroyed"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

enum Socket {
    Tcp(TcpSocket),
    Udp(UdpSocket),
}

fn open_socket(bed: &Testbed, probe: &Probe) -> Result<Socket> {
    let Probe {
        source,
        to,
        protocol,
        ..
    } = *probe;
    let socket = bed.in_place(probe.from, move || -> std::io::Result<Socket> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => SocketAddr::from(([0u8; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        };
        match protocol {
            Protocol::Tcp => {
                let socket = if to.is_ipv4() {
                    TcpSocket::new_v4()?
                } else {
                    TcpSocket::new_v6()?
                };
                if let Some(source) = source {
                    socket.set_reuseaddr(true)?;
                    socket.bind(source)?;
                }
                Ok(Socket::Tcp(socket))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(source.unwrap_or(any))?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Udp(socket))
            }
        }
    })?;
    socket.with_context(|| format!("{protocol} socket in {} with source {source:?}", probe.from))
}

pub(super) fn run_all(bed: &Testbed, probes: &[Probe]) -> Result<Vec<Outcome>> {
    let mut tasks = Vec::with_capacity(probes.len());
    for probe in probes {
        let socket = open_socket(bed, probe)?;
        tasks.push(bed.engine.spawn(run_one(probe.clone(), socket)));
    }
    bed.engine.wait(async move {
        let mut outcomes = Vec::with_capacity(tasks.len());
        for task in tasks {
            outcomes.push(
                task.await
                    .unwrap_or_else(|error| Outcome::Failed(error.to_string())),
            );
        }
        outcomes
    })
}

async fn run_one(probe: Probe, socket: Socket) -> Outcome {
    let whole = async {
        let mut link = Link::open(socket, probe.to).await?;
        link.ask(&probe.request()).await
    };
    match tokio::time::timeout(probe.timeout, whole).await {
        Err(_) => Outcome::TimedOut,
        Ok(result) => outcome_of(result),
    }
}

fn outcome_of(result: Result<Answer>) -> Outcome {
    result.map_or_else(|error| outcome_of_error(&error), Outcome::Answered)
}

fn outcome_of_error(error: &anyhow::Error) -> Outcome {
    let Some(system) = error.downcast_ref::<std::io::Error>() else {
        return Outcome::Failed(format!("{error:#}"));
    };
    match system.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        ErrorKind::PermissionDenied => Outcome::Denied,
        ErrorKind::ConnectionAborted => Outcome::Destroyed,
        // A datagram socket that was destroyed has no peer any more, and says so to who sends first.
        _ if system.raw_os_error().map(Errno::from_raw) == Some(Errno::EDESTADDRREQ) => {
            Outcome::Destroyed
        }
        _ => Outcome::Failed(format!("{error:#}")),
    }
}

enum Link {
    Tcp(Box<BufReader<TcpStream>>),
    Udp(tokio::net::UdpSocket),
}

impl Link {
    async fn open(socket: Socket, to: SocketAddr) -> Result<Self> {
        Ok(match socket {
            Socket::Tcp(socket) => {
                let stream = socket.connect(to).await?;
                stream.set_nodelay(true)?;
                Self::Tcp(Box::new(BufReader::new(stream)))
            }
            Socket::Udp(socket) => {
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                socket.connect(to).await?;
                Self::Udp(socket)
            }
        })
    }

    async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        let mut line = String::new();
        let own = match self {
            Self::Tcp(stream) => {
                stream.get_mut().write_all(request).await?;
                if stream.read_line(&mut line).await? == 0 {
                    return Err(anyhow!("the connection was closed before an answer came"));
                }
                stream.get_ref().local_addr()?
            }
            Self::Udp(socket) => {
                // What is dropped or refused on its way out of its own node fails at once with "not
                // permitted"; which of the two it was, the ICMP error tells that does or does not follow.
                match socket.send(request).await {
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                    sent => drop(sent?),
                }
                let mut buffer = [0; 256];
                let length = socket.recv(&mut buffer).await?;
                line =
                    String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                socket.local_addr()?
            }
        };
        parse_answer(&line, own).with_context(|| format!("odd answer {line:?}"))
    }
}

fn parse_answer(line: &str, own: SocketAddr) -> Result<Answer> {
    let mut fields = line.split_whitespace();
    let mut next = || fields.next().context("a field is missing");
    Ok(Answer {
        place: next()?.to_owned(),
        by: next()?.parse()?,
        seen: next()?.parse()?,
        own,
        bytes: next()?.parse()?,
    })
}

/// A connection (TCP) or a socket with a fixed port (UDP) that is used again and again.
pub struct Connection {
    link: std::sync::Arc<tokio::sync::Mutex<Link>>,
}

impl Connection {
    /// Opens one, or tells what came of it instead.
    pub(super) fn open(bed: &Testbed, probe: &Probe) -> Result<Result<Self, Outcome>> {
        let socket = open_socket(bed, probe)?;
        let (to, timeout) = (probe.to, probe.timeout);
        let opened = bed
            .engine
            .wait(async move { tokio::time::timeout(timeout, Link::open(socket, to)).await })?;
        Ok(match opened {
            Err(_) => Err(Outcome::TimedOut),
            Ok(Err(error)) => Err(outcome_of_error(&error)),
            Ok(Ok(link)) => Ok(Self {
                link: std::sync::Arc::new(tokio::sync::Mutex::new(link)),
            }),
        })
    }

    /// Sends one request over the same socket. A UDP answer that comes late counts for the next request.
    pub fn ask(&self, bed: &Testbed, timeout: Duration) -> Result<Outcome> {
        let link = self.link.clone();
        bed.engine.wait(async move {
            let mut link = link.lock().await;
            match tokio::time::timeout(timeout, link.ask(b"?\n")).await {
                Err(_) => Outcome::TimedOut,
                Ok(result) => outcome_of(result),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_at_the_socket_does_can_be_told() {
        let told = |number: Errno| outcome_of_error(&std::io::Error::from(number).into());
        assert_eq!(told(Errno::ECONNREFUSED), Outcome::Refused);
        assert_eq!(told(Errno::EPERM), Outcome::Denied);
        assert_eq!(told(Errno::ECONNABORTED), Outcome::Destroyed);
        assert_eq!(told(Errno::EDESTADDRREQ), Outcome::Destroyed);
        assert!(matches!(told(Errno::EINVAL), Outcome::Failed(_)));
    }
}
