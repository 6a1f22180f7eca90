//! One TCP or TLS connection with many queries in flight, and the task that drives it.
//!
//! A query is appended to what is to be written, and the task writes; so no caller that goes away
//! can leave half a message behind, and queries that come together leave in one segment.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::super::error::ExchangeError;
use super::super::metrics::UpstreamMetrics;
use super::super::tls::TlsPeer;
use super::super::waiting::{NotAdmitted, Ticket, Waiting};
use super::frame::{Incoming, append_query};

/// How long the TCP and TLS handshakes may take together. A query's own deadline is shorter;
/// this ends the attempt that nobody waits for any more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection that is given up may take to say so.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a connection leads and how it is kept.
#[derive(Debug)]
pub(in super::super) struct Dial {
    pub(in super::super) to: SocketAddr,
    pub(in super::super) source: Option<IpAddr>,
    pub(in super::super) tls: Option<TlsPeer>,
    pub(in super::super) idle: Duration,
    pub(in super::super) metrics: Arc<UpstreamMetrics>,
}

/// A connection, from the moment it is dialled: queries wait in it for the handshake.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) waiting: Arc<Waiting>,
    pub(super) opened: Instant,
    outgoing: Mutex<Vec<u8>>,
    written_to: Notify,
}

impl Connection {
    /// Starts to connect, for `capacity` queries at a time.
    pub(super) fn open(dial: Arc<Dial>, capacity: usize) -> Arc<Self> {
        let connection = Arc::new(Self {
            waiting: Waiting::new(capacity),
            opened: Instant::now(),
            outgoing: Mutex::default(),
            written_to: Notify::new(),
        });
        tokio::spawn(Arc::clone(&connection).run(dial));
        connection
    }

    /// Puts `query` on its way.
    pub(super) fn send(
        &self,
        query: &[u8],
        question: &[u8],
    ) -> Result<Result<Ticket, NotAdmitted>, ExchangeError> {
        let ticket = match self.waiting.admit(question) {
            Ok(ticket) => ticket,
            Err(not_admitted) => return Ok(Err(not_admitted)),
        };
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        if !append_query(&mut outgoing, ticket.id(), query) {
            return Err(ExchangeError::NotAQuery);
        }
        drop(outgoing);
        self.written_to.notify_one();
        Ok(Ok(ticket))
    }

    /// Connects and serves until the end; then every query that is left fails with the reason.
    async fn run(self: Arc<Self>, dial: Arc<Dial>) {
        let _at_the_end = Ending(&self.waiting);
        let error = match self.connect_and_serve(&dial).await {
            Ok(()) => ExchangeError::Closed,
            Err(error) => error,
        };
        self.waiting.retire();
        self.waiting.fail_all(&error);
    }

    async fn connect_and_serve(&self, dial: &Dial) -> Result<(), ExchangeError> {
        let opened = self.opened;
        let too_late = |_| ExchangeError::Timeout { ignored: 0 };
        let by = opened + CONNECT_TIMEOUT;
        let stream = timeout_at(by, connect(dial.to, dial.source))
            .await
            .map_err(too_late)??;
        match &dial.tls {
            None => self.serve(stream, dial).await,
            Some(peer) => {
                let stream = timeout_at(by, peer.handshake(stream))
                    .await
                    .map_err(too_late)??;
                self.serve(stream, dial).await
            }
        }
    }

    /// Reads and writes until the peer closes (an error), or nobody needs the connection.
    async fn serve<S>(&self, stream: S, dial: &Dial) -> Result<(), ExchangeError>
    where
        S: AsyncRead + AsyncWrite,
    {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let mut incoming = Incoming::default();
        let mut unsent = Unsent::default();
        let mut look_again = Instant::now() + dial.idle;
        loop {
            tokio::select! {
                received = reading.read_buf(incoming.spare()) => {
                    if received? == 0 {
                        return Err(ExchangeError::Closed);
                    }
                    incoming.take_messages(|message| {
                        if let Err(reason) = self.waiting.deliver(message) {
                            dial.metrics.count_ignored(reason);
                        }
                    });
                }
                written = unsent.write_some(&mut writing), if !unsent.is_empty() => written?,
                () = self.written_to.notified(), if unsent.is_empty() => {
                    let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
                    unsent.take_from(&mut outgoing);
                }
                () = self.waiting.drained() => break,
                () = sleep_until(look_again) => match self.waiting.retire_if_idle(dial.idle) {
                    Some(later) => look_again = later,
                    None => break,
                },
            }
        }
        // A farewell that nobody waits for: the peer may be gone.
        let _unheard = timeout(SHUTDOWN_TIMEOUT, writing.shutdown()).await;
        Ok(())
    }
}

/// However the task ends, nobody may wait for it any more.
struct Ending<'a>(&'a Waiting);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.retire();
        self.0.fail_all(&ExchangeError::Closed);
    }
}

async fn connect(to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What is being written. Nothing is lost when a write is given up half-way and taken up again.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    written: usize,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes all there is to write; the buffers change places, so neither is allocated again.
    fn take_from(&mut self, outgoing: &mut Vec<u8>) {
        std::mem::swap(&mut self.bytes, outgoing);
    }

    async fn write_some(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if let Some(rest) = self.bytes.get(self.written..)
            && !rest.is_empty()
        {
            self.written += to.write(rest).await?;
        }
        if self.written >= self.bytes.len() {
            to.flush().await?;
            self.bytes.clear();
            self.written = 0;
        }
        Ok(())
    }
}
