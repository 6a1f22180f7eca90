use futures::future::BoxFuture;

use super::edns::Options;
use super::response::{CnameRule, ResponseRule};
use super::rule::{Field, NotAName, Rule, Work};
use crate::plugin::{Exchange, Outcome, Plugin, Position, Step};
use crate::wire::{EdeCode, Name, Question, Rcode, Records, Rtype};

/// The rules of a server block.
#[derive(Debug)]
pub(super) struct Rewrite {
    rules: Vec<Rule>,
    /// Codes of options that rules name: the reply shows these to a client that uses EDNS.
    shown_codes: Vec<u16>,
}

/// What is left for the way up.
struct Note {
    question: Question,
    response: Vec<ResponseRule>,
    shown: Options,
}

impl Rewrite {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        let shown_codes = rules.iter().filter_map(|rule| match &rule.field {
            Field::Edns0(rule) => Some(rule.code),
            _ => None,
        });
        // NSID and client subnet have answers of their own, which are not the question again.
        let shown_codes =
            shown_codes.filter(|code| ![super::edns::NSID, super::edns::SUBNET].contains(code));
        Self {
            shown_codes: shown_codes.collect(),
            rules,
        }
    }

    /// Tries the rules on the question, which was `question`; leaves a note if any did something.
    fn rewrite(
        &self,
        exchange: &mut Exchange,
        question: &Question,
    ) -> Result<Option<Note>, NotAName> {
        let mut work = Work::default();
        for rule in &self.rules {
            let done = rule.apply(exchange, &mut work)?;
            if done && !rule.goes_on {
                break;
            }
        }
        let options = work.options;
        if work.response.is_empty() && options.is_none() && *question == exchange.question {
            return Ok(None);
        }
        let mut shown = Vec::new();
        if let Some((sent, all)) = options {
            exchange.request.rewritten_options = Some(sent);
            shown = all;
            shown.retain(|(code, _)| self.shown_codes.contains(code));
        }
        let question = question.clone();
        Ok(Some(Note {
            question,
            response: work.response,
            shown,
        }))
    }
}

impl Note {
    fn follows_cnames(&self) -> bool {
        self.response
            .iter()
            .any(|rule| matches!(rule, ResponseRule::Cname(_)))
    }

    /// Puts the reply right.
    fn put_right(self, exchange: &mut Exchange) {
        let records = exchange.reply.records();
        let Ok(mut records) = records else {
            exchange.question.set(&self.question);
            exchange.explain(
                EdeCode::OTHER,
                "the reply to a rewritten question is malformed",
            );
            return exchange.fail(Rcode::SERVFAIL);
        };
        for rule in self.response.iter().rev() {
            rule.apply(&mut records);
            if let ResponseRule::Rcode { from, to } = rule
                && exchange.reply.rcode == *from
            {
                exchange.reply.rcode = *to;
            }
        }
        exchange.question.set(&self.question);
        exchange.reply.rebuild(&self.question, &records);
        exchange.reply.options.extend(self.shown);
    }
}

impl Plugin for Rewrite {
    fn name(&self) -> &'static str {
        "rewrite"
    }

    fn query(&self, exchange: &mut Exchange, at: Position<'_>) -> Step {
        let before = exchange.question.clone();
        match self.rewrite(exchange, &before) {
            Ok(None) => Step::Next,
            Ok(Some(note)) => {
                let step = if note.follows_cnames() {
                    Step::Wait
                } else {
                    Step::Next
                };
                exchange.note(at.index(), note);
                step
            }
            Err(NotAName(name)) => {
                exchange.question.set(&before);
                let problem = format!("after a rewrite `{name}` is not a domain name");
                exchange.explain(EdeCode::OTHER, problem);
                Step::Fail(Rcode::SERVFAIL)
            }
        }
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, at: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(async move {
            let Some(note) = exchange.take_note::<Note>(at.index()) else {
                return Step::Next;
            };
            if at.below(exchange).await == Outcome::Dropped {
                return Step::Drop;
            }
            for rule in note.response.iter().rev() {
                if let ResponseRule::Cname(rule) = rule {
                    follow(rule, exchange, at).await;
                }
            }
            note.put_right(exchange);
            Step::Answered
        })
    }

    fn response(&self, exchange: &mut Exchange, at: Position<'_>) {
        if let Some(note) = exchange.take_note::<Note>(at.index()) {
            note.put_right(exchange);
        }
    }

    fn any_class(&self) -> bool {
        true
    }
}

/// Gives the first CNAME that the rule is about its new target, and puts what the server answers
/// for that in the place of what follows.
async fn follow(rule: &CnameRule, exchange: &mut Exchange, at: Position<'_>) {
    let Ok(mut records) = exchange.reply.records() else {
        return;
    };
    let Some((place, target)) = place_of(rule, &records) else {
        return;
    };
    let question = Question::new(target.clone(), exchange.question.rtype);
    let Some(found) = at.resolve(&question, exchange).await else {
        return;
    };
    let Ok(found_records) = found.reply.records() else {
        return;
    };
    records.answer.truncate(place + 1);
    // CNAMEs are kept up to here; what stood between them was about other targets.
    records.answer.retain(|record| record.rtype == Rtype::CNAME);
    if let Some(cname) = records.answer.last_mut() {
        cname.data = target.as_wire().to_vec();
    }
    records.answer.extend(found_records.answer);
    let asked = exchange.question.clone();
    exchange.reply.rebuild(&asked, &records);
    exchange.reply.truncated = found.reply.truncated;
}

fn place_of(rule: &CnameRule, records: &Records) -> Option<(usize, Name)> {
    records
        .answer
        .iter()
        .enumerate()
        .find_map(|(place, record)| {
            let target = record.target().filter(|_| record.rtype == Rtype::CNAME)?;
            Some((place, rule.new_target(&target)?))
        })
}
