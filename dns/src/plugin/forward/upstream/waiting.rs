//! The queries that wait for a reply on one socket or connection.
//!
//! Whoever reads the socket hands each message to [`Waiting::deliver`]; whoever asked holds a
//! [`Ticket`] and is woken for its own reply only.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::error::ExchangeError;
use super::question::{Ignored, repeats_question, reply_id};

/// The table of one socket: ids given out, and what came back for them.
#[derive(Debug)]
pub(super) struct Waiting {
    table: Mutex<Table>,
    /// Never more than this many queries at once. Well under 65,536, so that a free id is found at once.
    capacity: usize,
    in_flight: AtomicUsize,
    drained: Notify,
}

#[derive(Debug)]
struct Table {
    entries: HashMap<u16, Entry, foldhash::fast::RandomState>,
    /// Ids are a keyed SipHash of a counter: nobody who does not know the key can foretell them.
    id_key: RandomState,
    id_counter: u64,
    retired: bool,
    usage: Usage,
}

#[derive(Debug)]
struct Entry {
    question: Box<[u8]>,
    ignored: u32,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Awaited(Option<Waker>),
    Known(Result<Vec<u8>, ExchangeError>),
}

/// What a socket has done so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Queries sent over it.
    pub(super) admitted: u64,
    /// Replies taken.
    pub(super) answered: u64,
    /// When the last query was admitted.
    pub(super) last_admitted: Instant,
    /// When the last message came, taken or not.
    pub(super) last_received: Option<Instant>,
}

/// Why a socket takes no further query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// It carries as many as it may.
    Full,
    /// It only finishes what it has.
    Retired,
}

