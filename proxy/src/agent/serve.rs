//! The agent's own servers.

use std::io;
use std::sync::Arc;

use switchyard_cluster::review::Reviewer;
use switchyard_operation::tls::Tls;

use super::error::{StartError, system};
use super::events::Teller;
use super::source::api_options;
use crate::backend::Mode;
use crate::health::metrics_server::Guard;
use crate::health::{Access, Bind, BindError, SharedState, metrics_server, proxy_health};
use crate::metrics::{Metrics, Slis};
use crate::settings::Settings;

/// Serves what is asked for over HTTP.
pub(super) async fn serve(
    settings: &Settings,
    mode: Mode,
    health: &SharedState,
    metrics: &Arc<Metrics>,
    teller: &Teller,
) -> Result<(), StartError> {
    if let Some(address) = settings.healthz_address {
        let at = Bind::new("health server", address);
        if let Some(error) = at.error() {
            teller.health_failed(&error);
            hard_fail(settings, error)?;
        }
        let served = proxy_health::serve(at, health.clone(), Arc::clone(metrics));
        tokio::spawn(served);
    }
    if let Some(address) = settings.metrics_address {
        let at = Bind::new("metrics server", address);
        if let Some(error) = at.error() {
            teller.metrics_failed(&error);
            hard_fail(settings, error)?;
        }
        let configz = settings.configuration.configz();
        let configz = configz
            .map_err(|error| system("writing the configuration", io::Error::other(error)))?;
        let about = metrics_server::About {
            proxy_mode: mode.as_str(),
            configz,
        };
        let guard = guard(settings, metrics).await?;
        let served = metrics_server::serve(at, guard, about, Slis::new()?, Arc::clone(metrics));
        tokio::spawn(served);
    }
    Ok(())
}

/// An address that is taken is the end only if the operator wants it to be.
fn hard_fail(settings: &Settings, error: BindError) -> Result<(), BindError> {
    if settings.configuration.bind_address_hard_fail {
        Err(error)
    } else {
        Ok(())
    }
}

/// Who may read the metrics, as the settings say.
async fn guard(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Guard, StartError> {
    let wanted = &settings.metrics_guard;
    let unusable = |error: &dyn std::fmt::Display| {
        let text = format!("expected {error}");
        system("the metrics server", io::Error::other(text))
    };
    let tls = wanted.tls.clone().map(Tls::open).transpose();
    let reviewer = match api_options(settings, Some(metrics.request_observer())) {
        Some(options) if wanted.delegated => Some(Reviewer::new(&options).await?),
        _ => None,
    };
    let access = Access::new(wanted.token_file.as_deref(), reviewer);
    Ok(Guard {
        tls: tls.map_err(|error| unusable(&error))?,
        access: access.map_err(|error| unusable(&error))?,
    })
}
