//! `bufsize`: bounds the size of UDP replies. See the README.

use std::sync::Arc;

use super::{Exchange, Plugin, Position, Setup, Step};
use crate::corefile::ConfigError;

/// Octets by default, which pass nearly all networks whole (DNS flag day 2020).
const SIZE_OCTETS: u16 = 1_232;

/// Bounds what clients say they take.
#[derive(Debug)]
struct BufferSize {
    octets: u16,
}

/// `bufsize [SIZE]`
///
/// # Errors
/// If SIZE is not a number from 512 to 4096, or there are options.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_body()?;
    let octets = match line.between(0, 1, "a size")? {
        [size, ..] => size.number("the size of `bufsize`", 512..=4_096)?,
        [] => SIZE_OCTETS,
    };
    Ok(vec![Arc::new(BufferSize { octets })])
}

impl Plugin for BufferSize {
    fn name(&self) -> &'static str {
        "bufsize"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        if let Some(edns) = &mut exchange.request.edns {
            edns.udp_size = edns.udp_size.min(self.octets);
        }
        Step::Next
    }

    fn any_class(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::trial::{Behind, Trial, query, query_with, reply};
    use crate::wire::Rcode;

    #[tokio::test]
    async fn what_clients_take_is_bounded() {
        for (directives, with_edns, expected) in [
            ("bufsize", true, 1_232),
            ("bufsize 512", true, 512),
            // The client takes 4096 only.
            ("bufsize 4096", true, 4_096),
            ("bufsize 1100", false, 512),
        ] {
            let behind = Behind::new("behind", |exchange| reply(exchange, Rcode::NOERROR, &[]));
            let block = Trial::new(directives, vec![behind]).unwrap();
            let mut exchange = if with_edns {
                query_with("a. A", Some(false), &[])
            } else {
                query("a. A")
            };
            let _answered = block.run(&mut exchange).await;
            assert_eq!(exchange.request.reply_limit(), expected, "{directives}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (directives, expected) in [
            (
                "bufsize 511",
                "the size of `bufsize` must be a number from 512 to 4096",
            ),
            (
                "bufsize 4097",
                "the size of `bufsize` must be a number from 512 to 4096",
            ),
            (
                "bufsize x",
                "the size of `bufsize` must be a number from 512 to 4096",
            ),
            (
                "bufsize 512 512",
                "`bufsize` takes a size, but has 2 arguments",
            ),
        ] {
            let message = Trial::refused(directives);
            assert!(message.starts_with(expected), "{directives}: {message}");
        }
    }
}
