//! `autopath`: goes through the search path for the client. See the README.

mod config;
mod handler;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `autopath [ZONES...] FILE|@kubernetes`
///
/// # Errors
/// With file and line of what is not understood, or of a file that can't be read.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let config = config::read(setup.only_line()?, setup.block)?;
    let server = &setup.block.server;
    Ok(vec![Arc::new(handler::AutoPath::new(config, server))])
}
