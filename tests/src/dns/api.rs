//! The stand-in API server on a thread of its own, for tests that are not async.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::apiserver::{Resource, Settings, StandIn};

/// A running stand-in; dropping it closes everything.
pub struct ApiServer {
    server: Arc<StandIn>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Starts one without TLS on a port of 127.0.0.1.
    ///
    /// # Errors
    /// No port is free.
    pub fn start() -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The same on a given address.
    ///
    /// # Errors
    /// Somebody listens there already.
    pub fn start_at(listen: SocketAddr) -> Result<Self> {
        let settings = Settings {
            listen,
            tls: false,
            ..Settings::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                // A starter that is gone needs no server.
                drop(sender.send(StandIn::start(settings).await));
                drop(stopped.await);
            });
        });
        let server = started.recv().context("the API server's thread ended")??;
        Ok(Self {
            server: Arc::new(server),
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The server itself.
    pub fn server(&self) -> &StandIn {
        &self.server
    }

    /// A kubeconfig for it.
    pub fn kubeconfig(&self) -> String {
        let user = json!({"token": "any"});
        self.server
            .identities()
            .kubeconfig(&self.server.url(), &user)
    }

    /// Puts objects, new or changed.
    ///
    /// # Errors
    /// An object is of a kind the stand-in does not know.
    pub fn put(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            let resource = Resource::of_kind(text("kind"), text("apiVersion"))
                .with_context(|| format!("an object of kind `{}`", text("kind")))?;
            self.server.set(resource, object.clone());
        }
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Both ends are gone if the thread has ended.
        let _ = self.stop.take().map(|stop| stop.send(()));
        drop(self.thread.take().map(JoinHandle::join));
    }
}
