//! The metrics server, at `127.0.0.1:10249` by default: `/metrics`, `/metrics/slis`,
//! `/proxyMode`, `/configz` and a plain `/healthz` that says the process answers.

use std::sync::Arc;

use hyper::StatusCode;

use super::bind::Bind;
use crate::metrics::{self, Metrics, MetricsError, Slis};
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
pub async fn serve(at: Bind, about: About, slis: Slis, metrics: Arc<Metrics>) {
    let (listener, _closer) = at.listen().await;
    let source = Arc::clone(&metrics);
    http::serve(
        listener,
        move || metrics.http_refused.inc(()),
        move |path| match path {
            "/healthz" => {
                slis.answered();
                Reply::new(StatusCode::OK, TEXT, "ok".to_owned())
            }
            "/proxyMode" => Reply::new(StatusCode::OK, TEXT, about.proxy_mode.to_owned()),
            "/configz" => Reply::new(StatusCode::OK, JSON, about.configz.clone()),
            "/metrics" => scraped(source.render()),
            "/metrics/slis" => scraped(slis.render()),
            _ => Reply::not_found(),
        },
    )
    .await;
}

fn scraped(text: Result<String, MetricsError>) -> Reply {
    match text {
        Ok(text) => Reply::new(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => Reply::failed(&error),
    }
}
