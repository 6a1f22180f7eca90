//! One connected UDP socket and the task that reads it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use super::super::error::ExchangeError;
use super::super::metrics::UpstreamMetrics;
use super::super::question::{HEADER_BYTES, question_end};
use super::super::waiting::Waiting;
use super::{QUERIES_IN_FLIGHT_PER_SOCKET, UdpPool};

/// The largest reply read whole. We ask with less (RFC 9715: 1232), so a larger one comes from an
/// upstream that ignores our size; it is passed on as truncated.
const UDP_REPLY_BYTES_MAX: usize = 4096;
/// How many replies are read before other tasks get their turn.
const RECEIVE_BATCH_REPLIES: usize = 64;
/// What the reader waits for: an ICMP error alone does not make a socket readable.
const REPLY_OR_ERROR: Interest = Interest::READABLE.add(Interest::ERROR);
/// The TC bit in a header's third byte.
const TRUNCATED: u8 = 0b0000_0010;

/// A socket that other messages than its peer's cannot reach.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    pub(super) waiting: Arc<Waiting>,
    pub(super) opened: Instant,
}

impl Socket {
    /// Opens a socket on a port of the kernel's random choice and starts its reader, which ends
    /// when the socket was idle for a while or is retired and drained.
    pub(super) fn open(pool: &UdpPool) -> Result<Arc<Self>, ExchangeError> {
        let socket = Arc::new(Self {
            io: connected(pool.to, pool.source)?,
            waiting: Waiting::new(QUERIES_IN_FLIGHT_PER_SOCKET),
            opened: Instant::now(),
        });
        let open = OpenCount::new(&pool.open);
        let reader = Reader {
            socket: Arc::clone(&socket),
            metrics: Arc::clone(&pool.metrics),
            idle: pool.idle,
            _open: open,
        };
        tokio::spawn(reader.run());
        Ok(socket)
    }

    /// Sends `query` with `id` in place of its own.
    ///
    /// An error that is pending on the socket belongs to earlier queries: they fail with it, and
    /// this one is sent all the same.
    pub(super) async fn send(&self, id: u16, query: &[u8]) -> Result<(), ExchangeError> {
        let id = id.to_be_bytes();
        let parts = [
            IoSlice::new(&id),
            IoSlice::new(query.get(2..).unwrap_or_default()),
        ];
        let once = || SockRef::from(&self.io).send_vectored(&parts);
        let mut result = once();
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            self.waiting
                .fail_all_but(u16::from_be_bytes(id), &ExchangeError::Refused);
            result = once();
        }
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.io.async_io(Interest::WRITABLE, once).await?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn connected(to: SocketAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(
        Domain::for_address(to),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    let source = source.unwrap_or(match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    });
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&to.into())?;
    UdpSocket::from_std(socket.into())
}

fn is_would_block(result: &io::Result<usize>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Counts a socket for as long as its reader lives.
struct OpenCount(Arc<AtomicUsize>);

impl OpenCount {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Reader {
    socket: Arc<Socket>,
    metrics: Arc<UpstreamMetrics>,
    idle: Duration,
    _open: OpenCount,
}

/// However the reader ends, nobody may wait for it any more.
impl Drop for Reader {
    fn drop(&mut self) {
        self.socket.waiting.retire();
        self.socket.waiting.fail_all(&ExchangeError::Closed);
    }
}

impl Reader {
    async fn run(self) {
        let mut buffer = vec![0; UDP_REPLY_BYTES_MAX];
        let waiting = &self.socket.waiting;
        let mut look_again = Instant::now() + self.idle;
        loop {
            tokio::select! {
                ready = self.socket.io.ready(REPLY_OR_ERROR) => {
                    if let Err(error) = ready {
                        waiting.retire();
                        waiting.fail_all(&error.into());
                        return;
                    }
                    self.receive(&mut buffer);
                    tokio::task::coop::consume_budget().await;
                }
                () = waiting.drained() => return,
                () = sleep_until(look_again) => match waiting.retire_if_idle(self.idle) {
                    Some(later) => look_again = later,
                    None => return,
                },
            }
        }
    }

    /// Reads what is there, a batch at most.
    fn receive(&self, buffer: &mut [u8]) {
        for _ in 0..RECEIVE_BATCH_REPLIES {
            // tokio knows a readiness for each; with both in one call it knows none.
            let mut received = self.receive_if(Interest::READABLE, buffer);
            if is_would_block(&received) {
                received = self.receive_if(Interest::ERROR, buffer);
            }
            match received {
                Ok(length) => self.take(buffer, length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An ICMP error for one of the queries here: none of them can expect a reply.
                Err(error) => self.socket.waiting.fail_all(&error.into()),
            }
        }
    }

    fn receive_if(&self, ready: Interest, buffer: &mut [u8]) -> io::Result<usize> {
        let io = &self.socket.io;
        io.try_io(ready, || {
            Ok(recv(io.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)?)
        })
    }

    fn take(&self, buffer: &mut [u8], length: usize) {
        let mut end = length;
        if length > buffer.len() {
            // The records are cut off somewhere: leave the question alone, and say so.
            end = question_end(buffer).unwrap_or(HEADER_BYTES);
            buffer[2] |= TRUNCATED;
            buffer[6..HEADER_BYTES].fill(0);
        }
        let message = buffer.get(..end).unwrap_or_default();
        if let Err(reason) = self.socket.waiting.deliver(message) {
            self.metrics.count_ignored(reason);
        }
    }
}
