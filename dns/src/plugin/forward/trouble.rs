//! What went wrong with the upstreams of one query, in words for clients and the log.

use super::upstream::{ExchangeError, Upstream};
use crate::wire::{EdeCode, Malformed};

/// How many upstreams are named; the rest are counted. The text has to fit an EDE option.
const NAMED_UPSTREAMS_MAX: usize = 3;

/// Each upstream that failed, with its last failure.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    failures: Vec<(String, String)>,
    /// Something else than silence.
    is_network_error: bool,
}

impl Trouble {
    pub(super) fn note_error(&mut self, upstream: &Upstream, error: &ExchangeError) {
        self.is_network_error |= !matches!(error, ExchangeError::Timeout { .. });
        self.note(upstream.to_string(), error.to_string());
    }

    pub(super) fn note_malformed(&mut self, upstream: &Upstream, reason: Malformed) {
        self.is_network_error = true;
        self.note(upstream.to_string(), reason.to_string());
    }

    fn note(&mut self, upstream: String, failure: String) {
        let known = self.failures.iter_mut().find(|(name, _)| *name == upstream);
        match known {
            Some((_, last)) => *last = failure,
            None => self.failures.push((upstream, failure)),
        }
    }

    /// The code of RFC 8914 and the text: `192.0.2.1:53: no reply in time; …`.
    pub(super) fn explained(&self) -> (EdeCode, String) {
        if self.failures.is_empty() {
            let reason = "all upstreams are down, by their health checks";
            return (EdeCode::NO_REACHABLE_AUTHORITY, reason.to_owned());
        }
        let named: Vec<String> = self
            .failures
            .iter()
            .take(NAMED_UPSTREAMS_MAX)
            .map(|(upstream, failure)| format!("{upstream}: {failure}"))
            .collect();
        let mut text = named.join("; ");
        if let Some(more @ 1..) = self.failures.len().checked_sub(NAMED_UPSTREAMS_MAX) {
            text.push_str(&format!("; and {more} more"));
        }
        let code = if self.is_network_error {
            EdeCode::NETWORK_ERROR
        } else {
            EdeCode::NO_REACHABLE_AUTHORITY
        };
        (code, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::forward::upstream::UpstreamOptions;

    fn upstream(last: u8) -> std::sync::Arc<Upstream> {
        let to = ([192, 0, 2, last], 53).into();
        Upstream::new(to, UpstreamOptions::default()).unwrap()
    }

    #[test]
    fn silence_alone_is_an_unreachable_authority() {
        let mut trouble = Trouble::default();
        trouble.note_error(&upstream(1), &ExchangeError::Timeout { ignored: 0 });
        trouble.note_error(&upstream(2), &ExchangeError::Timeout { ignored: 3 });
        trouble.note_error(&upstream(1), &ExchangeError::Timeout { ignored: 0 });
        let text = "192.0.2.1:53: no reply in time; \
                    192.0.2.2:53: no reply in time (3 replies did not match the query)";
        let expected = (EdeCode::NO_REACHABLE_AUTHORITY, text.to_owned());
        assert_eq!(trouble.explained(), expected);
    }

    #[test]
    fn anything_else_is_a_network_error_and_many_are_counted() {
        let mut trouble = Trouble::default();
        for last in 1..=5 {
            trouble.note_error(&upstream(last), &ExchangeError::Refused);
        }
        let (code, text) = trouble.explained();
        assert_eq!(code, EdeCode::NETWORK_ERROR);
        assert!(
            text.starts_with("192.0.2.1:53: connection refused; 192.0.2.2:53"),
            "{text}"
        );
        assert!(text.ends_with("; and 2 more"), "{text}");
    }

    #[test]
    fn nobody_asked_means_all_are_down() {
        let (code, text) = Trouble::default().explained();
        assert_eq!(code, EdeCode::NO_REACHABLE_AUTHORITY);
        assert!(text.contains("all upstreams are down"));
    }
}
