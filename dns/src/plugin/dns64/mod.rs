//! `dns64`: AAAA records made of A records (RFC 6147). See the README.

mod config;
mod handler;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `dns64 [PREFIX] { prefix PREFIX; translate_all; allow_ipv4 }`
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let config = config::read(setup.only_line()?)?;
    let server = &setup.block.server;
    Ok(vec![Arc::new(handler::Dns64::new(config, server))])
}
