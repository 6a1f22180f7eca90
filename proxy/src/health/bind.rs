use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::listen::{Closer, listen};

/// Seconds between two tries to listen.
pub const BIND_RETRY_S: u64 = 5;

/// Every so many failed tries in a row there is a log line: once a minute.
const LOG_EVERY_TRIES: u64 = 60 / BIND_RETRY_S;

/// A server's address, and what came of the first try to listen there.
pub struct Bind {
    what: &'static str,
    address: SocketAddr,
    bound: io::Result<(TcpListener, Closer)>,
}

/// A server's address can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{what} can't listen at {address}: {source}")]
pub struct BindError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl Bind {
    /// Tries once. Needs to run within a tokio runtime.
    #[must_use]
    pub fn new(what: &'static str, address: SocketAddr) -> Self {
        Self {
            what,
            address,
            bound: listen(address),
        }
    }

    /// What went wrong, if something did.
    #[must_use]
    pub fn error(&self) -> Option<BindError> {
        let error = self.bound.as_ref().err()?;
        Some(BindError {
            what: self.what,
            address: self.address,
            source: io::Error::new(error.kind(), error.to_string()),
        })
    }

    /// Listens as soon as that works, trying every [`BIND_RETRY_S`] seconds.
    pub(super) async fn listen(self) -> (TcpListener, Closer) {
        let Self {
            what,
            address,
            mut bound,
        } = self;
        let mut failures: u64 = 0;
        loop {
            match bound {
                Ok((listener, closer)) => {
                    let local = listener.local_addr().unwrap_or(address);
                    tracing::info!(%local, failed_tries = failures, "{what} listens");
                    return (listener, closer);
                }
                Err(error) => {
                    if failures.is_multiple_of(LOG_EVERY_TRIES) {
                        tracing::error!(
                            %address, %error, failed_tries = failures + 1,
                            "{what} can't listen; trying again every {BIND_RETRY_S} s"
                        );
                    }
                    failures += 1;
                    tokio::time::sleep(Duration::from_secs(BIND_RETRY_S)).await;
                    bound = listen(address);
                }
            }
        }
    }
}

impl fmt::Debug for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.what, self.address)
    }
}
