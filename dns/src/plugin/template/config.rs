use std::sync::Arc;

use regex::Regex;

use super::language::Program;
use crate::corefile::{ConfigError, Line, Token};
use crate::plugin::BlockSettings;
use crate::plugin::pattern::pattern;
use crate::plugin::record_text::record_from_text;
use crate::plugin::zones::{Fallthrough, Zones};
use crate::wire::{Class, EdeCode, Rcode, Record, Rtype};

const OPTIONS: &[&str] = &[
    "match",
    "answer",
    "additional",
    "authority",
    "rcode",
    "ederror",
    "fallthrough",
];

/// A `template` directive.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) zones: Zones,
    pub(super) class: Class,
    pub(super) rtype: Rtype,
    /// At least one.
    pub(super) patterns: Vec<Regex>,
    pub(super) answer: Vec<Part>,
    pub(super) authority: Vec<Part>,
    pub(super) additional: Vec<Part>,
    pub(super) rcode: Rcode,
    pub(super) ede: Option<(EdeCode, String)>,
    pub(super) fallthrough: Fallthrough,
}

/// What makes one record.
#[derive(Debug)]
pub(super) struct Part {
    /// As the Corefile has it, for metrics and messages.
    pub(super) text: Arc<str>,
    pub(super) record: PartRecord,
}

#[derive(Debug)]
pub(super) enum PartRecord {
    /// The same for every question.
    Constant(Option<Box<Record>>),
    Made(Program),
}

impl Template {
    pub(super) fn read(line: &Line, block: &BlockSettings) -> Result<Self, ConfigError> {
        let [class, rtype, zones @ ..] = line.args() else {
            return Err(line.error("`template` takes a class, a type and perhaps zones"));
        };
        let mut template = Self {
            zones: Zones::from_args(zones, &block.zones)?,
            class: Class::from_text(class).ok_or_else(|| {
                class.error(format!("`{class}` is not a class, such as IN or ANY"))
            })?,
            rtype: Rtype::from_text(rtype)
                .ok_or_else(|| rtype.error(format!("`{rtype}` is not a type, such as A or ANY")))?,
            patterns: Vec::new(),
            answer: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            rcode: Rcode::NOERROR,
            ede: None,
            fallthrough: Fallthrough::default(),
        };
        for option in line.options() {
            template.read_option(option)?;
        }
        if template.patterns.is_empty() {
            let everything = Regex::new("").map_err(|problem| line.error(problem.to_string()))?;
            template.patterns.push(everything);
        }
        Ok(template)
    }

    fn read_option(&mut self, option: &Line) -> Result<(), ConfigError> {
        option.no_body()?;
        match &*option.name().text {
            "match" => {
                for expression in option.between(1, usize::MAX, "regular expressions")? {
                    self.patterns.push(pattern(expression)?);
                }
            }
            "answer" => read_parts(option, &mut self.answer)?,
            "authority" => read_parts(option, &mut self.authority)?,
            "additional" => read_parts(option, &mut self.additional)?,
            "rcode" => {
                let [code] = option.exactly("a response code such as NXDOMAIN")?;
                // An old spelling.
                let text = if &*code.text == "NOTIMPL" {
                    "NOTIMP"
                } else {
                    code
                };
                self.rcode = Rcode::from_text(text)
                    .ok_or_else(|| code.error(format!("`{code}` is not a response code")))?;
            }
            "ederror" => {
                let args = option.between(1, 2, "a code of RFC 8914 and perhaps a text")?;
                let code = args[0].number("the code of an extended error", 0..=u16::MAX)?;
                let reason = args.get(1).map(ToString::to_string).unwrap_or_default();
                self.ede = Some((EdeCode(code), reason));
            }
            "fallthrough" => self.fallthrough = Fallthrough::from_line(option)?,
            // Without any effect in the reference as well.
            "upstream" => {}
            "var" | "expr" => {
                return Err(option.error(format!(
                    "`{}` can't be had: the expr language is not built in; \
                     expected `match` with a more exact pattern",
                    option.name()
                )));
            }
            _ => return Err(option.unknown_option(OPTIONS)),
        }
        Ok(())
    }
}

fn read_parts(option: &Line, parts: &mut Vec<Part>) -> Result<(), ConfigError> {
    for text in option.between(1, usize::MAX, "records as in a zone file, each in quotes")? {
        parts.push(read_part(text)?);
    }
    Ok(())
}

fn read_part(text: &Token) -> Result<Part, ConfigError> {
    let program = Program::parse(text)
        .map_err(|problem| text.error(format!("template `{text}`: {problem}")))?;
    if Program::uses_metadata(text) {
        tracing::warn!(
            "{}: `.Meta` is empty: no plugin of ours publishes metadata",
            text.at
        );
    }
    let record = if program.is_constant() {
        let record = record_from_text(text).map_err(|problem| text.error(problem))?;
        PartRecord::Constant(record.map(Box::new))
    } else {
        PartRecord::Made(program)
    };
    Ok(Part {
        text: Arc::clone(&text.text),
        record,
    })
}
