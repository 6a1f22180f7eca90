//! One query's way through the upstreams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::base::Message;
use domain::base::opt::ExtendedError;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::config::{Config, TransportChoice};
use super::metrics::ForwardMetrics;
use super::policy::Policy;
use super::query;
use super::trouble::Trouble;
use super::upstream::{ExchangeError, How, Upstream};
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{EdeCode, Malformed, Question, Rcode, Reply, Section, Transport, u16_at};

/// How long all attempts together may take: as long as stub resolvers wait.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often upstreams are asked for one query, when `max_connect_attempts` is 0.
const ATTEMPTS_MAX: usize = 64;
/// The TC bit in a header's third byte.
const TRUNCATED: u8 = 0b0000_0010;

/// One `forward` line at work.
#[derive(Debug)]
pub(super) struct Forward {
    config: Config,
    upstreams: Vec<Arc<Upstream>>,
    policy: Policy,
    attempts: usize,
    /// Another `forward` follows, for `next`.
    has_next: bool,
    waiting: AtomicUsize,
    metrics: &'static ForwardMetrics,
}

impl Forward {
    pub(super) fn new(
        config: Config,
        upstreams: Vec<Arc<Upstream>>,
        has_next: bool,
        metrics: &'static ForwardMetrics,
    ) -> Self {
        let attempts = match config.attempts {
            None => upstreams.len().saturating_mul(2),
            Some(0) => ATTEMPTS_MAX,
            Some(attempts) => attempts.min(ATTEMPTS_MAX),
        };
        Self {
            policy: Policy::new(config.policy),
            config,
            upstreams,
            attempts,
            has_next,
            waiting: AtomicUsize::new(0),
            metrics,
        }
    }

    /// FROM's own names are never excepted, as in the reference.
    fn is_ours(&self, question: &Question) -> bool {
        let name = question.lower();
        let Some(from) = self.config.from.iter().find(|zone| name.is_within(zone)) else {
            return false;
        };
        name == from || !self.config.except.iter().any(|zone| name.is_within(zone))
    }

