use std::sync::Arc;

use super::config::{Class, Rule};
use crate::lines::{Level, Lines};
use crate::plugin::{Exchange, Plugin, Position, Step};

/// Prints queries.
#[derive(Debug)]
pub(super) struct Log {
    rules: Vec<Rule>,
    lines: Arc<Lines>,
}

impl Log {
    pub(super) fn new(rules: Vec<Rule>, lines: Arc<Lines>) -> Self {
        Self { rules, lines }
    }
}

impl Plugin for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
        Step::Next
    }

    fn response(&self, exchange: &mut Exchange, _: Position<'_>) {
        let question = &exchange.request.question;
        let mut rules = self.rules.iter();
        let Some(rule) = rules.find(|rule| question.lower().is_within(&rule.names)) else {
            return;
        };
        let kind = exchange.reply.kind(question.rtype);
        let class = Class::of(kind);
        if rule
            .classes
            .as_ref()
            .is_none_or(|classes| classes.contains(&class))
        {
            self.lines
                .write(Level::Info, &rule.format.line(exchange, kind));
        }
    }

    fn any_class(&self) -> bool {
        true
    }
}
