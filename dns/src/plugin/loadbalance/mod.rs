//! `loadbalance`: changes the order of addresses in answers. See the README.

mod config;
mod handler;
mod order;
mod weights;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `loadbalance [round_robin | weighted FILE] { reload DURATION; prefer CIDR... }`
///
/// # Errors
/// With file and line of what is not understood, or of a weight file with a mistake.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let config = config::read(setup.only_line()?, &setup.block.root)?;
    Ok(vec![Arc::new(handler::LoadBalance::new(config)?)])
}
