//! `cache`: keeps what other servers answered. See the README.
//!
//! A [`store::Store`] has shards, each a lock over two tables: positive and negative replies.
//! An [`entry::Entry`] is a reply's records in wire form, so that a hit is a copy with other
//! TTLs. What answers may be kept, and how long, [`survey`] knows. [`refresh`] asks again in
//! the background.

mod config;
mod entry;
mod handler;
mod metrics;
mod refresh;
mod store;
mod survey;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::ConfigError;

/// `cache [TTL] [ZONES...] { ... }`
///
/// # Errors
/// With file and line of what is not understood.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let config = config::Config::read(setup.only_line()?, &setup.block.zones)?;
    // Kept over a reload for as long as nothing changes that decides what is in it.
    let block = &setup.block;
    let key = format!(
        "cache {} {:?} {:?} {config:?}",
        block.server, block.zones, block.bind
    );
    let labels = [block.server.to_string(), config.zones_label.clone()];
    let carried = &setup.environment.carried;
    let store = carried.keep(&key, || {
        store::Store::new(labels, config.success.capacity, config.denial.capacity)
    });
    metrics::follow(&store);
    Ok(vec![Arc::new(handler::Cache::new(config, store))])
}
