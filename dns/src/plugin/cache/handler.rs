use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::config::{Config, Stale};
use super::entry::Entry;
use super::store::{Side, Store, Tables};
use super::survey::{Survey, ttl_s};
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{EdeCode, Kind, Rcode};

/// Gives kept replies again.
#[derive(Debug)]
pub(super) struct Cache {
    core: Arc<Core>,
}

/// What tasks in the background need, too.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) store: Arc<Store>,
    /// Where they run; queries are mostly answered by threads outside of it.
    pub(super) runtime: Option<Handle>,
}

/// The asker set the AD bit: it wants to know (RFC 6840 §5.7).
struct AskedAuthentic;

/// What there is for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The reply is written.
    Given,
    /// The reply is written, and now ask for it again.
    GivenToRefresh,
    /// Only a stale reply: ask first.
    Verify,
}

impl Cache {
    pub(super) fn new(config: Config, store: Arc<Store>) -> Self {
        Self {
            core: Arc::new(Core {
                config,
                store,
                runtime: Handle::try_current().ok(),
            }),
        }
    }
}

impl Core {
    fn covers(&self, exchange: &Exchange) -> bool {
        self.config.zones.find(exchange.question.lower()).is_some()
    }

    /// Whether nothing of this name is kept.
    fn is_disabled(&self, exchange: &Exchange) -> bool {
        let (success, denial) = (&self.config.success, &self.config.denial);
        let name = exchange.question.lower();
        success.disabled.find(name).is_some() && denial.disabled.find(name).is_some()
    }

    pub(super) fn key(&self, exchange: &Exchange) -> u64 {
        let request = &exchange.request;
        let (question, store) = (&exchange.question, &self.store);
        store.key(question, request.dnssec_ok(), request.checking_disabled)
    }

    /// Writes the kept reply, if there is one that can be given at once.
    fn look_up(&self, exchange: &mut Exchange, key: u64) -> Found {
        let now = exchange.request.received;
        let Some(mut tables) = self.store.tables(key) else {
            return Found::Nothing;
        };
        let tables = &mut *tables;
        tables.counts.requests += 1;
        let stale = self.config.stale.as_ref();
        let Some(side) = tables.choose(key, &exchange.question, now, stale) else {
            return Found::Nothing;
        };
        match side {
            Side::Success => tables.counts.success_hits += 1,
            Side::Denial => tables.counts.denial_hits += 1,
        }
        let Some(entry) = tables.table_mut(side).get_mut(key) else {
            return Found::Nothing;
        };
        let fresh = entry.left_s(now) > 0;
        let recheck = stale.map_or(Duration::ZERO, |stale| stale.recheck);
        let verify = stale.is_some_and(|stale| stale.verify.is_some());
        if !fresh && verify && (recheck.is_zero() || entry.may_refresh(now)) {
            return Found::Verify;
        }
        let refresh = if fresh {
            self.is_to_be_prefetched(entry, now)
        } else {
            !verify
        };
        let refresh = refresh && self.runtime.is_some() && entry.begin_refresh(now);
        self.give(entry, exchange);
        tables.counts.served_stale += u64::from(!fresh);
        if refresh {
            tables.counts.prefetches += 1;
            return Found::GivenToRefresh;
        }
        Found::Given
    }

    fn is_to_be_prefetched(&self, entry: &mut Entry, now: Instant) -> bool {
        let Some(prefetch) = &self.config.prefetch else {
            return false;
        };
        let gap = now.saturating_duration_since(entry.last_hit);
        entry.hits = if gap > prefetch.gap {
            1
        } else {
            entry.hits.saturating_add(1)
        };
        entry.last_hit = now;
        let percent = u64::from(entry.ttl_s()) * u64::from(prefetch.percent);
        let threshold = i64::try_from(percent.div_ceil(100)).unwrap_or(i64::MAX);
        entry.hits >= prefetch.amount && entry.left_s(now) <= threshold
    }

    fn give(&self, entry: &Entry, exchange: &mut Exchange) {
        let request = &exchange.request;
        let left = entry.left_s(request.received);
        let stale_ttl = self.config.stale.as_ref().map_or(0, |stale| stale.ttl_s);
        let ttl = match left {
            ..=0 if stale_ttl > 0 => stale_ttl,
            _ if self.config.keep_ttl => entry.ttl_s(),
            left => u32::try_from(left).unwrap_or(0),
        };
        let dnssec = request.dnssec_ok() || request.authentic_data;
        entry.write(&exchange.question, ttl, dnssec, &mut exchange.reply);
        if left <= 0 && request.edns.is_some() {
            let code = match entry.rcode() {
                Rcode::NXDOMAIN => EdeCode::STALE_NXDOMAIN,
                _ => EdeCode::STALE_ANSWER,
            };
            exchange.reply.ede = Some((code, String::new()));
        }
    }

    /// Writes the stale reply, after nobody gave a better one.
    pub(super) fn give_stale(&self, exchange: &mut Exchange, key: u64) -> bool {
        let now = exchange.request.received;
        let Some(mut tables) = self.store.tables(key) else {
            return false;
        };
        let tables = &mut *tables;
        let stale = self.config.stale.as_ref();
        let side = tables.choose(key, &exchange.question, now, stale);
        let Some(entry) = side.and_then(|side| tables.table_mut(side).get(key)) else {
            return false;
        };
        exchange.failed = false;
        exchange.error = None;
        exchange.more.clear();
        self.give(entry, exchange);
        tables.counts.served_stale += 1;
        true
    }

