//! The metrics server, at `127.0.0.1:10249` by default: `/metrics`, `/metrics/slis`,
//! `/proxyMode`, `/configz` and a plain `/healthz` that says the process answers.

use std::sync::Arc;

use hyper::StatusCode;

use super::access::Access;
use super::bind::Bind;
use crate::metrics::{self, Metrics, MetricsError, Slis};
use switchyard_operation::http::{self, Asked, JSON, Reply, TEXT};
use switchyard_operation::tls::Tls;

/// What it says of the agent besides metrics.
#[derive(Clone, Debug)]
pub struct About {
    /// The mode that runs: `iptables`, `nftables`, ...
    pub proxy_mode: &'static str,
    /// The configuration in force, as JSON.
    pub configz: String,
}

/// Who may connect, and how.
#[derive(Debug, Default)]
pub struct Guard {
    /// Over TLS, with this.
    pub tls: Option<Tls>,
    /// Who may read all pages but `/healthz`.
    pub access: Access,
}

/// Serves until dropped; waits for the address if somebody else has it.
pub async fn serve(at: Bind, guard: Guard, about: About, slis: Slis, metrics: Arc<Metrics>) {
    let (listener, _closer) = at.listen().await;
    let Guard { tls, access } = guard;
    let refused = Arc::clone(&metrics);
    let pages = Arc::new(Pages {
        about,
        slis,
        metrics,
        access,
    });
    http::serve_guarded(
        listener,
        tls,
        move || refused.http_refused.inc(()),
        move |asked| {
            let pages = Arc::clone(&pages);
            async move { pages.answer(&asked).await }
        },
    )
    .await;
}

struct Pages {
    about: About,
    slis: Slis,
    metrics: Arc<Metrics>,
    access: Access,
}

impl Pages {
    async fn answer(&self, asked: &Asked) -> Reply {
        let page: fn(&Self) -> Reply = match asked.path.as_str() {
            "/healthz" => {
                // Whoever can connect sees as much anyway.
                self.slis.answered();
                return Reply::new(StatusCode::OK, TEXT, "ok".to_owned());
            }
            "/proxyMode" => |pages| text(TEXT, pages.about.proxy_mode),
            "/configz" => |pages| text(JSON, &pages.about.configz),
            "/metrics" => |pages| scraped(pages.metrics.render()),
            "/metrics/slis" => |pages| scraped(pages.slis.render()),
            _ => return Reply::not_found(),
        };
        match self.access.refusal(asked).await {
            Some(refusal) => refusal,
            None => page(self),
        }
    }
}

fn text(content_type: &'static str, text: &str) -> Reply {
    Reply::new(StatusCode::OK, content_type, text.to_owned())
}

fn scraped(text: Result<String, MetricsError>) -> Reply {
    match text {
        Ok(text) => Reply::new(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => Reply::failed(&error),
    }
}
