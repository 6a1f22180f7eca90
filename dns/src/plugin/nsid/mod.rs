//! `nsid`: which server answered (RFC 5001). See the README.

use std::sync::Arc;

use super::hostname::hostname;
use super::{Exchange, Plugin, Position, Setup, Step};
use crate::corefile::ConfigError;

/// The EDNS option of RFC 5001.
const NSID: u16 = 3;

/// Adds the identifier.
#[derive(Debug)]
struct Nsid {
    data: Vec<u8>,
}

/// `nsid [DATA...]`
///
/// # Errors
/// If it has options, or is given twice.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_body()?;
    let words: Vec<&str> = line.args().iter().map(|word| &**word).collect();
    let data = if words.is_empty() {
        hostname()
    } else {
        words.join(" ")
    };
    Ok(vec![Arc::new(Nsid {
        data: data.into_bytes(),
    })])
}

impl Plugin for Nsid {
    fn name(&self) -> &'static str {
        "nsid"
    }

    fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
        Step::Next
    }

    fn response(&self, exchange: &mut Exchange, _: Position<'_>) {
        if exchange.request.options().any(|(code, _)| code == NSID) {
            let options = &mut exchange.reply.options;
            options.retain(|(code, _)| *code != NSID);
            options.push((NSID, self.data.clone()));
        }
    }

    fn any_class(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::Step;
    use crate::plugin::trial::{Behind, Trial, query_with, reply};
    use crate::wire::Rcode;

    async fn options(directives: &str, asked: &[(u16, &[u8])], fails: bool) -> Vec<(u16, Vec<u8>)> {
        let behind = Behind::new("behind", move |exchange| {
            if fails {
                return Step::Fail(Rcode::SERVFAIL);
            }
            reply(exchange, Rcode::NOERROR, &[])
        });
        let block = Trial::new(directives, vec![behind]).unwrap();
        let mut exchange = query_with("a. A", Some(false), asked);
        let _answered = block.run(&mut exchange).await;
        exchange.reply.options
    }

    #[tokio::test]
    async fn who_asks_is_told() {
        let asks: &[(u16, &[u8])] = &[(10, b"cookie.."), (3, b"")];
        let expected = vec![(3, b"Use The Force".to_vec())];
        assert_eq!(options("nsid Use The Force", asks, false).await, expected);
        assert_eq!(
            options("nsid \"Use The Force\"", asks, true).await,
            expected
        );
        assert_eq!(options("nsid x", &[(10, b"cookie..")], false).await, []);
        let own = options("nsid", asks, false).await;
        assert!(!own[0].1.is_empty());
    }

    #[test]
    fn it_is_given_once() {
        assert!(Trial::refused("nsid\nnsid").starts_with("`nsid` may be given once"));
    }
}
