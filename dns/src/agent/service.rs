use std::mem;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::CorefileSource;
use super::StartError;
use super::generation::{ApplyError, Generation};
use crate::corefile::{ConfigError, Corefile};
use crate::flags::Flags;
use crate::http::Endpoints;
use crate::logging;
use crate::metrics::count::RELOADS_FAILED;
use crate::plugin::{Environment, Fatal, reload};
use crate::server::{Configuration, Listeners};

/// How long the old configuration lives on for the queries it has begun; longer than any
/// plugin waits for anybody.
const OLD_GENERATION_LIFE: Duration = Duration::from_secs(10);

/// What is served now, and the sockets it is served by.
pub(super) struct Service {
    pub(super) listeners: Listeners,
    pub(super) endpoints: Endpoints,
    pub(super) generation: Generation,
    source: CorefileSource,
    next_look: Option<Instant>,
    /// What was tried last and failed: not tried again until it is another.
    refused: Option<Refused>,
}

#[derive(PartialEq, Eq)]
enum Refused {
    /// A Corefile that can't be served.
    Hash([u8; 64]),
    /// A file that is no Corefile.
    Error(ConfigError),
}

/// Why a reload failed.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Service {
    /// Sets up the first configuration. Nothing runs yet.
    pub(super) fn new(flags: &Flags, source: CorefileSource) -> Result<Self, StartError> {
        let corefile = source.load()?;
        let environment = Environment {
            manifests: flags.manifests.clone(),
            kubeconfig: flags.kubeconfig.clone(),
            dns_port: flags.dns_port,
            ..Environment::default()
        };
        let configuration = Configuration::new(&corefile, &environment)?;
        let generation = Generation::new(configuration, environment, &corefile);
        Ok(Self {
            listeners: Listeners::new(Handle::current()),
            endpoints: Endpoints::default(),
            generation,
            source,
            next_look: None,
            refused: None,
        })
    }

    /// Begins to serve, as soon as the plugins that may hold it up are ready or have had
    /// their time.
    pub(super) async fn start(&mut self) -> Result<(), StartError> {
        logging::set_debug(self.generation.configuration.debug);
        let prepared = self.endpoints.prepare(self.generation.pages());
        let prepared = prepared.map_err(ApplyError::from)?;
        // A port that is taken is better known now than after waiting.
        let plans = self.generation.configuration.plans.clone();
        self.listeners.check(&plans).map_err(ApplyError::from)?;
        self.endpoints.apply(prepared, &self.generation.readiness);
        self.generation.start();
        self.generation.wait_until_ready().await;
        self.listeners.apply(plans).map_err(ApplyError::from)?;
        self.generation.readiness.serve();
        self.generation.in_force();
        self.say_version(None);
        self.plan_next_look();
        Ok(())
    }

    /// What is served where: `.:53`.
    pub(super) fn served(&self) -> &[String] {
        &self.generation.configuration.banner
    }

    /// The way of plugins to end the process.
    pub(super) fn fatal(&self) -> Fatal {
        self.generation.environment.fatal.clone()
    }

    /// Sleeps until it is time to look at the Corefile; for ever without `reload`.
    pub(super) async fn next_look(&self) {
        match self.next_look {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn plan_next_look(&mut self) {
        let reload = self.generation.process.reload;
        let reload = reload.filter(|_| self.source.can_change());
        self.next_look = reload.map(|reload| {
            let jitter = reload.jitter.mul_f64(fastrand::f64());
            Instant::now() + reload.interval + jitter
        });
    }

    /// Looks at the Corefile and puts it in force if it is another one, or if `forced`. On
    /// any error everything stays as it is, and the log says why.
    pub(super) async fn reload(&mut self, forced: bool) {
        // Set first, so that a reload that is given up is not tried again at once.
        self.plan_next_look();
        if !self.source.can_change() {
            return;
        }
        let corefile = match self.source.load() {
            Ok(corefile) => corefile,
            Err(error) => {
                let refused = Refused::Error(error.clone());
                if forced || self.refused.as_ref() != Some(&refused) {
                    self.refused = Some(refused);
                    failed(&error.into());
                }
                return;
            }
        };
        let refused = Refused::Hash(corefile.hash);
        let unchanged = corefile.hash == self.generation.hash;
        if !forced && (unchanged || self.refused.as_ref() == Some(&refused)) {
            return;
        }
        tracing::info!("Reloading");
        match self.replace(&corefile).await {
            Ok(()) => {
                self.refused = None;
                tracing::info!("Reloading complete");
            }
            Err(error) => {
                self.refused = Some(refused);
                failed(&error);
            }
        }
        self.plan_next_look();
    }

    async fn replace(&mut self, corefile: &Corefile) -> Result<(), ReloadError> {
        let old = &self.generation.environment;
        let environment = Environment {
            manifests: old.manifests.clone(),
            kubeconfig: old.kubeconfig.clone(),
            dns_port: old.dns_port,
            folder: old.folder.clone(),
            fatal: old.fatal.clone(),
            process: std::sync::Mutex::default(),
            carried: old.carried.pass_on(),
        };
        let configuration = Configuration::new(corefile, &environment)?;
        let mut new = Generation::new(configuration, environment, corefile);
        let prepared = self.endpoints.prepare(new.pages());
        let prepared = prepared.map_err(ApplyError::from)?;
        let plans = new.configuration.plans.clone();
        self.listeners.check(&plans).map_err(ApplyError::from)?;
        new.start();
        new.wait_until_ready().await;
        // From here on nothing waits: the change is whole, or not at all.
        self.listeners.apply(plans).map_err(ApplyError::from)?;
        new.readiness.serve();
        self.endpoints.apply(prepared, &new.readiness);
        logging::set_debug(new.configuration.debug);
        new.in_force();
        let old = mem::replace(&mut self.generation, new);
        self.say_version(Some(&old));
        // Queries that it has begun are answered by it.
        tokio::spawn(async move {
            tokio::time::sleep(OLD_GENERATION_LIFE).await;
            drop(old);
        });
        Ok(())
    }

    fn say_version(&self, old: Option<&Generation>) {
        if self.generation.process.reload.is_none() {
            return;
        }
        let hash = self.generation.hash_text();
        tracing::info!("plugin/reload: Running configuration SHA512 = {hash}");
        let old = old.map(Generation::hash_text);
        reload::show_version(old.as_deref(), &hash);
    }
}

fn failed(error: &ReloadError) {
    RELOADS_FAILED.inc();
    tracing::error!("Corefile changed but reload failed, the old one stays in force: {error}");
}
