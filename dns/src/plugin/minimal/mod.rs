//! `minimal`: answers without authority and additional section. See the README.

use std::sync::Arc;

use super::{Exchange, Plugin, Position, Setup, Step};
use crate::corefile::ConfigError;
use crate::wire::Kind;

/// Leaves the rest out.
#[derive(Debug)]
struct Minimal;

/// `minimal`
///
/// # Errors
/// If it has arguments or options.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_args()?;
    line.no_body()?;
    Ok(vec![Arc::new(Minimal)])
}

impl Plugin for Minimal {
    fn name(&self) -> &'static str {
        "minimal"
    }

    fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
        Step::Next
    }

    fn response(&self, exchange: &mut Exchange, _: Position<'_>) {
        if exchange.reply.kind(exchange.question.rtype) == Kind::Success {
            exchange.reply.keep_answer_only();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::trial::{Behind, Trial, record, reply, section};
    use crate::wire::{Rcode, Section};

    fn after(rcode: Rcode, records: &'static [&'static str]) -> [usize; 3] {
        let behind = Behind::new("behind", move |exchange| reply(exchange, rcode, records));
        let block = Trial::new("minimal", vec![behind]).unwrap();
        let mut exchange = block.ask("a.o. A");
        let counts = [Section::Answer, Section::Authority, Section::Additional]
            .map(|it| section(&exchange, it).len());
        // What comes behind may still be compressed.
        let late = record("late.o. 5 A 1.2.3.4");
        exchange.reply.push(Section::Additional, &late);
        let records = section(&exchange, Section::Additional);
        assert_eq!(records.last().unwrap(), "late.o. 5 IN A 1.2.3.4");
        counts
    }

    #[test]
    fn only_answers_lose_their_other_sections() {
        let answer = &[
            "an a.o. 5 A 1.2.3.4",
            "ns o. 5 NS late.o.",
            "ex late.o. 5 A 1.2.3.4",
        ];
        let denial = &["ns o. 5 SOA a. b. 1 2 3 4 5", "ex x.o. 5 A 1.2.3.4"];
        let delegation = &["ns o. 5 NS ns.o.", "ex ns.o. 5 A 1.2.3.4"];
        assert_eq!(after(Rcode::NOERROR, answer), [1, 0, 0]);
        assert_eq!(after(Rcode::NOERROR, &["ex x.o. 5 A 1.2.3.4"]), [0, 0, 0]);
        assert_eq!(after(Rcode::NOERROR, denial), [0, 1, 1]);
        assert_eq!(after(Rcode::NXDOMAIN, denial), [0, 1, 1]);
        assert_eq!(after(Rcode::NOERROR, delegation), [0, 1, 1]);
        assert_eq!(after(Rcode::REFUSED, &["ex x.o. 5 A 1.2.3.4"]), [0, 0, 1]);
    }

    #[test]
    fn it_has_no_options() {
        assert!(Trial::refused("minimal x").starts_with("`minimal` takes no argument"));
        assert!(Trial::refused("minimal\nminimal").starts_with("`minimal` may be given once"));
    }
}
