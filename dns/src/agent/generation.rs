use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::corefile::Corefile;
use crate::http::{EndpointError, Page, Readiness, SelfCheck};
use crate::metrics::set_enabled_plugins;
use crate::plugin::{Environment, Plugin, ProcessSettings};
use crate::server::{Configuration, ListenError};

/// From one look at whether plugins are ready to the next.
const READY_POLL: Duration = Duration::from_millis(5);
/// From one log line about waiting to the next.
const SAY_EVERY: Duration = Duration::from_millis(500);

/// One configuration with everything it has set in motion. Dropping it ends that.
pub(super) struct Generation {
    pub(super) configuration: Configuration,
    pub(super) environment: Environment,
    pub(super) process: ProcessSettings,
    pub(super) readiness: Arc<Readiness>,
    pub(super) hash: [u8; 64],
    /// Runs once the generation is in force.
    self_checks: Vec<SelfCheck>,
}

/// An address that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// For DNS.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// For HTTP.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl Generation {
    pub(super) fn new(
        configuration: Configuration,
        environment: Environment,
        corefile: &Corefile,
    ) -> Self {
        let process = environment.process.lock();
        let process = process.unwrap_or_else(PoisonError::into_inner).clone();
        let continuously = process.ready.iter().any(|ready| ready.continuously);
        let plugins = configuration.ready_plugins.iter().cloned();
        Self {
            readiness: Arc::new(Readiness::new(plugins, continuously)),
            configuration,
            environment,
            process,
            hash: corefile.hash,
            self_checks: Vec::new(),
        }
    }

    /// Where there is to be an HTTP endpoint.
    pub(super) fn pages(&self) -> impl Iterator<Item = (std::net::SocketAddr, Page)> {
        let process = &self.process;
        let health = process.health.iter();
        let health = health.map(|health| (health.address, Page::Health));
        let ready = process.ready.iter();
        let ready = ready.map(|ready| (ready.address, Page::Ready));
        let metrics = process.metrics.iter();
        let metrics = metrics.map(|address| (*address, Page::Metrics));
        health.chain(ready).chain(metrics)
    }

    /// Begins the plugins' work in the background.
    pub(super) fn start(&self) {
        for plugin in &self.configuration.plugins {
            plugin.start();
        }
    }

    /// Waits until the plugins that may hold up the server are ready, or have had their
    /// time. Whoever is not ready then is told of in the log.
    pub(super) async fn wait_until_ready(&self) {
        let begun = Instant::now();
        let mut say_at = begun + SAY_EVERY;
        loop {
            let holds_up = |plugin: &&Arc<dyn Plugin>| {
                let timeout = plugin.startup_timeout();
                !timeout.is_zero() && !plugin.ready() && begun.elapsed() < timeout
            };
            let Some(plugin) = self.configuration.plugins.iter().find(holds_up) else {
                break;
            };
            if Instant::now() >= say_at {
                tracing::info!(
                    "plugin/{}: waiting for Kubernetes API before starting server",
                    plugin.name()
                );
                say_at += SAY_EVERY;
            }
            tokio::time::sleep(READY_POLL).await;
        }
        let late =
            |plugin: &&Arc<dyn Plugin>| !plugin.startup_timeout().is_zero() && !plugin.ready();
        for plugin in self.configuration.plugins.iter().filter(late) {
            tracing::warn!(
                "plugin/{}: starting server with unsynced Kubernetes API",
                plugin.name()
            );
        }
    }

    /// Called once it is in force.
    pub(super) fn in_force(&mut self) {
        set_enabled_plugins(self.configuration.enabled_plugins.clone());
        let mut addresses: Vec<_> = self.process.health.iter().map(|one| one.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        self.self_checks = addresses.into_iter().map(SelfCheck::start).collect();
    }

    /// `sha512` of the Corefile, in hexadecimal.
    pub(super) fn hash_text(&self) -> String {
        use std::fmt::Write;
        self.hash.iter().fold(String::new(), |mut text, octet| {
            // Writing to a String can't fail.
            let _ = write!(text, "{octet:02x}");
            text
        })
    }
}
