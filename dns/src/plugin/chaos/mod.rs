//! `chaos`: questions of class CH about the server. See the README.

use std::sync::Arc;

use super::hostname::hostname;
use super::{Exchange, Plugin, Position, Setup, Step};
use crate::corefile::ConfigError;
use crate::wire::{Class, Record, Rtype, Section};

const VERSION: &str = concat!("switchyard-dns-", env!("CARGO_PKG_VERSION"));
const AUTHORS: &str = "the Switchyard authors";
/// A string of a TXT record (RFC 1035 §3.3.14).
const TEXT_OCTETS_MAX: usize = 255;

/// Answers about the server.
#[derive(Debug)]
struct Chaos {
    version: Vec<u8>,
    authors: Vec<Vec<u8>>,
    hostname: Vec<u8>,
}

/// `chaos [VERSION] [AUTHORS...]`
///
/// # Errors
/// If it has options.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_body()?;
    let (version, authors) = match line.args() {
        [] => (VERSION, vec![AUTHORS]),
        [version] => (&**version, vec![AUTHORS]),
        [version, authors @ ..] => {
            let mut authors: Vec<&str> = authors.iter().map(|author| &**author).collect();
            authors.sort_unstable();
            authors.dedup();
            (&**version, authors)
        }
    };
    Ok(vec![Arc::new(Chaos {
        version: text(version),
        authors: authors.into_iter().map(text).collect(),
        hostname: text(&hostname()),
    })])
}

/// One string of a TXT record.
fn text(text: &str) -> Vec<u8> {
    let octets = text.as_bytes();
    let octets = octets.get(..TEXT_OCTETS_MAX).unwrap_or(octets);
    let length = u8::try_from(octets.len()).unwrap_or(u8::MAX);
    [&[length], octets].concat()
}

impl Plugin for Chaos {
    fn name(&self) -> &'static str {
        "chaos"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let question = &exchange.question;
        if question.class != Class::CH || question.rtype != Rtype::TXT {
            return Step::Next;
        }
        let mut texts = match question.lower().to_string().as_str() {
            "version.bind." | "version.server." => vec![self.version.clone()],
            "hostname.bind." | "id.server." => vec![self.hostname.clone()],
            "authors.bind." => self.authors.clone(),
            _ => return Step::Next,
        };
        fastrand::shuffle(&mut texts);
        let owner = question.name().clone();
        let reply = exchange.answer();
        for text in texts {
            let mut record = Record::new(owner.clone(), Rtype::TXT, 0, text);
            record.class = Class::CH;
            reply.push(Section::Answer, &record);
        }
        Step::Answered
    }

    fn answers_any_class(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::Step;
    use crate::plugin::trial::{Behind, Trial, answer};
    use crate::wire::Rcode;

    fn told(directives: &str, question: &str) -> Vec<String> {
        let behind = Behind::new("behind", |_| Step::Fail(Rcode::REFUSED));
        let exchange = Trial::new(directives, vec![behind]).unwrap().ask(question);
        if exchange.reply.rcode == Rcode::REFUSED {
            return vec!["REFUSED".to_owned()];
        }
        let mut records = answer(&exchange);
        records.sort_unstable();
        records
    }

    #[test]
    fn the_server_tells_of_itself() {
        let block = "chaos v1 b@o a@o b@o";
        let version = "VERSION.bind. 0 CH TXT \"v1\"";
        assert_eq!(told(block, "VERSION.bind. TXT CH"), [version]);
        assert_eq!(
            told(block, "version.server. TXT CH"),
            ["version.server. 0 CH TXT \"v1\""]
        );
        let authors = ["a", "b"].map(|it| format!("authors.bind. 0 CH TXT \"{it}@o\""));
        assert_eq!(told(block, "authors.bind. TXT CH"), authors);
        let version = concat!(
            "version.bind. 0 CH TXT \"switchyard-dns-",
            env!("CARGO_PKG_VERSION"),
            "\""
        );
        assert_eq!(told("chaos", "version.bind. TXT CH"), [version]);
        for question in [
            "hostname.bind. TXT CH",
            "id.server. TXT CH",
            "authors.bind. TXT CH",
        ] {
            assert_eq!(told("chaos", question).len(), 1, "{question}");
        }
        let long = told(
            &format!("chaos {}", "v".repeat(300)),
            "version.bind. TXT CH",
        );
        assert!(long[0].contains(&"v".repeat(255)) && !long[0].contains(&"v".repeat(256)));
    }

    #[test]
    fn other_questions_go_on() {
        for question in [
            "version.bind. TXT",
            "version.bind. A CH",
            "other.bind. TXT CH",
        ] {
            assert_eq!(told("chaos", question), ["REFUSED"], "{question}");
        }
        assert!(Trial::refused("chaos {\nx\n}").starts_with("`chaos` takes no block"));
    }
}
