//! `template`: answers made of the question. See the README.
//!
//! A template is a program in a part of Go's template language ([`language`]), whose output is
//! a record as in a zone file ([`super::record_from_text`]).

mod config;
mod handler;
mod language;
mod metrics;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `template CLASS TYPE [ZONES...] { ... }`, any number of times
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    metrics::register();
    let templates = setup
        .lines
        .iter()
        .map(|line| config::Template::read(line, setup.block));
    let templates = templates.collect::<Result<_, _>>()?;
    Ok(vec![Arc::new(handler::Templates::new(
        templates,
        &setup.block.server,
    ))])
}
