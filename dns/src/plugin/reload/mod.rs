//! `reload`: a Corefile that changes takes effect by itself. See the README.

mod metrics;

pub(crate) use metrics::show_version;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Plugin, ReloadSettings, Setup};
use crate::corefile::ConfigError;

const INTERVAL: Duration = Duration::from_secs(30);
const INTERVAL_LEAST: Duration = Duration::from_secs(2);
const JITTER: Duration = Duration::from_secs(15);
const JITTER_LEAST: Duration = Duration::from_secs(1);

/// `reload [INTERVAL] [JITTER]`
///
/// # Errors
/// Bad durations.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_body()?;
    let args = line.between(0, 2, "an interval and a jitter at most")?;
    let interval = match args.first() {
        Some(arg) => arg.duration("the interval")?.max(INTERVAL_LEAST),
        None => INTERVAL,
    };
    let jitter = match args.get(1) {
        Some(arg) => arg.duration("the jitter")?.max(JITTER_LEAST),
        None => JITTER,
    };
    let settings = ReloadSettings {
        interval,
        jitter: jitter.min(interval / 2),
    };
    metrics::register();
    let process = setup.environment.process.lock();
    let mut process = process.unwrap_or_else(PoisonError::into_inner);
    process.reload.get_or_insert(settings);
    Ok(Vec::new())
}
