use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use regex::Regex;

use super::config::{Part, PartRecord, Template};
use super::language::{Data, Value};
use super::metrics::Labels;
use crate::plugin::record_text::record_from_text;
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{Class, EdeCode, Name, Question, Rcode, Record, Records, Rtype, Section};

/// All templates of a server block, tried in order.
#[derive(Debug)]
pub(super) struct Templates {
    templates: Vec<Template>,
    /// Label of metrics.
    server: Arc<str>,
}

/// A reply whose CNAMEs are still to be followed.
struct Unfollowed {
    template: usize,
    records: Records,
}

impl Templates {
    pub(super) fn new(templates: Vec<Template>, server: &Arc<str>) -> Self {
        Self {
            templates,
            server: Arc::clone(server),
        }
    }

    /// Makes the records of a template that matched. The error is a sentence.
    fn records(&self, template: &Template, data: &Data) -> Result<Records, String> {
        let labels = Labels {
            server: &self.server,
            data,
        };
        Ok(Records {
            answer: make("answer", &template.answer, labels)?,
            authority: make("authority", &template.authority, labels)?,
            additional: make("additional", &template.additional, labels)?,
        })
    }
}

fn make(section: &str, parts: &[Part], labels: Labels<'_>) -> Result<Vec<Record>, String> {
    let mut records = Vec::with_capacity(parts.len());
    for part in parts {
        match &part.record {
            PartRecord::Constant(record) => records.extend(record.as_deref().cloned()),
            PartRecord::Made(program) => {
                let text = program.run(labels.data).map_err(|problem| {
                    labels.template_failed(section, &part.text);
                    format!("template `{}`: {problem}", part.text)
                })?;
                let record = record_from_text(&text).map_err(|problem| {
                    labels.record_failed(section, &part.text);
                    format!("template `{}`: {problem}", part.text)
                })?;
                records.extend(record);
            }
        }
    }
    Ok(records)
}

/// What a template makes of a question.
enum Verdict {
    /// It is about other zones, classes or types.
    Other,
    /// No pattern matches.
    Mismatch,
    Match(Box<Data>),
}

impl Template {
    fn verdict(&self, exchange: &Exchange) -> Verdict {
        let question = &exchange.question;
        let Some(zone) = self.zones.find(question.lower()) else {
            return Verdict::Other;
        };
        let other_class = ![self.class, question.class].contains(&Class::ANY);
        let other_type = ![self.rtype, question.rtype].contains(&Rtype::ANY);
        if other_class && question.class != self.class || other_type && question.rtype != self.rtype
        {
            return Verdict::Other;
        }
        let name = question.lower().to_string();
        let found = self.patterns.iter().find(|pattern| pattern.is_match(&name));
        match found {
            Some(pattern) => Verdict::Match(Box::new(self.data(exchange, zone, &name, pattern))),
            None => Verdict::Mismatch,
        }
    }

    fn data(&self, exchange: &Exchange, zone: &Name, name: &str, pattern: &Regex) -> Data {
        let (question, request) = (&exchange.question, &exchange.request);
        let (mut matches, mut group) = (Vec::new(), BTreeMap::new());
        if let Some(captures) = pattern.captures(name) {
            for (index, (found, by_name)) in
                captures.iter().zip(pattern.capture_names()).enumerate()
            {
                let value = Value::text(found.map_or("", |found| found.as_str()));
                group.insert(index.to_string(), value.clone());
                if let Some(by_name) = by_name {
                    group.insert(by_name.to_owned(), value.clone());
                }
                matches.push(value);
            }
        }
        let class = if question.class == Class::ANY {
            self.class
        } else {
            question.class
        };
        let rtype = if question.rtype == Rtype::ANY {
            self.rtype
        } else {
            question.rtype
        };
        Data {
            zone: zone.to_string().into(),
            name: name.into(),
            regex: pattern.as_str().into(),
            matches: matches.into(),
            group: Arc::new(group),
            class: class.to_string().into(),
            rtype: rtype.to_string().into(),
            remote: request.source.ip().to_canonical().to_string().into(),
            question_name: question.name().to_string().into(),
            question_type: question.rtype.0,
            question_class: question.class.0,
            id: request.id,
            recursion_desired: request.recursion_desired,
            checking_disabled: request.checking_disabled,
            authentic_data: request.authentic_data,
        }
    }

