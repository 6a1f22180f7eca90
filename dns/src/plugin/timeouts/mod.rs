//! `timeouts`: how long TCP and TLS connections may keep us waiting. See the README.

use std::sync::Arc;
use std::time::Duration;

use super::{Plugin, Setup};
use crate::corefile::{ConfigError, Line};

const OPTIONS: &[&str] = &["read", "write", "idle", "maxtcpqueries"];
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// `timeouts { read D; write D; idle D; maxtcpqueries N }`
///
/// # Errors
/// Unknown options, values out of range, no option at all.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_args()?;
    if line.options().is_empty() {
        return Err(line.error(format!(
            "`timeouts` without any; expected one of: {}",
            OPTIONS.join(", ")
        )));
    }
    let mut timeouts = setup.block.timeouts;
    for option in line.options() {
        option.no_body()?;
        match &**option.name() {
            "read" => timeouts.read = duration(option)?,
            "write" => timeouts.write = duration(option)?,
            "idle" => timeouts.idle = duration(option)?,
            "maxtcpqueries" => timeouts.queries_max = queries(option)?,
            _ => return Err(option.unknown_option(OPTIONS)),
        }
    }
    setup.block.timeouts = timeouts;
    Ok(Vec::new())
}

/// As in the reference a number without a unit counts seconds.
fn duration(option: &Line) -> Result<Duration, ConfigError> {
    let [value] = option.exactly::<1>("a duration")?;
    let seconds = value.parse().map(Duration::from_secs);
    let duration = seconds.or_else(|_| value.duration(option.name()))?;
    if (LEAST..=MOST).contains(&duration) {
        Ok(duration)
    } else {
        Err(value.error(format!(
            "{} must be from 1s to 24h, not `{value}`",
            option.name()
        )))
    }
}

fn queries(option: &Line) -> Result<Option<u64>, ConfigError> {
    let [value] = option.exactly::<1>("a number of queries, or -1 for no limit")?;
    match &**value {
        "-1" => Ok(None),
        _ => value.number(option.name(), 1..=u64::MAX).map(Some),
    }
}
