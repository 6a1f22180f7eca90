use super::config::{Action, List};
use super::metrics::Metrics;
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{EdeCode, Name, Rcode};

/// Decides who gets an answer.
#[derive(Debug)]
pub(super) struct Acl {
    lists: Vec<List>,
    metrics: Metrics,
}

impl Acl {
    pub(super) fn new(lists: Vec<List>, metrics: Metrics) -> Self {
        Self { lists, metrics }
    }

    /// The first line that fits, and the zone it is for.
    fn decide(&self, exchange: &Exchange) -> Option<(Action, &Name)> {
        let (question, client) = (&exchange.question, exchange.request.source.ip());
        self.lists.iter().find_map(|list| {
            let zone = list.zones.find(question.lower())?;
            let mut policies = list.policies.iter();
            let policy = policies.find(|policy| policy.fits(question.rtype, client))?;
            Some((policy.action, zone))
        })
    }
}

impl Plugin for Acl {
    fn name(&self) -> &'static str {
        "acl"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let (action, zone) = match self.decide(exchange) {
            None | Some((Action::Allow, _)) => {
                self.metrics.count_allowed();
                return Step::Next;
            }
            Some(decided) => decided,
        };
        self.metrics.count(action, &zone.to_string());
        let (rcode, code) = match action {
            Action::Drop => return Step::Drop,
            Action::Filter => (Rcode::NOERROR, EdeCode::FILTERED),
            Action::Allow | Action::Block => (Rcode::REFUSED, EdeCode::BLOCKED),
        };
        let reply = exchange.answer();
        reply.rcode = rcode;
        reply.ede = Some((code, String::new()));
        Step::Answered
    }

    fn any_class(&self) -> bool {
        true
    }
}