    /// Writes the reply.
    fn answer(&self, exchange: &mut Exchange, records: &Records) -> Step {
        let reply = exchange.answer();
        reply.authoritative = true;
        reply.rcode = self.rcode;
        reply.ede.clone_from(&self.ede);
        for (section, records) in [
            (Section::Answer, &records.answer),
            (Section::Authority, &records.authority),
            (Section::Additional, &records.additional),
        ] {
            for record in records {
                reply.push(section, record);
            }
        }
        Step::Answered
    }
}

impl Plugin for Templates {
    fn name(&self) -> &'static str {
        "template"
    }

    fn query(&self, exchange: &mut Exchange, at: Position<'_>) -> Step {
        for (index, template) in self.templates.iter().enumerate() {
            let data = match template.verdict(exchange) {
                Verdict::Other => continue,
                Verdict::Mismatch
                    if template.fallthrough.lets_through(exchange.question.lower()) =>
                {
                    continue;
                }
                Verdict::Mismatch => return Step::Fail(Rcode::SERVFAIL),
                Verdict::Match(data) => data,
            };
            Labels {
                server: &self.server,
                data: &data,
            }
            .matched();
            if template.rcode == Rcode::SERVFAIL {
                exchange.reply.ede.clone_from(&template.ede);
                return Step::Fail(Rcode::SERVFAIL);
            }
            return match self.records(template, &data) {
                Err(problem) => {
                    exchange.explain(EdeCode::OTHER, problem);
                    Step::Fail(Rcode::SERVFAIL)
                }
                Ok(records) if to_follow(&records, &exchange.question) => {
                    exchange.note(
                        at.index(),
                        Unfollowed {
                            template: index,
                            records,
                        },
                    );
                    Step::Wait
                }
                Ok(records) => template.answer(exchange, &records),
            };
        }
        Step::Next
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, at: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(async move {
            let unfollowed = exchange.take_note::<Unfollowed>(at.index());
            let template = unfollowed
                .as_ref()
                .and_then(|note| self.templates.get(note.template));
            let (Some(Unfollowed { mut records, .. }), Some(template)) = (unfollowed, template)
            else {
                return Step::Next;
            };
            let truncated = follow(&mut records, exchange, at).await;
            let step = template.answer(exchange, &records);
            exchange.reply.truncated = truncated;
            step
        })
    }

    fn any_class(&self) -> bool {
        self.templates
            .iter()
            .any(|template| template.class != Class::IN)
    }
}

/// Whether there is a CNAME to be followed: for addresses only, as in the reference.
fn to_follow(records: &Records, question: &Question) -> bool {
    matches!(question.rtype, Rtype::A | Rtype::AAAA)
        && records
            .answer
            .iter()
            .any(|record| record.rtype == Rtype::CNAME)
}

/// Puts behind each CNAME what the server itself answers for its target. Says whether one of
/// these answers was cut.
async fn follow(records: &mut Records, exchange: &Exchange, at: Position<'_>) -> bool {
    let mut truncated = false;
    let mut answer = Vec::with_capacity(records.answer.len() + 1);
    for record in records.answer.drain(..) {
        let target = record.target().filter(|_| record.rtype == Rtype::CNAME);
        answer.push(record);
        let Some(target) = target else { continue };
        let question = Question::new(target, exchange.question.rtype);
        if let Some(found) = at.resolve(&question, exchange).await
            && let Ok(found_records) = found.reply.records()
        {
            truncated = found.reply.truncated;
            answer.extend(found_records.answer);
        }
    }
    records.answer = answer;
    truncated
}
