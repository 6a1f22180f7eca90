//! Asking again: in the background, or before a stale reply is given.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::entry::Entry;
use super::handler::{Core, now_for};
use crate::plugin::{Exchange, Outcome, Position, Step};
use crate::wire::Reply;

impl Entry {
    /// Whether nobody is asking for it, and the last attempt that failed is long enough ago.
    pub(super) fn may_refresh(&self, now: Instant) -> bool {
        !self.refreshing && self.retry_after.is_none_or(|after| now >= after)
    }

    /// Marks it as being asked for; whoever gets `true` must ask, and end it.
    pub(super) fn begin_refresh(&mut self, now: Instant) -> bool {
        let may = self.may_refresh(now);
        self.refreshing |= may;
        may
    }
}

/// Somebody is asking; ends in any case.
struct Refreshing {
    core: Arc<Core>,
    key: u64,
    /// When it began, for an end that is not said.
    now: Instant,
    refreshed: bool,
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        let stale = self.core.config.stale;
        let recheck = stale.map_or(Duration::ZERO, |stale| stale.recheck);
        let failed = !self.refreshed && !recheck.is_zero();
        let retry_after = failed.then(|| self.now + recheck);
        self.core.store.change(self.key, |tables| {
            for table in [&mut tables.success, &mut tables.denial] {
                if let Some(entry) = table.get_mut(self.key) {
                    entry.refreshing = false;
                    entry.retry_after = retry_after;
                }
            }
        });
    }
}

impl Core {
    fn refreshing(self: &Arc<Self>, exchange: &Exchange, key: u64) -> Refreshing {
        Refreshing {
            core: Arc::clone(self),
            key,
            now: exchange.request.received,
            refreshed: false,
        }
    }

    /// Asks in the background for what has just been given; [`Entry::begin_refresh`] said so.
    pub(super) fn refresh(self: &Arc<Self>, exchange: &Exchange, at: Position<'_>, key: u64) {
        let refreshing = self.refreshing(exchange, key);
        let _nobody_waits = self.ask_in_background(exchange, at, refreshing);
    }

    /// `None` if there is no place or no runtime for it. The reply comes where it takes the
    /// place of the one that is kept.
    fn ask_in_background(
        self: &Arc<Self>,
        exchange: &Exchange,
        at: Position<'_>,
        mut refreshing: Refreshing,
    ) -> Option<oneshot::Receiver<Reply>> {
        let place = Arc::clone(&self.store.refreshes).try_acquire_owned();
        let (Ok(place), Some(runtime)) = (place, &self.runtime) else {
            self.store.refreshes_skipped.fetch_add(1, Ordering::Relaxed);
            // It is not the answer's fault: the next hit may try at once.
            refreshing.refreshed = true;
            return None;
        };
        let (reply, receiver) = oneshot::channel();
        let mut asking = Box::new(exchange.asking(&exchange.question));
        asking.request.authentic_data = true;
        let below = at.below_later();
        runtime.spawn(async move {
            let outcome = below.run(&mut asking).await;
            refreshing.now = now_for(&asking);
            if outcome == Outcome::Answered && refreshing.core.settle(&mut asking) {
                refreshing.refreshed = true;
                let _nobody_waits = reply.send(asking.reply);
            }
            drop((refreshing, place));
        });
        Some(receiver)
    }

    /// Keeps a reply to a refresh, whatever it is worth; says whether it takes the place of
    /// the stale one.
    fn settle(&self, exchange: &mut Exchange) -> bool {
        if exchange.failed {
            return false;
        }
        let survey = Self::survey(exchange);
        let refreshed = self.is_refresh(exchange, survey);
        let stale = self.config.stale.as_ref();
        // Without serve_stale any reply is news. With it a failure would hide what is good.
        if refreshed || stale.is_none_or(|stale| stale.prefer_positive) {
            self.take_in(exchange, survey);
        }
        refreshed
    }

    /// Asks, and gives the stale reply if nobody has a better one.
    pub(super) async fn verify(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        at: Position<'_>,
    ) -> Step {
        let key = self.key(exchange);
        let Some(stale) = self.config.stale else {
            return Step::Next;
        };
        let now = exchange.request.received;
        let begun = stale.recheck.is_zero() || self.begin(key, now);
        let within = stale.verify.unwrap_or_default();
        if begun && within.is_zero() {
            let mut refreshing = self.refreshing(exchange, key);
            let asked = exchange.request.authentic_data;
            exchange.request.authentic_data = true;
            let outcome = at.below(exchange).await;
            exchange.request.authentic_data = asked;
            refreshing.now = now_for(exchange);
            refreshing.refreshed = outcome == Outcome::Answered && self.settle(exchange);
            if refreshing.refreshed {
                return Step::Answered;
            }
            drop(refreshing);
            if self.give_stale(exchange, key) {
                return Step::Answered;
            }
            return match outcome {
                Outcome::Dropped => Step::Drop,
                Outcome::Answered if exchange.failed => Step::Fail(exchange.reply.rcode),
                Outcome::Answered => Step::Answered,
            };
        }
        if begun {
            let refreshing = self.refreshing(exchange, key);
            if let Some(reply) = self.ask_in_background(exchange, at, refreshing)
                && let Ok(Ok(reply)) = timeout(within, reply).await
            {
                exchange.reply = reply;
                let request = &exchange.request;
                exchange.reply.authentic_data &= request.dnssec_ok() || request.authentic_data;
                return Step::Answered;
            }
        }
        if self.give_stale(exchange, key) {
            Step::Answered
        } else {
            Step::Next
        }
    }

    fn begin(&self, key: u64, now: Instant) -> bool {
        let begun = self.store.change(key, |tables| {
            let mut begun = false;
            for table in [&mut tables.success, &mut tables.denial] {
                if let Some(entry) = table.get_mut(key) {
                    begun |= entry.begin_refresh(now);
                }
            }
            begun
        });
        begun.unwrap_or(false)
    }
}
