use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::listen::{Closer, listen};

/// Seconds between two tries to listen.
pub const BIND_RETRY_S: u64 = 5;

/// Every so many failed tries in a row there is a log line: once a minute.
const LOG_EVERY_TRIES: u64 = 60 / BIND_RETRY_S;

/// Listens at an address as soon as that works, trying every [`BIND_RETRY_S`] seconds.
pub(super) async fn listen_with_retry(what: &str, address: SocketAddr) -> (TcpListener, Closer) {
    let mut failures: u64 = 0;
    loop {
        match listen(address) {
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
            }
        }
    }
}
