//! The metrics server, at `127.0.0.1:10249` by default: `/metrics`, `/proxyMode`, `/configz` and
//! a plain `/healthz` that says the process answers.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::StatusCode;

use super::bind::listen_with_retry;
use crate::metrics::{self, Metrics};
use switchyard_operation::http::{self, JSON, Reply, TEXT};

/// What it says of the agent besides metrics.
#[derive(Clone, Debug)]
pub struct About {
    /// The mode that runs: `iptables`, `nftables`, ...
    pub proxy_mode: &'static str,
    /// The configuration in force, as JSON.
    pub configz: String,
}

/// Serves until dropped; waits for the address if somebody else has it.
pub async fn serve(address: SocketAddr, about: About, metrics: Arc<Metrics>) {
    let (listener, _closer) = listen_with_retry("metrics server", address).await;
    let source = Arc::clone(&metrics);
    http::serve(
        listener,
        move || metrics.http_refused.inc(()),
        move |path| match path {
            "/healthz" => Reply::new(StatusCode::OK, TEXT, "ok".to_owned()),
            "/proxyMode" => Reply::new(StatusCode::OK, TEXT, about.proxy_mode.to_owned()),
            "/configz" => Reply::new(StatusCode::OK, JSON, about.configz.clone()),
            "/metrics" => match source.render() {
                Ok(text) => Reply::new(StatusCode::OK, metrics::CONTENT_TYPE, text),
                Err(error) => Reply::failed(&error),
            },
            _ => Reply::not_found(),
        },
    )
    .await;
}
