//! The agent's own servers.

use std::io;
use std::sync::Arc;

use super::error::{StartError, system};
use super::events::Teller;
use crate::backend::Mode;
use crate::health::{Bind, BindError, SharedState, metrics_server, proxy_health};
use crate::metrics::{Metrics, Slis};
use crate::settings::Settings;

/// Serves what is asked for over HTTP.
pub(super) fn serve(
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
        let served = metrics_server::serve(at, about, Slis::new()?, Arc::clone(metrics));
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
