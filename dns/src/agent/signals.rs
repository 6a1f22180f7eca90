use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::End;

/// The signals the process knows.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reload: Signal,
    /// Caught so that it does nothing.
    _hang_up: Signal,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// See whether the Corefile has changed.
    Look,
    /// Load the Corefile again, changed or not (SIGUSR1).
    Reload,
    /// End when everything under way is answered (SIGTERM, SIGINT).
    Stop,
    /// End at once (SIGQUIT).
    Quit,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::user_defined1())?,
            _hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => stop("SIGTERM"),
            _ = self.interrupt.recv() => stop("SIGINT"),
            _ = self.quit.recv() => Order::Quit,
            _ = self.reload.recv() => Order::Reload,
        }
    }

    /// The next order to end; SIGUSR1 is kept for later.
    pub(super) async fn end(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => stop("SIGTERM"),
            _ = self.interrupt.recv() => stop("SIGINT"),
            _ = self.quit.recv() => Order::Quit,
        }
    }

    /// While there is nothing to be finished yet.
    pub(super) async fn before_serving(&mut self) -> End {
        let _whichever = self.end().await;
        End::Done
    }

    /// An order to hurry.
    pub(super) async fn while_stopping(&mut self) -> End {
        tokio::select! {
            _ = self.interrupt.recv() => End::Forced,
            _ = self.quit.recv() => End::Done,
        }
    }
}

fn stop(name: &str) -> Order {
    tracing::info!("{name}: Shutting down servers then terminating");
    Order::Stop
}
