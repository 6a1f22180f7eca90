//! `rewrite`: changes questions on the way down and puts replies right on the way up. See the
//! README.
//!
//! Rules are tried in order on the question as it is then ([`rule`]). Each leaves what it wants
//! done to the reply ([`response`]), which is done in reverse order.

mod config;
mod edns;
mod handler;
mod matcher;
mod response;
mod rule;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `rewrite [continue|stop] FIELD ...`, any number of times
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let rules = setup.lines.iter().map(|line| config::read(line));
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    Ok(vec![Arc::new(handler::Rewrite::new(rules))])
}
