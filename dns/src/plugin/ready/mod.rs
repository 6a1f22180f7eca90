//! `ready`: `/ready` for probes. See the README.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use super::{Plugin, ReadySettings, Setup};
use crate::corefile::ConfigError;
use crate::http::listen_address;
use crate::server::everywhere;

const PORT: u16 = 8181;

/// `ready [ADDRESS] { monitor until-ready|continuously }`
///
/// # Errors
/// A bad address or option.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    let address = match line.between(0, 1, "an address at most")? {
        [address, ..] => listen_address(address)?,
        [] => SocketAddr::new(everywhere(), PORT),
    };
    let mut continuously = false;
    for option in line.options() {
        if &**option.name() != "monitor" {
            return Err(option.unknown_option(&["monitor"]));
        }
        let [when] = option.exactly::<1>("`until-ready` or `continuously`")?;
        continuously = match &**when {
            "until-ready" => false,
            "continuously" => true,
            _ => {
                return Err(when.error(format!(
                    "monitor must be `until-ready` or `continuously`, not `{when}`"
                )));
            }
        };
    }
    let process = setup.environment.process.lock();
    let mut process = process.unwrap_or_else(PoisonError::into_inner);
    process.ready.push(ReadySettings {
        address,
        continuously,
    });
    Ok(Vec::new())
}
