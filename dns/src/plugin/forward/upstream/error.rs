//! Why an upstream gave no reply.

use std::io;
use std::sync::Arc;

/// Why one query to one upstream brought no reply. The text says what happened and not to whom:
/// whoever reports it names the upstream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExchangeError {
    /// The bytes to send are not a query with exactly one question.
    #[error("the query is not a message with one question")]
    NotAQuery,
    /// The time is out. `ignored` replies came with the right id but were not an answer to it.
    #[error("no reply in time{}", ignored_text(*ignored))]
    Timeout {
        /// How many replies to this query's id did not match it.
        ignored: u32,
    },
    /// Nobody listens there: an ICMP error for UDP, a reset for TCP's SYN.
    #[error("connection refused")]
    Refused,
    /// The peer closed the connection before it answered.
    #[error("connection closed before the reply")]
    Closed,
    /// The TLS handshake failed, or the session broke.
    #[error("TLS: {0}")]
    Tls(Arc<str>),
    /// Any other error of a socket.
    #[error("{0}")]
    Network(Arc<io::Error>),
    /// Every socket carries as many queries as it may.
    #[error("too many queries wait for this upstream")]
    Busy,
}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> Self {
        if let Some(tls) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Self::Tls(tls.to_string().into());
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Network(Arc::new(error)),
        }
    }
}

fn ignored_text(ignored: u32) -> String {
    match ignored {
        0 => String::new(),
        1 => " (1 reply did not match the query)".to_owned(),
        more => format!(" ({more} replies did not match the query)"),
    }
}
