//! `hosts`: answers from a file like `/etc/hosts` and from lines in the Corefile. See the
//! README.
//!
//! What the file says is one [`table::Table`], in which the records of a name lie in wire form:
//! a reply is a copy of them. The file is read at the start and again when its time or size
//! changes ([`source`]); the new table takes the place of the old at once.

mod config;
mod handler;
mod metrics;
mod source;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `hosts [FILE [ZONES...]] { ... }`
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    metrics::register();
    let config = config::Config::read(setup.only_line()?, setup.block)?;
    Ok(vec![Arc::new(handler::Hosts::new(config)?)])
}
