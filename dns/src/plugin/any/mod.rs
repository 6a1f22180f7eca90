//! `any`: a minimal answer to ANY queries (RFC 8482). See the README.

use std::sync::Arc;

use super::{Exchange, Plugin, Position, Setup, Step};
use crate::corefile::ConfigError;
use crate::wire::{Record, Rtype, Section};

/// Seconds the answer may be kept; the reference's little joke.
const TTL_S: u32 = 8482;

/// Answers ANY with one HINFO record.
#[derive(Debug)]
struct Any;

/// `any`
///
/// # Errors
/// If it has arguments or options.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_args()?;
    line.no_body()?;
    Ok(vec![Arc::new(Any)])
}

impl Plugin for Any {
    fn name(&self) -> &'static str {
        "any"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        if exchange.question.rtype != Rtype::ANY {
            return Step::Next;
        }
        let mut data = Vec::new();
        for text in ["ANY obsoleted", "See RFC 8482"] {
            data.extend(u8::try_from(text.len()));
            data.extend_from_slice(text.as_bytes());
        }
        let owner = exchange.question.name().clone();
        let record = Record::new(owner, Rtype::HINFO, TTL_S, data);
        exchange.answer().push(Section::Answer, &record);
        Step::Answered
    }
}
