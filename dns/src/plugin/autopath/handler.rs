use std::sync::LazyLock;

use futures::future::BoxFuture;
use prometheus::{IntCounter, IntCounterVec};

use super::config::{Config, Source};
use crate::plugin::{Exchange, Outcome, Plugin, Position, Step, counter_vec};
use crate::wire::{Name, Question, Rcode, Record, Reply};

static SUCCESSES: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Queries answered with the help of the client's search path.";
    counter_vec("coredns_autopath_success_total", help, &["server"])
});

/// Goes through search paths.
#[derive(Debug)]
pub(super) struct AutoPath {
    config: Config,
    successes: Option<IntCounter>,
}

impl AutoPath {
    pub(super) fn new(config: Config, server: &str) -> Self {
        let successes = SUCCESSES.as_ref();
        Self {
            config,
            successes: successes.map(|family| family.with_label_values(&[server])),
        }
    }

    /// The client's search path, if the question is one of those that go through it.
    fn path(&self, exchange: &Exchange, at: Position<'_>) -> Option<Vec<Name>> {
        let lower = exchange.question.lower();
        self.config.zones.find(lower)?;
        let path = match &self.config.source {
            Source::Fixed(path) => path.clone(),
            Source::Kubernetes(more) => {
                let client = exchange.request.source.ip();
                let mut plugins = at.plugins_below().iter();
                let mut path = plugins.find_map(|plugin| plugin.search_path(lower, client))?;
                path.extend_from_slice(more);
                path
            }
        };
        // The name with the first domain is what clients ask first. Without any domain there
        // is nothing to go through.
        let first = path.first().filter(|first| !first.is_root())?;
        lower.suffix_at(first).filter(|at| *at > 0)?;
        Some(path)
    }

    async fn search(&self, exchange: &mut Exchange, at: Position<'_>) -> Step {
        let Some(path) = self.path(exchange, at) else {
            return Step::Next;
        };
        let original = exchange.question.clone();
        let step = self.try_all(exchange, at, &original, &path).await;
        exchange.question.set(&original);
        step
    }

    async fn try_all(
        &self,
        exchange: &mut Exchange,
        at: Position<'_>,
        original: &Question,
        path: &[Name],
    ) -> Step {
        let mut first: Option<Reply> = None;
        for candidate in candidates(original, path) {
            exchange.question.set_name(&candidate);
            exchange.error = None;
            exchange.more.clear();
            if at.below(exchange).await == Outcome::Dropped {
                return Step::Drop;
            }
            if exchange.failed {
                return Step::Fail(exchange.reply.rcode);
            }
            if exchange.reply.rcode != Rcode::NXDOMAIN {
                if first.is_some() && !alias(&mut exchange.reply, original) {
                    return Step::Fail(Rcode::SERVFAIL);
                }
                if let Some(successes) = &self.successes {
                    successes.inc();
                }
                return Step::Answered;
            }
            first.get_or_insert_with(|| exchange.reply.clone());
        }
        if let Some(first) = first {
            exchange.reply = first;
        }
        Step::Answered
    }
}

/// The name as asked, and then with each of the other domains; those that would be too long
/// are left out.
fn candidates(original: &Question, path: &[Name]) -> Vec<Name> {
    let (name, mut candidates) = (original.name(), vec![original.name().clone()]);
    let Some((first, others)) = path.split_first() else {
        return candidates;
    };
    let at = original.lower().suffix_at(first).unwrap_or_default();
    let base = name.as_wire().get(..at).unwrap_or_default();
    let others = others.iter();
    candidates
        .extend(others.filter_map(|domain| Name::copied(&[base, domain.as_wire()].concat()).ok()));
    candidates
}

/// Makes a reply to another name one to `original`, which becomes an alias of the first owner
/// in the answer. Says whether the reply could be read.
fn alias(reply: &mut Reply, original: &Question) -> bool {
    let Ok(mut records) = reply.records() else {
        return false;
    };
    let name = original.name();
    let mut answer = records.answer.iter();
    if let Some(other) = answer.find(|record| !record.owner.eq_ignore_case(name)) {
        let cname = Record::cname(name.clone(), other.ttl, &other.owner);
        records.answer.insert(0, cname);
    }
    reply.rebuild(original, &records);
    true
}

impl Plugin for AutoPath {
    fn name(&self) -> &'static str {
        "autopath"
    }

    fn query(&self, exchange: &mut Exchange, at: Position<'_>) -> Step {
        match self.path(exchange, at) {
            Some(_) => Step::Wait,
            None => Step::Next,
        }
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, at: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(self.search(exchange, at))
    }
}
