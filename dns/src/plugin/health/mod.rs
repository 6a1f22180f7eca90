//! `health`: `/health` for probes, and the lameduck time. See the README.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{HealthSettings, Plugin, Setup};
use crate::corefile::ConfigError;
use crate::http::{listen_address, register_self_check};
use crate::server::everywhere;

const PORT: u16 = 8080;

/// `health [ADDRESS] { lameduck D }`
///
/// # Errors
/// A bad address or option.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    let address = match line.between(0, 1, "an address at most")? {
        [address, ..] => listen_address(address)?,
        [] => SocketAddr::new(everywhere(), PORT),
    };
    let mut lameduck = Duration::ZERO;
    for option in line.options() {
        if &**option.name() != "lameduck" {
            return Err(option.unknown_option(&["lameduck"]));
        }
        let [duration] = option.exactly::<1>("a duration")?;
        lameduck = duration.duration("lameduck")?;
    }
    register_self_check();
    let process = setup.environment.process.lock();
    let mut process = process.unwrap_or_else(PoisonError::into_inner);
    process.health.push(HealthSettings { address, lameduck });
    Ok(Vec::new())
}