impl Waiting {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            table: Mutex::new(Table {
                entries: HashMap::default(),
                id_key: RandomState::new(),
                id_counter: 0,
                retired: false,
                usage: Usage {
                    admitted: 0,
                    answered: 0,
                    last_admitted: now,
                    last_received: None,
                },
            }),
            capacity,
            in_flight: AtomicUsize::new(0),
            drained: Notify::new(),
        })
    }

    /// Gives out an unused random id for a query with this question.
    pub(super) fn admit(self: &Arc<Self>, question: &[u8]) -> Result<Ticket, NotAdmitted> {
        let mut table = self.lock();
        if table.retired {
            return Err(NotAdmitted::Retired);
        }
        if table.entries.len() >= self.capacity {
            return Err(NotAdmitted::Full);
        }
        let id = table.unused_id();
        let entry = Entry {
            question: question.into(),
            ignored: 0,
            outcome: Outcome::Awaited(None),
        };
        table.entries.insert(id, entry);
        table.usage.admitted += 1;
        table.usage.last_admitted = Instant::now();
        self.note_in_flight(&table);
        Ok(Ticket {
            waiting: Arc::clone(self),
            id,
        })
    }

    /// Hands a received message to the query it answers, or says why it answers none.
    pub(super) fn deliver(&self, message: &[u8]) -> Result<(), Ignored> {
        let waker = self.take_message(message)?;
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn take_message(&self, message: &[u8]) -> Result<Option<Waker>, Ignored> {
        let mut table = self.lock();
        table.usage.last_received = Some(Instant::now());
        let id = reply_id(message)?;
        let entry = table.entries.get_mut(&id).ok_or(Ignored::Id)?;
        if matches!(entry.outcome, Outcome::Known(_)) {
            return Err(Ignored::Id);
        }
        if let Err(reason) = repeats_question(message, &entry.question) {
            entry.ignored = entry.ignored.saturating_add(1);
            return Err(reason);
        }
        let waker = entry.outcome.settle(Ok(message.to_vec()));
        table.usage.answered += 1;
        Ok(waker)
    }

    /// Ends every query that still waits with `error`.
    pub(super) fn fail_all(&self, error: &ExchangeError) {
        self.fail_where(|_| true, error);
    }

    fn fail_where(&self, chosen: impl Fn(u16) -> bool, error: &ExchangeError) {
        let wakers: Vec<Waker> = self
            .lock()
            .entries
            .iter_mut()
            .filter(|(id, _)| chosen(**id))
            .filter_map(|(_, entry)| entry.outcome.settle(Err(error.clone())))
            .collect();
        for waker in wakers {
            waker.wake();
        }
    }

    /// Ends every query that still waits, except the one with the id `spared`, with `error`.
    pub(super) fn fail_all_but(&self, spared: u16, error: &ExchangeError) {
        self.fail_where(|id| id != spared, error);
    }

    /// Takes no further query; [`Self::drained`] ends once the last one has left.
    pub(super) fn retire(&self) {
        let mut table = self.lock();
        table.retired = true;
        self.notify_if_drained(&table);
    }

    /// Retires if nothing waits and nothing was asked for `idle`; otherwise says when to look again.
    pub(super) fn retire_if_idle(&self, idle: Duration) -> Option<Instant> {
        let mut table = self.lock();
        let now = Instant::now();
        if !table.entries.is_empty() {
            return Some(now + idle);
        }
        let due = table.usage.last_admitted + idle;
        if due > now {
            return Some(due);
        }
        table.retired = true;
        None
    }

    /// Ends when this is retired and nothing waits any more. For one waiter.
    pub(super) async fn drained(&self) {
        self.drained.notified().await;
    }

    /// How many queries hold an id. May lag behind by a moment.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether fewer queries hold an id than may.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight() < self.capacity
    }

    /// Whether no further query is taken.
    pub(super) fn is_retired(&self) -> bool {
        self.lock().retired
    }

    pub(super) fn usage(&self) -> Usage {
        self.lock().usage
    }

    fn leave(&self, id: u16) {
        let mut table = self.lock();
        table.entries.remove(&id);
        self.note_in_flight(&table);
        self.notify_if_drained(&table);
    }

    fn note_in_flight(&self, table: &Table) {
        self.in_flight.store(table.entries.len(), Ordering::Relaxed);
    }

    fn notify_if_drained(&self, table: &Table) {
        if table.retired && table.entries.is_empty() {
            self.drained.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn unused_id(&mut self) -> u16 {
        loop {
            self.id_counter = self.id_counter.wrapping_add(1);
            let [low, high, ..] = self.id_key.hash_one(self.id_counter).to_le_bytes();
            let id = u16::from_le_bytes([low, high]);
            if let Slot::Vacant(_) = self.entries.entry(id) {
                return id;
            }
        }
    }
}

impl Outcome {
    /// Sets the outcome unless there is one, and gives back whom to wake.
    fn settle(&mut self, result: Result<Vec<u8>, ExchangeError>) -> Option<Waker> {
        match self {
            Self::Known(_) => None,
            Self::Awaited(waker) => {
                let waker = waker.take();
                *self = Self::Known(result);
                waker
            }
        }
    }
}

/// One query's place in the table; dropping it frees the id.
#[derive(Debug)]
pub(super) struct Ticket {
    waiting: Arc<Waiting>,
    id: u16,
}

impl Ticket {
    /// The id to send the query with.
    pub(super) const fn id(&self) -> u16 {
        self.id
    }

    /// Waits for the reply, until `deadline` at the latest.
    pub(super) async fn reply(self, deadline: Instant) -> Result<Vec<u8>, ExchangeError> {
        match timeout_at(deadline, poll_fn(|context| self.poll_outcome(context))).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(self.timed_out()),
        }
    }

    /// What to report when the time is out.
    pub(super) fn timed_out(&self) -> ExchangeError {
        let table = self.waiting.lock();
        let ignored = table.entries.get(&self.id).map_or(0, |entry| entry.ignored);
        ExchangeError::Timeout { ignored }
    }

    fn poll_outcome(&self, context: &Context<'_>) -> Poll<Result<Vec<u8>, ExchangeError>> {
        let mut table = self.waiting.lock();
        let Some(entry) = table.entries.get_mut(&self.id) else {
            return Poll::Ready(Err(ExchangeError::Closed));
        };
        match &mut entry.outcome {
            Outcome::Known(result) => {
                Poll::Ready(std::mem::replace(result, Err(ExchangeError::Closed)))
            }
            Outcome::Awaited(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            Outcome::Awaited(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x01a\x00\x00\x01\x00\x01";

    fn reply(id: u16, question: &[u8]) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(question);
        message
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn a_reply_goes_to_the_query_with_its_id() {
        let waiting = Waiting::new(4);
        let first = waiting.admit(QUESTION).unwrap();
        let second = waiting.admit(QUESTION).unwrap();
        assert_ne!(first.id(), second.id());
        let message = reply(second.id(), QUESTION);
        waiting.deliver(&message).unwrap();
        assert_eq!(waiting.deliver(&message), Err(Ignored::Id), "it came twice");
        assert_eq!(second.reply(soon()).await.unwrap(), message);
        assert!(matches!(
            first.reply(soon()).await,
            Err(ExchangeError::Timeout { ignored: 0 })
        ));
        assert_eq!(waiting.in_flight(), 0);
    }

    #[tokio::test]
    async fn a_reply_to_another_question_is_counted_and_the_query_goes_on_waiting() {
        let waiting = Waiting::new(4);
        let ticket = waiting.admit(QUESTION).unwrap();
        let lie = reply(ticket.id(), b"\x01b\x00\x00\x01\x00\x01");
        assert_eq!(waiting.deliver(&lie), Err(Ignored::Question));
        assert!(matches!(
            ticket.reply(soon()).await,
            Err(ExchangeError::Timeout { ignored: 1 })
        ));
    }

    #[test]
    fn a_full_or_retired_table_admits_nobody() {
        let waiting = Waiting::new(1);
        let ticket = waiting.admit(QUESTION).unwrap();
        assert_eq!(waiting.admit(QUESTION).unwrap_err(), NotAdmitted::Full);
        drop(ticket);
        waiting.retire();
        assert_eq!(waiting.admit(QUESTION).unwrap_err(), NotAdmitted::Retired);
    }

    #[tokio::test]
    async fn a_retired_table_is_drained_when_its_last_query_leaves() {
        let waiting = Waiting::new(2);
        let ticket = waiting.admit(QUESTION).unwrap();
        waiting.retire();
        assert!(timeout_at(soon(), waiting.drained()).await.is_err());
        drop(ticket);
        timeout_at(soon(), waiting.drained()).await.unwrap();
    }

    #[tokio::test]
    async fn failing_all_ends_those_who_wait_and_keeps_replies_already_there() {
        let waiting = Waiting::new(4);
        let answered = waiting.admit(QUESTION).unwrap();
        let unanswered = waiting.admit(QUESTION).unwrap();
        waiting.deliver(&reply(answered.id(), QUESTION)).unwrap();
        waiting.fail_all(&ExchangeError::Refused);
        assert!(answered.reply(soon()).await.is_ok());
        assert!(matches!(
            unanswered.reply(soon()).await,
            Err(ExchangeError::Refused)
        ));
    }

    #[test]
    fn ids_do_not_follow_one_another() {
        let waiting = Waiting::new(1000);
        let tickets: Vec<Ticket> = (0..1000)
            .map(|_| waiting.admit(QUESTION).unwrap())
            .collect();
        let upper_half = tickets.iter().filter(|ticket| ticket.id() > 0x7fff).count();
        assert!(
            (350..650).contains(&upper_half),
            "{upper_half} of 1000 ids in the upper half"
        );
        let steps = tickets
            .windows(2)
            .filter(|pair| pair[1].id().wrapping_sub(pair[0].id()) < 16);
        assert!(steps.count() < 20);
    }
}
