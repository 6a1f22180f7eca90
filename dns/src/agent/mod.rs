//! The life of the process: start, reload, stop.
//!
//! [`run`] loads the Corefile, starts its plugins, serves once they are ready or their time
//! is over, and then waits for signals and for the Corefile to change. What it serves is one
//! [`generation::Generation`] after the other; sockets stay.

mod corefile_source;
mod generation;
mod service;
mod signals;
mod stop;

use std::path::PathBuf;

pub use corefile_source::CorefileSource;

use self::generation::ApplyError;
use self::service::Service;
use self::signals::{Order, Signals};
use self::stop::Stop;
use crate::corefile::ConfigError;
use crate::flags::Flags;

/// Why the server could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The Corefile can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address can't be had.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The process id can't be written.
    #[error("cannot write the process id to {}: {source}", path.display())]
    PidFile {
        /// Where to.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Signals can't be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// A plugin has found something that must not go on: a forwarding loop.
    #[error("{0}")]
    Fatal(String),
}

impl StartError {
    /// Whether what was asked for can't be done, rather than the system refusing it.
    #[must_use]
    pub const fn is_bad_configuration(&self) -> bool {
        matches!(self, Self::Config(_))
    }
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Status 0: told to, and done.
    Done,
    /// Status 2: told a second time, at once.
    Forced,
}

/// Serves until a signal says to end. Must be called within the runtime.
///
/// # Errors
/// When it can't begin to serve.
pub async fn run(flags: &Flags) -> Result<End, StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    if let Some(path) = &flags.pidfile {
        let text = format!("{}\n", std::process::id());
        std::fs::write(path, text).map_err(|source| StartError::PidFile {
            path: path.clone(),
            source,
        })?;
    }
    let source = CorefileSource::from_flag(flags.conf.as_deref());
    let mut service = Service::new(flags, source)?;
    let started = tokio::select! {
        started = service.start() => started,
        order = signals.before_serving() => return Ok(order),
    };
    started?;
    if !flags.quiet {
        print!("{}", banner(service.served()));
    }
    let fatal = service.fatal();
    loop {
        let order = tokio::select! {
            reason = fatal.reason() => return Err(StartError::Fatal(reason.to_owned())),
            order = signals.next() => order,
            () = service.next_look() => Order::Look,
        };
        match order {
            Order::Look | Order::Reload => {
                let reloaded = tokio::select! {
                    () = service.reload(order == Order::Reload) => None,
                    end = signals.end() => Some(end),
                };
                match reloaded {
                    None => {}
                    Some(Order::Quit) => return Ok(End::Done),
                    Some(_) => break,
                }
            }
            Order::Stop => break,
            Order::Quit => return Ok(End::Done),
        }
    }
    let stop = Stop::new(service);
    tokio::select! {
        () = stop.run() => Ok(End::Done),
        end = signals.while_stopping() => Ok(end),
    }
}

/// What is served, and by whom.
fn banner(served: &[String]) -> String {
    let mut text = String::new();
    for line in served {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&version());
    text
}

/// What `-version` prints: two lines.
#[must_use]
pub fn version() -> String {
    use switchyard_operation::build::{COMMIT, PROFILE, VERSION};
    format!(
        "switchyard-dns-{VERSION}\n{}/{}, {PROFILE} build, commit {COMMIT}\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}
