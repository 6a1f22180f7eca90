//! `log`: prints a line for each query. See the README.

mod config;
mod format;
mod handler;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;
use crate::lines::Lines;

/// `log [NAMES...] [FORMAT] { class CLASSES... }`, any number of times.
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let rules = setup.lines.iter().map(|line| config::read(line));
    let rules = rules.collect::<Result<Vec<_>, _>>()?.concat();
    let lines = Lines::of(setup.environment);
    Ok(vec![Arc::new(handler::Log::new(rules, lines))])
}
