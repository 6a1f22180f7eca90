//! Asking over TCP or TLS: connections that are kept, each with many queries in flight, whose
//! replies may come in any order (RFC 7766 §6.2).
//!
//! Not every server can do that. A query that was on its way when the peer closed is asked once
//! more on a connection of its own; and an upstream that closes after an answer is for a while
//! asked one query a connection.

mod connection;
mod frame;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::ExchangeError;
use super::metrics::SocketCache;
use super::waiting::Ticket;
use connection::Connection;
pub(super) use connection::Dial;

/// How many connections one upstream gets before the queries crowd on those it has.
const CONNECTIONS_PER_UPSTREAM: usize = 32;
/// How many, when it closes them after each answer.
const CONNECTIONS_PER_SERIAL_UPSTREAM: usize = 1024;
/// From how many queries on the least busy connection another one is opened: slow answers of
/// a server that works on one query a connection should not hold up many others.
const QUERIES_BEFORE_ANOTHER_CONNECTION: usize = 4;
/// How many queries wait on one connection at most.
const QUERIES_IN_FLIGHT_PER_CONNECTION: usize = 512;
/// How long an upstream is asked one query a connection after it was seen to want that.
const SERIAL_MEMORY: Duration = Duration::from_secs(30);
/// A peer that closes later than this after its last reply was only tired of waiting.
const SERIAL_EVIDENCE: Duration = Duration::from_secs(1);

/// How long connections are kept, and how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// A connection older than this takes no further query. `None`: no limit.
    pub(super) max_age: Option<Duration>,
    /// How many connections may be open with nothing to do. 0: no limit.
    pub(super) max_idle: usize,
}

/// The connections to one upstream.
#[derive(Debug)]
pub(super) struct StreamPool {
    dial: Arc<Dial>,
    keep: Keep,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: Vec<Arc<Connection>>,
    serial_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// With others, where there is room.
    Shared,
    /// On a new connection that no other query uses meanwhile.
    OwnConnection,
}

impl StreamPool {
    /// No connection is opened before the first query.
    pub(super) fn new(dial: Dial, keep: Keep) -> Self {
        Self {
            dial: Arc::new(dial),
            keep,
            state: Mutex::default(),
        }
    }

    /// Sends one query and waits for the reply, which has the id used on the wire.
    pub(super) async fn exchange(
        &self,
        query: &[u8],
        question: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, ExchangeError> {
        let first = self
            .exchange_in(Place::Shared, query, question, deadline)
            .await;
        let outcome = match first {
            Ok(outcome) => outcome,
            Err(ClosedOnOthers) => self
                .exchange_in(Place::OwnConnection, query, question, deadline)
                .await
                .unwrap_or(Err(ExchangeError::Closed)),
        };
        self.close_surplus();
        outcome
    }

    async fn exchange_in(
        &self,
        place: Place,
        query: &[u8],
        question: &[u8],
        deadline: Instant,
    ) -> Result<Result<Vec<u8>, ExchangeError>, ClosedOnOthers> {
        let started = Instant::now();
        let (connection, ticket) = match self.send(place, query, question) {
            Ok(sent) => sent,
            Err(error) => return Ok(Err(error)),
        };
        let outcome = ticket.reply(deadline).await;
        let usage = connection.waiting.usage();
        match &outcome {
            Err(ExchangeError::Closed) => {
                let since = usage.last_received.map(|at| at.elapsed());
                if usage.answered > 0 && since.is_some_and(|since| since < SERIAL_EVIDENCE) {
                    self.state().serial_until = Some(Instant::now() + SERIAL_MEMORY);
                }
                if usage.admitted > 1 {
                    return Err(ClosedOnOthers);
                }
            }
            // Not a word since: the peer may be gone without a trace. Later queries try anew.
            Err(ExchangeError::Timeout { .. })
                if usage
                    .last_received
                    .is_none_or(|received| received < started) =>
            {
                connection.waiting.retire();
            }
            _ => {}
        }
        Ok(outcome)
    }

    fn send(
        &self,
        place: Place,
        query: &[u8],
        question: &[u8],
    ) -> Result<(Arc<Connection>, Ticket), ExchangeError> {
        let mut state = self.state();
        state.forget_finished(self.keep.max_age);
        if place == Place::Shared {
            while let Some(connection) = state.choose() {
                match connection.send(query, question)? {
                    Ok(ticket) => {
                        self.cache().hits.inc();
                        return Ok((connection, ticket));
                    }
                    Err(_retired_meanwhile) => state.forget(&connection),
                }
            }
        }
        let capacity = match place {
            Place::Shared if !state.is_serial() => QUERIES_IN_FLIGHT_PER_CONNECTION,
            Place::Shared | Place::OwnConnection => 1,
        };
        if state.connections.len() >= CONNECTIONS_PER_SERIAL_UPSTREAM {
            return Err(ExchangeError::Busy);
        }
        let connection = Connection::open(Arc::clone(&self.dial), capacity);
        state.connections.push(Arc::clone(&connection));
        self.cache().misses.inc();
        match connection.send(query, question)? {
            Ok(ticket) => Ok((connection, ticket)),
            Err(_not_admitted) => Err(ExchangeError::Busy),
        }
    }

    /// Closes what is idle beyond `max_idle_conns`.
    fn close_surplus(&self) {
        if self.keep.max_idle == 0 {
            return;
        }
        let state = self.state();
        let idle = state.connections.iter().filter(|connection| {
            connection.waiting.in_flight() == 0 && !connection.waiting.is_retired()
        });
        for surplus in idle.skip(self.keep.max_idle) {
            surplus.waiting.retire();
        }
    }

    fn cache(&self) -> &SocketCache {
        let metrics = &self.dial.metrics;
        if self.dial.tls.is_some() {
            &metrics.tls
        } else {
            &metrics.tcp
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections take queries.
    #[cfg(test)]
    pub(super) fn open_connections(&self) -> usize {
        let mut state = self.state();
        state.forget_finished(None);
        state.connections.len()
    }
}

impl Drop for StreamPool {
    fn drop(&mut self) {
        for connection in &self.state().connections {
            connection.waiting.retire();
        }
    }
}

/// The peer closed a connection that had carried other queries too: not this query's fault.
struct ClosedOnOthers;

impl State {
    fn is_serial(&self) -> bool {
        self.serial_until
            .is_some_and(|until| until > Instant::now())
    }

    fn forget_finished(&mut self, max_age: Option<Duration>) {
        self.connections.retain(|connection| {
            if max_age.is_some_and(|limit| connection.opened.elapsed() >= limit) {
                connection.waiting.retire();
            }
            !connection.waiting.is_retired()
        });
    }

    fn forget(&mut self, gone: &Arc<Connection>) {
        self.connections
            .retain(|connection| !Arc::ptr_eq(connection, gone));
    }

    /// The least busy connection, the oldest of them; `None` if a new one is to be opened.
    fn choose(&self) -> Option<Arc<Connection>> {
        let load = |connection: &&Arc<Connection>| connection.waiting.in_flight();
        let with_room = self
            .connections
            .iter()
            .filter(|connection| connection.waiting.has_room());
        let best = with_room.min_by_key(load)?;
        let (patience, limit) = if self.is_serial() {
            (1, CONNECTIONS_PER_SERIAL_UPSTREAM)
        } else {
            (QUERIES_BEFORE_ANOTHER_CONNECTION, CONNECTIONS_PER_UPSTREAM)
        };
        let use_it = load(&best) < patience || self.connections.len() >= limit;
        use_it.then(|| Arc::clone(best))
    }
}
