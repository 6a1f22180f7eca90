//! An API server on node1, for changes that come one by one, however fast.

use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use switchyard_tests::apiserver::{Resource, Settings, StandIn};
use switchyard_tests::testbed::{Place, ProxyOptions, Testbed};
use tokio::sync::oneshot;

use super::clients::spawn_in;

/// The stand-in server, and the thread in which it runs.
pub(super) struct Api {
    server: StandIn,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Api {
    pub(super) fn start(bed: &Testbed) -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (send, receive) = std::sync::mpsc::channel();
        let thread = spawn_in(bed, Place::Node1, move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let settings = Settings {
                    tls: false,
                    ..Settings::default()
                };
                send.send(StandIn::start(settings).await)?;
                // Ends when the sender is dropped.
                drop(stopped.await);
                Ok(())
            })
        })?;
        let server = receive.recv().context("the API server's thread died")??;
        Ok(Self {
            server,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Puts objects, each new or changed.
    pub(super) fn set(&self, objects: Vec<Value>) -> Result<()> {
        for object in objects {
            let word = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            let resource = Resource::of_kind(&word("kind"), &word("apiVersion"))
                .with_context(|| format!("the stand-in knows no {}", word("kind")))?;
            self.server.set(resource, object);
        }
        Ok(())
    }

    /// Makes a proxy follow this server in place of its manifests.
    pub(super) fn serves(&self, options: &mut ProxyOptions) {
        options.flags.push("--manifests=".to_owned());
        options
            .flags
            .push(format!("--master={}", self.server.url()));
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.stop = None;
        match self.thread.take() {
            Some(thread) => thread
                .join()
                .map_err(|_| anyhow!("the API server's thread panicked"))?,
            None => Ok(()),
        }
    }
}