    /// Counts a query in, until the guard is dropped; `None` if `max_concurrent` are waiting.
    fn take_place(&self) -> Option<WaitingPlace<'_>> {
        let others = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = WaitingPlace(&self.waiting);
        let most = self.config.max_concurrent.unwrap_or(usize::MAX);
        (others < most).then_some(place)
    }

    async fn forward(&self, exchange: &mut Exchange) -> Step {
        let Some(_place) = self.take_place() else {
            self.metrics.max_concurrent_rejects.inc();
            let most = self.config.max_concurrent.unwrap_or_default();
            let reason = format!("{most} queries wait for upstreams already (max_concurrent)");
            exchange.explain(EdeCode::OTHER, reason);
            return Step::Fail(Rcode::REFUSED);
        };
        let mut trouble = Trouble::default();
        if !self.ask_around(exchange, &mut trouble).await {
            let (code, reason) = trouble.explained();
            exchange.explain(code, reason);
            return Step::Fail(Rcode::SERVFAIL);
        }
        if self.has_next && self.is_for_next(&exchange.reply) {
            Step::Next
        } else {
            Step::Answered
        }
    }

    /// Asks one upstream after the other until one has a reply worth taking, which is in the
    /// exchange then.
    async fn ask_around(&self, exchange: &mut Exchange, trouble: &mut Trouble) -> bool {
        let query = query::build(&exchange.question, &exchange.request);
        let how = self.transport_for(exchange.request.transport);
        let deadline = Instant::now() + QUERY_TIMEOUT;
        let order = self.policy.order(self.upstreams.len());
        let mut places = order.places().iter();
        let (mut down, mut attempts, mut has_reply) = (0, 0, false);
        while attempts < self.attempts && Instant::now() < deadline {
            let Some(place) = places.next() else {
                if has_reply {
                    break; // from the last that `failover` passed over
                }
                (places, down) = (order.places().iter(), 0);
                continue;
            };
            let mut upstream = self.upstreams.get(*place);
            if upstream.is_some_and(|upstream| upstream.is_down()) {
                down += 1;
                if down < self.upstreams.len() {
                    continue;
                }
                self.metrics.healthcheck_broken.inc();
                if self.config.failfast {
                    break;
                }
                // Perhaps it is the checks that fail, not the upstreams.
                upstream = fastrand::choice(&self.upstreams);
            }
            let Some(upstream) = upstream else { break };
            attempts += 1;
            match self
                .ask(upstream, &exchange.question, &query, how, deadline)
                .await
            {
                Err(error) => {
                    trouble.note_error(upstream, &error);
                    upstream.check_health();
                }
                Ok(reply) => match take(exchange, &reply) {
                    Err(reason) => {
                        has_reply = false;
                        trouble.note_malformed(upstream, reason);
                        upstream.check_health();
                    }
                    Ok(()) if self.config.failover.contains(&exchange.reply.rcode) => {
                        has_reply = true;
                    }
                    Ok(()) => return true,
                },
            }
        }
        has_reply
    }

    /// One upstream's reply. Repeats the query without EDNS if that is what the upstream
    /// stumbles over, and over TCP if `prefer_udp` wants a whole reply.
    async fn ask(
        &self,
        upstream: &Upstream,
        question: &Question,
        query: &[u8],
        how: How,
        deadline: Instant,
    ) -> Result<Vec<u8>, ExchangeError> {
        let by = || deadline.min(Instant::now() + self.config.read_timeout);
        let mut reply = upstream.exchange(query, how, by()).await?;
        if does_not_know_edns(&reply) {
            let plain = query::without_edns(query, question);
            reply = upstream.exchange(&plain, how, by()).await?;
        }
        let truncated = reply.get(2).is_some_and(|flags| flags & TRUNCATED != 0);
        if truncated && self.config.transport == TransportChoice::UdpFirst {
            // A truncated reply is better than none: the client may have more luck over TCP.
            reply = upstream
                .exchange(query, How::Tcp, by())
                .await
                .unwrap_or(reply);
        }
        Ok(reply)
    }

    const fn transport_for(&self, client: Transport) -> How {
        match (self.config.transport, client) {
            (TransportChoice::UdpFirst, _) | (TransportChoice::AsClient, Transport::Udp) => {
                How::Udp
            }
            (TransportChoice::Tcp, _)
            | (TransportChoice::AsClient, Transport::Tcp | Transport::Tls) => How::Tcp,
        }
    }

    fn is_for_next(&self, reply: &Reply) -> bool {
        self.config.next.contains(&reply.rcode)
            || self.config.next_on_nodata
                && reply.rcode == Rcode::NOERROR
                && reply.count(Section::Answer) == 0
    }
}

impl Plugin for Forward {
    fn name(&self) -> &'static str {
        "forward"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        if self.is_ours(&exchange.question) {
            Step::Wait
        } else {
            Step::Next
        }
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, _: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(self.forward(exchange))
    }

    fn answers_any_class(&self) -> bool {
        true
    }
}

/// One of the queries that `max_concurrent` counts.
struct WaitingPlace<'a>(&'a AtomicUsize);

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes an upstream's message the exchange's reply, its explanation included (RFC 8914).
fn take(exchange: &mut Exchange, message: &[u8]) -> Result<(), Malformed> {
    exchange.reply.take_message(&exchange.question, message)?;
    if exchange.request.edns.is_some() {
        exchange.reply.ede = extended_error(message);
    }
    Ok(())
}

fn extended_error(message: &[u8]) -> Option<(EdeCode, String)> {
    let opt = Message::from_octets(message).ok()?.opt()?;
    let error = opt.opt().iter::<ExtendedError<_>>().next()?.ok()?;
    let text = match error.text() {
        Some(Ok(text)) => text.to_string(),
        Some(Err(_)) | None => String::new(),
    };
    Some((EdeCode(error.code().to_int()), text))
}

/// FORMERR or NOTIMP without OPT: the upstream did not read ours (RFC 6891 §7).
fn does_not_know_edns(reply: &[u8]) -> bool {
    let rcode = reply.get(3).map(|flags| Rcode(u16::from(flags & 0xF)));
    matches!(rcode, Some(Rcode::FORMERR | Rcode::NOTIMP)) && u16_at(reply, 10) == Some(0)
}
