//! `acl`: who gets an answer. See the README.

mod config;
mod handler;
mod metrics;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `acl [ZONES...] { ACTION [type TYPE...] [net SOURCE...] }`, any number of times.
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let zones = &setup.block.zones;
    let lists = setup.lines.iter().map(|line| config::read(line, zones));
    let lists = lists.collect::<Result<Vec<_>, _>>()?;
    let metrics = metrics::Metrics::of(&setup.block.server);
    Ok(vec![Arc::new(handler::Acl::new(lists, metrics))])
}
