use super::edns::{EdnsRule, Options};
use super::matcher::Matcher;
use super::response::{CnameRule, Remap, ResponseRule, Rewriter};
use crate::plugin::Exchange;
use crate::wire::{Class, Name, Rcode, Rtype};

/// One `rewrite` directive.
#[derive(Debug)]
pub(super) struct Rule {
    /// Whether the next rule is tried after this one did something.
    pub(super) goes_on: bool,
    pub(super) field: Field,
}

/// What it rewrites.
#[derive(Debug)]
pub(super) enum Field {
    Name(NameRule),
    Type {
        from: Rtype,
        to: Rtype,
    },
    Class {
        from: Class,
        to: Class,
    },
    Ttl {
        names: Matcher,
        least: u32,
        most: u32,
    },
    Rcode {
        names: Matcher,
        from: Rcode,
        to: Rcode,
    },
    Cname(CnameRule),
    Edns0(EdnsRule),
}

/// `rewrite name`
#[derive(Debug)]
pub(super) struct NameRule {
    pub(super) from: Matcher,
    pub(super) to: String,
    /// Map the new name back to the old one in the reply.
    pub(super) auto: bool,
    /// What else to do to the reply.
    pub(super) answers: Vec<ResponseRule>,
}

/// What the rules have done to a query so far.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// For the reply, last first.
    pub(super) response: Vec<ResponseRule>,
    /// The name asked for now, in lower case, once a rule has looked at it.
    name: Option<String>,
    /// Options to send and options to show, once a rule has looked at them.
    pub(super) options: Option<(Options, Options)>,
}

/// A name that a rule made and that is none.
#[derive(Debug)]
pub(super) struct NotAName(pub(super) String);

impl Work {
    fn name(&mut self, exchange: &Exchange) -> &str {
        self.name
            .get_or_insert_with(|| exchange.question.lower().to_string())
    }
}

impl Rule {
    /// Tries the rule. Says whether it did anything.
    pub(super) fn apply(&self, exchange: &mut Exchange, work: &mut Work) -> Result<bool, NotAName> {
        match &self.field {
            Field::Name(rule) => rule.apply(exchange, work),
            Field::Type { from, to } => {
                let done = exchange.question.rtype == *from;
                if done {
                    exchange.question.rtype = *to;
                }
                Ok(done)
            }
            Field::Class { from, to } => {
                let done = exchange.question.class == *from;
                if done {
                    exchange.question.class = *to;
                }
                Ok(done)
            }
            Field::Ttl { names, least, most } => {
                let done = names.matches(work.name(exchange));
                if done {
                    work.response.push(ResponseRule::Ttl {
                        least: *least,
                        most: *most,
                    });
                }
                Ok(done)
            }
            Field::Rcode { names, from, to } => {
                let done = names.matches(work.name(exchange));
                if done {
                    work.response.push(ResponseRule::Rcode {
                        from: *from,
                        to: *to,
                    });
                }
                Ok(done)
            }
            Field::Cname(rule) => {
                work.response.push(ResponseRule::Cname(rule.clone()));
                Ok(true)
            }
            Field::Edns0(rule) => {
                let (sent, shown) = work.options.get_or_insert_with(|| {
                    let options = exchange.request.options();
                    let options: Options = options
                        .map(|(code, content)| (code, content.to_vec()))
                        .collect();
                    (options.clone(), options)
                });
                Ok(rule.apply(exchange, sent, shown))
            }
        }
    }
}

impl NameRule {
    fn apply(&self, exchange: &mut Exchange, work: &mut Work) -> Result<bool, NotAName> {
        let name = work.name(exchange);
        let Some(new) = self.from.replace(name, &self.to) else {
            return Ok(false);
        };
        let Ok(new) = Name::from_text(&new) else {
            return Err(NotAName(new));
        };
        if self.auto {
            let old = exchange.question.name().clone();
            work.response.extend(self.back(&new, &old));
        }
        work.response.extend(self.answers.iter().cloned());
        exchange.question.set_name(&new);
        work.name = None;
        Ok(true)
    }

    /// The way back: for a suffix it is the same rule with the sides changed, else the two names.
    fn back(&self, new: &Name, old: &Name) -> [ResponseRule; 2] {
        let rewriter = match &self.from {
            Matcher::Suffix(from) => Rewriter::Suffix {
                from: self.to.clone(),
                to: from.clone(),
            },
            _ => Rewriter::Remap(Box::new(Remap {
                from: new.to_lower(),
                to: old.clone(),
            })),
        };
        [
            ResponseRule::Names(rewriter.clone()),
            ResponseRule::Values(rewriter),
        ]
    }
}
