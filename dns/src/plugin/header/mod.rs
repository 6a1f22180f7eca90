//! `header`: flags of queries and replies. See the README.

use std::sync::Arc;

use super::{Exchange, Plugin, Position, Setup, Step};
use crate::corefile::{ConfigError, Line};

/// Changes flags.
#[derive(Debug, Default)]
struct Header {
    query: Changes,
    response: Changes,
}

/// What becomes of each flag; `None` if it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changes {
    authoritative: Option<bool>,
    recursion_available: Option<bool>,
    recursion_desired: Option<bool>,
}

/// `header { query|response set|clear FLAGS... }`
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_args()?;
    let mut header = Header::default();
    for option in line.options() {
        option.no_body()?;
        match option.name().to_ascii_lowercase().as_str() {
            "query" => change(option, &mut header.query)?,
            "response" => change(option, &mut header.response)?,
            _ => return Err(option.unknown_option(&["query", "response"])),
        }
    }
    if (header.query, header.response) == Default::default() {
        return Err(line.error("`header` changes nothing; expected `response set FLAGS`"));
    }
    Ok(vec![Arc::new(header)])
}

fn change(option: &Line, changes: &mut Changes) -> Result<(), ConfigError> {
    let args = option.between(2, usize::MAX, "`set` or `clear`, and flags")?;
    let Some((action, flags)) = args.split_first() else {
        return Ok(());
    };
    let value = match action.to_ascii_lowercase().as_str() {
        "set" => true,
        "clear" => false,
        _ => return Err(action.error(format!("expected `set` or `clear`, found `{action}`"))),
    };
    for flag in flags {
        let place = match flag.to_ascii_lowercase().as_str() {
            "aa" => &mut changes.authoritative,
            "ra" => &mut changes.recursion_available,
            "rd" => &mut changes.recursion_desired,
            _ => {
                return Err(flag.error(format!("unknown flag `{flag}`; known are: aa, ra, rd")));
            }
        };
        *place = Some(value);
    }
    Ok(())
}

impl Plugin for Header {
    fn name(&self) -> &'static str {
        "header"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let request = &mut exchange.request;
        let desired = self.query.recursion_desired;
        request.recursion_desired = desired.unwrap_or(request.recursion_desired);
        Step::Next
    }

    fn response(&self, exchange: &mut Exchange, _: Position<'_>) {
        let (request, reply) = (&mut exchange.request, &mut exchange.reply);
        for (change, flag) in [
            (self.response.authoritative, &mut reply.authoritative),
            (
                self.response.recursion_available,
                &mut reply.recursion_available,
            ),
            // The reply copies the request's.
            (
                self.response.recursion_desired,
                &mut request.recursion_desired,
            ),
        ] {
            *flag = change.unwrap_or(*flag);
        }
    }

    fn any_class(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::trial::{Behind, Trial, reply};
    use crate::wire::Rcode;

    /// RD as the upstream sees it, then AA, RA, RD of the reply, which were set, not set, set.
    fn flags(options: &str) -> [bool; 4] {
        let behind = Behind::new("behind", |exchange| {
            let step = reply(exchange, Rcode::NOERROR, &[]);
            exchange.reply.authoritative = true;
            exchange.reply.authentic_data = exchange.request.recursion_desired;
            step
        });
        let block = Trial::new(&format!("header {{\n{options}\n}}"), vec![behind]).unwrap();
        let exchange = block.ask("a. A");
        let reply = &exchange.reply;
        let desired = exchange.request.recursion_desired;
        [
            reply.authentic_data,
            reply.authoritative,
            reply.recursion_available,
            desired,
        ]
    }

    #[test]
    fn flags_are_set_and_cleared() {
        let cases = [
            ("response set ra", [true, true, true, true]),
            ("response clear aa rd", [true, false, false, false]),
            (
                "response set ra aa\nresponse clear rd",
                [true, true, true, false],
            ),
            (
                "RESPONSE SET RA\nresponse clear ra",
                [true, true, false, true],
            ),
            ("query clear rd", [false, true, false, false]),
            (
                "query clear rd\nresponse set rd",
                [false, true, false, true],
            ),
        ];
        for (options, expected) in cases {
            assert_eq!(flags(options), expected, "{options}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (directives, expected) in [
            ("header", "`header` changes nothing"),
            ("header {\n}", "`header` changes nothing"),
            (
                "header {\nreply set ra\n}",
                "unknown option `reply`; known are: query, response",
            ),
            (
                "header {\nresponse set\n}",
                "`response` takes `set` or `clear`, and flags",
            ),
            (
                "header {\nresponse put ra\n}",
                "expected `set` or `clear`, found `put`",
            ),
            (
                "header {\nresponse set tc\n}",
                "unknown flag `tc`; known are: aa, ra, rd",
            ),
        ] {
            let message = Trial::refused(directives);
            assert!(message.starts_with(expected), "{directives}: {message}");
        }
    }
}
