//! A stand-in API server on a node of the testbed.

use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Place, ProxyOptions, Testbed};
use crate::apiserver::{Resource, Settings, StandIn};

/// The server, and the thread in which it runs.
pub struct Api {
    server: StandIn,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Api {
    /// Starts one that speaks plain HTTP at a loopback address of this place.
    ///
    /// # Errors
    /// There is no such place, or no port for it there.
    pub fn start(bed: &Testbed, place: Place) -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (send, receive) = std::sync::mpsc::channel();
        let serve = move || -> Result<()> {
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
        };
        // A thread is born into the namespace of the one that makes it.
        let thread = bed.in_place(place, move || std::thread::spawn(serve))?;
        let server = receive.recv().context("the API server's thread died")??;
        Ok(Self {
            server,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The server.
    pub fn server(&self) -> &StandIn {
        &self.server
    }

    /// Puts objects, each new or changed.
    ///
    /// # Errors
    /// One is of a kind that the stand-in does not know.
    pub fn set(&self, objects: Vec<Value>) -> Result<()> {
        for object in objects {
            let word = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            let resource = Resource::of_kind(&word("kind"), &word("apiVersion"))
                .with_context(|| format!("the stand-in knows no {}", word("kind")))?;
            self.server.set(resource, object);
        }
        Ok(())
    }

    /// Makes a proxy follow this server in place of its manifests.
    pub fn serves(&self, options: &mut ProxyOptions) {
        options.flags.push("--manifests=".to_owned());
        options
            .flags
            .push(format!("--master={}", self.server.url()));
    }

    /// Ends it, and says how that went.
    ///
    /// # Errors
    /// It had failed.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.stop = None;
        match self.thread.take() {
            Some(thread) => thread
                .join()
                .map_err(|_| anyhow!("the API server's thread panicked"))?,
            None => Ok(()),
        }
    }
}

/// The thread lives in the place, which can't go before it.
impl Drop for Api {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("testbed: the API server: {error:#}");
        }
    }
}
