//! `kubernetes`: the names of a cluster. See the README.
//!
//! [`index`] keeps the cluster ready for answers, [`shape`] tells what a name stands for,
//! [`find`] finds it, [`answer`] writes it. Only names outside the zone that Services are
//! aliases of ([`external`]) have to be waited for.

mod answer;
mod config;
mod external;
mod find;
mod follow;
mod handler;
pub mod index;
mod metrics;
mod name_server;
#[cfg(test)]
mod objects;
mod shape;
#[cfg(test)]
mod tests;
mod transfer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::config::{Config, PodMode, is_reverse};
use self::follow::Followed;
use self::index::Index;
use super::{Plugin, Setup};
use crate::corefile::ConfigError;
use crate::feed::Feeds;
use crate::wire::Name;

/// One of our zones.
#[derive(Debug)]
struct Zone {
    name: Name,
    /// Below `in-addr.arpa` or `ip6.arpa`.
    reverse: bool,
}

/// Answers names of a cluster.
#[derive(Debug)]
pub struct Kubernetes {
    /// Longest first.
    zones: Box<[Zone]>,
    primary: Name,
    fallthrough: Box<[Name]>,
    pods: PodMode,
    zonal: bool,
    ttl: u32,
    own_addresses: Box<[IpAddr]>,
    startup_timeout: Duration,
    index: Arc<Index>,
    source: Option<Arc<Followed>>,
}

impl Kubernetes {
    fn new(config: Config, index: Arc<Index>, own_addresses: Vec<IpAddr>) -> Self {
        let zones = config.zones.into_iter().map(|name| Zone {
            reverse: is_reverse(&name.to_string()),
            name,
        });
        Self {
            zones: zones.collect(),
            primary: config.primary,
            fallthrough: config.fallthrough.into(),
            pods: config.pods,
            zonal: config.options.zonal,
            ttl: config.options.ttl,
            own_addresses: own_addresses.into(),
            startup_timeout: config.startup_timeout,
            index,
            source: None,
        }
    }
}

/// `kubernetes [ZONES…] { … }`
///
/// # Errors
/// With file and line of what is wrong.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let config = Config::new(setup)?;
    let _registered = metrics::programming_duration();
    let feeds = setup
        .environment
        .carried
        .keep("cluster feeds", Feeds::default);
    // A reload that changes nothing of this keeps what there is.
    let key = format!("kubernetes: {:?}, {:?}", config.feed, config.options);
    let source = setup
        .environment
        .carried
        .keep(&key, || Followed::new(&config, &feeds));
    let own = own_addresses(&config.bind);
    let mut plugin = Kubernetes::new(config, Arc::clone(source.index()), own);
    plugin.source = Some(source);
    Ok(vec![Arc::new(plugin)])
}

/// The addresses that clients may know this server by: those it is bound to, or else those of
/// the machine that others can reach.
fn own_addresses(bound: &[IpAddr]) -> Vec<IpAddr> {
    let bound = bound.iter().filter(|address| !address.is_unspecified());
    let mut addresses: Vec<IpAddr> = bound.copied().collect();
    if addresses.is_empty() {
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let of_interfaces = interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        });
        addresses.extend(of_interfaces.filter(|address: &IpAddr| !address.is_loopback()));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
