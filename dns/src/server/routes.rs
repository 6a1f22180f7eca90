use std::sync::Arc;

use super::guard;
use crate::metrics::queries::{DROPPED, SeriesId, series};
use crate::plugin::{Chain, Exchange, Progress};
use crate::wire::{Class, Intake, Name, Question, Rcode, Rtype};

/// Which server block answers which names on one listener.
#[derive(Debug)]
pub struct Routes {
    /// Longest zone first.
    routes: Vec<Route>,
    /// Counts what no route answers for, if any of them is counted.
    dropped: Option<SeriesId>,
}

/// One zone of one server block.
#[derive(Clone, Debug)]
pub struct Route {
    zone: Name,
    chain: Arc<Chain>,
    /// The plugins that take questions of other classes than IN, if any of them answers.
    other_classes: Option<Arc<Chain>>,
    /// Label `server` of metrics: `dns://:53`.
    pub server: Arc<str>,
    /// Label `zone` of metrics.
    pub zone_label: Arc<str>,
    /// Its queries are counted (`prometheus`).
    series: Option<SeriesId>,
}

/// What to do with a packet.
#[derive(Debug)]
pub(crate) enum Handled {
    /// The exchange's reply is finished: send it.
    Reply,
    /// Send nothing.
    Silent,
    /// Send nothing: it was no query.
    NoQuery,
    /// Somebody has to wait: go on with [`Chain::resume`] at this index on the runtime.
    Waiting(Arc<Chain>, usize),
}

impl Route {
    /// A zone that `chain` answers for.
    #[must_use]
    pub fn new(zone: &Name, chain: Arc<Chain>, server: &Arc<str>) -> Self {
        let others = chain.plugins().iter().filter(|plugin| plugin.any_class());
        let others: Vec<_> = others.cloned().collect();
        let answers = others.iter().any(|plugin| plugin.answers_any_class());
        Self {
            zone: zone.to_lower(),
            other_classes: answers.then(|| Chain::new(others)),
            chain,
            server: Arc::clone(server),
            zone_label: zone.to_lower().to_string().into(),
            series: None,
        }
    }

    /// The same, with its queries counted.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.series = Some(series(&self.server, &self.zone_label));
        self
    }

    /// The block's plugins.
    #[must_use]
    pub const fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    fn chain_for(&self, question: &Question) -> Option<&Arc<Chain>> {
        if question.class == Class::IN {
            Some(&self.chain)
        } else {
            self.other_classes.as_ref()
        }
    }
}

impl Routes {
    /// A listener that answers for these zones.
    #[must_use]
    pub fn new(mut routes: Vec<Route>) -> Arc<Self> {
        routes.sort_by_key(|route| std::cmp::Reverse(route.zone.label_count()));
        let counted = routes.iter().find(|route| route.series.is_some());
        let dropped = counted.map(|route| series(&route.server, &DROPPED.into()));
        let routes = Arc::new(Self { routes, dropped });
        for route in &routes.routes {
            route.chain.set_routes(&routes);
            if let Some(chain) = &route.other_classes {
                chain.set_routes(&routes);
            }
        }
        routes
    }

    /// Every zone, longest first.
    #[must_use]
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// The longest zone the name is in. A DS question about a zone's own name belongs to
    /// the zone above (RFC 4035 §3.1.4.1), where that is ours, too.
    #[must_use]
    pub fn find(&self, question: &Question) -> Option<&Route> {
        let mut found = None;
        for route in &self.routes {
            match question.lower().suffix_at(&route.zone) {
                Some(0) if question.rtype == Rtype::DS && !route.zone.is_root() => {
                    found = found.or(Some(route));
                }
                Some(_) => return Some(route),
                None => {}
            }
        }
        found
    }

    /// Where to count a query that [`Routes::handle`] says belongs to `route`.
    pub(crate) fn series(&self, route: Option<&Route>) -> Option<SeriesId> {
        route.map_or(self.dropped, |route| route.series)
    }

    /// Answers what [`crate::wire::Request::read`] has just taken in, as far as that needs
    /// no waiting. Also says whose zone it was.
    pub(crate) fn handle(
        &self,
        exchange: &mut Exchange,
        intake: Intake,
    ) -> (Handled, Option<&Route>) {
        let refused = match intake {
            Intake::Silent => return (Handled::NoQuery, None),
            Intake::Refuse(rcode) => Some(rcode),
            Intake::Query => None,
        };
        if let Some(rcode) = refused {
            if exchange.request.readable_question().is_some() {
                exchange.reply.begin(&exchange.request.question);
            } else {
                exchange.reply.begin_bare();
            }
            exchange.reply.rcode = rcode;
            finish(exchange);
            return (Handled::Reply, None);
        }
        exchange.begin();
        let route = self.find(&exchange.question);
        let chain = route.and_then(|route| route.chain_for(&exchange.question));
        let Some(chain) = chain else {
            exchange
                .reply
                .begin_with(&exchange.question, Rcode::REFUSED);
            finish(exchange);
            return (Handled::Reply, route);
        };
        let handled = match guard::descend(exchange, chain) {
            Progress::Waiting(index) => Handled::Waiting(Arc::clone(chain), index),
            Progress::Done(outcome) => conclude(exchange, outcome),
        };
        (handled, route)
    }
}

/// Makes the reply ready, if there is to be one.
pub(crate) fn conclude(exchange: &mut Exchange, outcome: crate::plugin::Outcome) -> Handled {
    match outcome {
        crate::plugin::Outcome::Dropped => Handled::Silent,
        crate::plugin::Outcome::Answered => {
            finish(exchange);
            Handled::Reply
        }
    }
}

fn finish(exchange: &mut Exchange) {
    let limit = exchange.request.reply_limit();
    exchange.reply.finish(&exchange.request, limit);
    for message in &mut exchange.more {
        message.finish(&exchange.request, limit);
    }
}