    /// What a reply from below is.
    pub(super) fn survey(exchange: &Exchange) -> Survey {
        let (reply, question) = (&exchange.reply, &exchange.question);
        if is_from_outside(exchange) {
            return Survey::of(reply, question, exchange.request.dnssec_ok());
        }
        Survey {
            kind: reply.kind(question.rtype),
            answers: false,
            lasting: false,
        }
    }

    /// Bounds the TTLs of a reply from below, and keeps it if it may be kept.
    pub(super) fn take_in(&self, exchange: &mut Exchange, survey: Survey) {
        if survey.kind == Kind::Transfer {
            return;
        }
        let range = exchange.reply.ttl_range();
        let lowest = range.map(|(lowest, _)| lowest);
        let mut ttl = ttl_s(survey.kind, lowest, &self.config);
        if !is_from_outside(exchange) {
            // It is not kept, so there is no reason to raise its TTL.
            ttl = ttl.min(lowest.unwrap_or(ttl));
        }
        if range.is_some_and(|range| range != (ttl, ttl)) {
            exchange.reply.set_ttls(ttl);
        }
        if survey.lasting && ttl > 0 {
            self.keep(exchange, survey, ttl);
        }
        let request = &exchange.request;
        exchange.reply.authentic_data &= request.dnssec_ok() || request.authentic_data;
    }

    fn keep(&self, exchange: &Exchange, survey: Survey, ttl: u32) {
        let (question, now) = (&exchange.question, now_for(exchange));
        let (side, disabled) = match survey.kind {
            Kind::Success | Kind::Delegation => (Side::Success, &self.config.success.disabled),
            _ => (Side::Denial, &self.config.denial.disabled),
        };
        if disabled.find(question.lower()).is_some() {
            return;
        }
        let key = self.key(exchange);
        let entry = Entry::of(&exchange.reply, question, ttl, survey.answers, now);
        let stale = self.config.stale.as_ref();
        self.store.change(key, |tables| match entry {
            Some(entry) => replace(tables, side, key, entry, now, stale),
            None => tables.counts.drops += 1,
        });
    }

    /// Whether a reply to a refresh takes the place of a stale one (RFC 8767 §4).
    pub(super) fn is_refresh(&self, exchange: &Exchange, survey: Survey) -> bool {
        if exchange.failed || exchange.reply.truncated {
            return false;
        }
        if self.config.stale.is_some_and(|stale| stale.prefer_positive) {
            return survey.kind == Kind::Success && (survey.answers || !is_from_outside(exchange));
        }
        matches!(exchange.reply.rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
            && !matches!(survey.kind, Kind::Transfer | Kind::OtherError)
    }
}

/// Puts an entry where it belongs, and takes away what it makes untrue.
fn replace(
    tables: &mut Tables,
    side: Side,
    key: u64,
    mut entry: Entry,
    now: Instant,
    stale: Option<&Stale>,
) {
    let prefer_positive = stale.is_some_and(|stale| stale.prefer_positive);
    if let Some(old) = tables.table_mut(side).get(key) {
        let up_to = stale.map_or(0, |stale| stale.up_to.as_secs());
        let good = -old.left_s(now) < i64::try_from(up_to).unwrap_or(i64::MAX);
        if side == Side::Success && prefer_positive && old.answers && !entry.answers && good {
            return;
        }
        if old.refreshing {
            (entry.hits, entry.last_hit) = (old.hits, old.last_hit);
        }
    }
    if side == Side::Success && (!prefer_positive || entry.answers) {
        tables.denial.remove(key);
    }
    let evicted = tables.table_mut(side).insert(key, entry);
    let evictions = match side {
        Side::Success => &mut tables.counts.success_evictions,
        Side::Denial => &mut tables.counts.denial_evictions,
    };
    *evictions += evicted.unwrap_or_default();
}

/// Whether somebody else gave this reply. What plugins answer from this process' memory is
/// not kept: it would take memory twice and be out of date when theirs is not.
fn is_from_outside(exchange: &Exchange) -> bool {
    exchange.answered_by == "forward"
}

/// Replies come later than their queries.
pub(super) fn now_for(exchange: &Exchange) -> Instant {
    exchange.request.received.max(Instant::now())
}

impl Plugin for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }

    fn query(&self, exchange: &mut Exchange, at: Position<'_>) -> Step {
        let core = &self.core;
        if !core.covers(exchange) {
            return Step::Next;
        }
        if core.is_disabled(exchange) {
            core.store.pass(exchange.request.source.port());
        } else {
            let key = core.key(exchange);
            match core.look_up(exchange, key) {
                Found::Given => return Step::Answered,
                Found::GivenToRefresh => {
                    core.refresh(exchange, at, key);
                    return Step::Answered;
                }
                Found::Verify => return Step::Wait,
                Found::Nothing => {}
            }
        }
        if exchange.request.authentic_data {
            exchange.note(at.index(), AskedAuthentic);
        }
        // What is kept has to say whether it is authentic, for the next who wants to know.
        exchange.request.authentic_data = true;
        Step::Next
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, at: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(self.core.verify(exchange, at))
    }

    fn response(&self, exchange: &mut Exchange, at: Position<'_>) {
        if !self.core.covers(exchange) {
            return;
        }
        let asked = exchange.take_note::<AskedAuthentic>(at.index());
        exchange.request.authentic_data = asked.is_some();
        if !exchange.failed {
            let survey = Core::survey(exchange);
            self.core.take_in(exchange, survey);
        }
    }
}
