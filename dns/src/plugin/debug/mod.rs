//! `debug`: more in the log. See the README.

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `debug`
///
/// # Errors
/// If it has arguments or options.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_args()?;
    line.no_body()?;
    setup.block.debug = true;
    Ok(Vec::new())
}
