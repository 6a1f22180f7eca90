//! The proxy's own health, at port 10256 by default: `/healthz` for load balancers,
//! `/livez` for the kubelet.

use std::sync::Arc;

use hyper::StatusCode;

use super::bind::Bind;
use super::state::{Moment, Report, SharedState};
use crate::metrics::{HealthCode, Metrics};
use switchyard_operation::http::{self, JSON, Reply};

/// Serves until dropped; waits for the address if somebody else has it.
pub async fn serve(at: Bind, state: SharedState, metrics: Arc<Metrics>) {
    let (listener, _closer) = at.listen().await;
    let counted = Arc::clone(&metrics);
    http::serve(
        listener,
        move || metrics.http_refused.inc(()),
        move |path| {
            let report = || state.lock().report(Moment::now());
            match path {
                "/healthz" => {
                    let report = report();
                    counted.healthz.inc(code(report.healthz_ok()));
                    reply(report.healthz_ok(), Report::healthz_json(&report))
                }
                "/livez" => {
                    let report = report();
                    counted.livez.inc(code(report.livez_ok()));
                    reply(report.livez_ok(), Report::livez_json(&report))
                }
                _ => Reply::not_found(),
            }
        },
    )
    .await;
}

const fn code(ok: bool) -> HealthCode {
    if ok {
        HealthCode::Ok
    } else {
        HealthCode::Unavailable
    }
}

fn reply(ok: bool, json: serde_json::Result<String>) -> Reply {
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    match json {
        Ok(body) => Reply::new(status, JSON, body),
        Err(error) => Reply::failed(&error),
    }
}
