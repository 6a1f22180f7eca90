//! `prometheus`: `/metrics`, and the counting of a block's queries. See the README.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};

use super::{Plugin, Setup};
use crate::corefile::ConfigError;
use crate::http::listen_address;

const PORT: u16 = 9153;

/// `prometheus [ADDRESS] { runtime_metrics }`
///
/// # Errors
/// A bad address or option.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    let address = match line.between(0, 1, "an address at most")? {
        [address, ..] => listen_address(address)?,
        [] => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT),
    };
    for option in line.options() {
        match &**option.name() {
            "runtime_metrics" => {
                option.no_args()?;
                tracing::warn!(
                    "{}: `runtime_metrics` is left out: there is no Go runtime to measure",
                    option.name().at
                );
            }
            "tls" => {
                return Err(option.error(
                    "`tls` can't be had: metrics are served without TLS only; leave it out and \
                     guard the port, or put a proxy in front",
                ));
            }
            _ => return Err(option.unknown_option(&["runtime_metrics"])),
        }
    }
    setup.block.metrics = true;
    let process = setup.environment.process.lock();
    let mut process = process.unwrap_or_else(PoisonError::into_inner);
    process.metrics.push(address);
    Ok(Vec::new())
}
