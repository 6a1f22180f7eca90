//! Asking over UDP: a few connected sockets, each carrying many queries.
//!
//! A query goes to one of [`UDP_SOCKETS_PER_UPSTREAM`] sockets at random; each has a port of the
//! kernel's random choice and is replaced after [`QUERIES_PER_SOCKET`] queries or
//! [`SOCKET_AGE`], so that a guesser never has long to find one (RFC 5452 §9.2).

mod socket;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::ExchangeError;
use super::metrics::UpstreamMetrics;
use super::waiting::{NotAdmitted, Ticket};
use socket::Socket;

/// How many sockets of one upstream take new queries at a time.
const UDP_SOCKETS_PER_UPSTREAM: usize = 8;
/// How many replaced sockets of one upstream may still wait for their last replies. When there
/// are as many, the current ones are used on.
const UDP_SOCKETS_RETIRED_MAX: usize = 32;
/// How many queries wait on one socket at most: one in 32 ids.
const QUERIES_IN_FLIGHT_PER_SOCKET: usize = 2048;
/// After how many queries a socket makes room for one with another port.
const QUERIES_PER_SOCKET: u64 = 1024;
/// After how long a socket makes room for one with another port.
const SOCKET_AGE: Duration = Duration::from_secs(30);

/// The sockets to one upstream.
#[derive(Debug)]
pub(super) struct UdpPool {
    to: SocketAddr,
    source: Option<IpAddr>,
    idle: Duration,
    slots: [Mutex<Option<Arc<Socket>>>; UDP_SOCKETS_PER_UPSTREAM],
    metrics: Arc<UpstreamMetrics>,
    /// How many sockets are open, the retired ones included.
    open: Arc<AtomicUsize>,
}

impl UdpPool {
    /// No socket is opened before the first query; one that is idle for `idle` is closed.
    pub(super) fn new(
        to: SocketAddr,
        source: Option<IpAddr>,
        idle: Duration,
        metrics: Arc<UpstreamMetrics>,
    ) -> Self {
        Self {
            to,
            source,
            idle,
            slots: Default::default(),
            metrics,
            open: Arc::default(),
        }
    }

    /// Sends one query and waits for the reply, which may be truncated. The reply has the id
    /// used on the wire.
    pub(super) async fn exchange(
        &self,
        query: &[u8],
        question: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, ExchangeError> {
        let (socket, ticket) = self.admit(question)?;
        match timeout_at(deadline, socket.send(ticket.id(), query)).await {
            Ok(sent) => sent?,
            Err(_elapsed) => return Err(ticket.timed_out()),
        }
        drop(socket);
        ticket.reply(deadline).await
    }

    /// A place on a random socket, or on the next one that has any.
    fn admit(&self, question: &[u8]) -> Result<(Arc<Socket>, Ticket), ExchangeError> {
        let first = fastrand::usize(..UDP_SOCKETS_PER_UPSTREAM);
        let mut failure = ExchangeError::Busy;
        for step in 0..UDP_SOCKETS_PER_UPSTREAM {
            let slot = &self.slots[(first + step) % UDP_SOCKETS_PER_UPSTREAM];
            match self.admit_in(slot, question) {
                Ok(Some(admitted)) => return Ok(admitted),
                Ok(None) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A place on this slot's socket, which is opened or replaced when that is due. `None`: full.
    fn admit_in(
        &self,
        slot: &Mutex<Option<Arc<Socket>>>,
        question: &[u8],
    ) -> Result<Option<(Arc<Socket>, Ticket)>, ExchangeError> {
        let mut current = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = &*current {
            if self.is_due_for_replacement(socket) {
                socket.waiting.retire();
            }
            match socket.waiting.admit(question) {
                Ok(ticket) => {
                    self.metrics.udp.hits.inc();
                    return Ok(Some((Arc::clone(socket), ticket)));
                }
                Err(NotAdmitted::Full) => return Ok(None),
                Err(NotAdmitted::Retired) => {}
            }
        }
        let socket = Socket::open(self)?;
        let ticket = socket.waiting.admit(question).ok();
        *current = Some(Arc::clone(&socket));
        self.metrics.udp.misses.inc();
        Ok(ticket.map(|ticket| (socket, ticket)))
    }

    fn is_due_for_replacement(&self, socket: &Socket) -> bool {
        let worn = socket.waiting.usage().admitted >= QUERIES_PER_SOCKET
            || socket.opened.elapsed() >= SOCKET_AGE;
        worn && self.open.load(Ordering::Relaxed)
            < UDP_SOCKETS_PER_UPSTREAM + UDP_SOCKETS_RETIRED_MAX
    }

    /// How many queries wait on the current sockets.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.slots
            .iter()
            .filter_map(|slot| {
                slot.lock()
                    .unwrap()
                    .as_ref()
                    .map(|socket| socket.waiting.in_flight())
            })
            .sum()
    }

    /// How many sockets are open.
    #[cfg(test)]
    pub(super) fn open_sockets(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for UdpPool {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if let Some(socket) = slot
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
            {
                socket.waiting.retire();
            }
        }
    }
}
