//! `errors`: prints what went wrong while a query was answered. See the README.

mod config;
mod go_duration;
mod handler;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;
use crate::lines::Lines;

/// `errors [stdout] { stacktrace; consolidate ... }`
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let patterns = config::read(setup.only_line()?)?;
    let runtime = tokio::runtime::Handle::try_current().ok();
    let lines = Lines::of(setup.environment);
    let handler = handler::Errors::new(patterns, lines, setup.block.debug, runtime);
    Ok(vec![Arc::new(handler)])
}
