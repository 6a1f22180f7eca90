//! `forward`: asks other servers what this one does not know. See the README.

mod config;
mod handler;
mod lookup;
mod metrics;
mod policy;
mod query;
mod target;
#[cfg(test)]
mod tests;
mod trouble;
pub mod upstream;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Plugin, Setup};
use crate::corefile::{ConfigError, Line, Token};
use config::{Config, TransportChoice, too_many};
use handler::Forward;
use metrics::ForwardMetrics;
use target::{Server, Target};
use upstream::{How, TlsPeer, Upstream, UpstreamOptions};

/// `forward FROM TO... { … }`, any number of times in a block.
///
/// # Errors
/// With the word that is wrong; also when a name has no address, or files for TLS are missing.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let last = setup.lines.len().saturating_sub(1);
    let mut plugins: Vec<Arc<dyn Plugin>> = Vec::with_capacity(setup.lines.len());
    for (at, line) in setup.lines.iter().enumerate() {
        plugins.push(Arc::new(forward(line, at < last)?));
    }
    Ok(plugins)
}

fn forward(line: &Line, has_next: bool) -> Result<Forward, ConfigError> {
    let config = Config::read(line)?;
    let servers = servers(line, &config)?;
    let mut tls = None;
    let mut upstreams: Vec<Arc<Upstream>> = Vec::with_capacity(servers.len());
    for (word, server) in servers {
        let refuse = |error: &dyn ToString| word.error(format!("`{word}`: {}", error.to_string()));
        let peer = if server.tls {
            let client = match &tls {
                Some(client) => Arc::clone(client),
                None => config.tls_files.load().map_err(|error| refuse(&error))?,
            };
            tls = Some(Arc::clone(&client));
            let name = server
                .server_name
                .as_deref()
                .or(config.tls_server_name.as_deref());
            let peer = TlsPeer::new(client, name, server.address.ip());
            Some(peer.map_err(|error| refuse(&error))?)
        } else {
            None
        };
        let upstream = Upstream::new(server.address, options(&config, server.address, peer));
        upstreams.push(upstream.map_err(|error| refuse(&error))?);
    }
    let metrics = ForwardMetrics::get().map_err(|error| line.error(error.to_string()))?;
    Ok(Forward::new(config, upstreams, has_next, metrics))
}

fn options(config: &Config, to: SocketAddr, tls: Option<TlsPeer>) -> UpstreamOptions {
    let sources = config.sources.iter();
    UpstreamOptions {
        source: sources
            .copied()
            .find(|source| source.is_ipv4() == to.is_ipv4()),
        tls,
        expire: config.expire,
        max_age: config.max_age,
        max_idle_connections: config.max_idle_connections,
        health: config.health.clone(),
        health_how: match config.transport {
            TransportChoice::Tcp => How::Tcp,
            TransportChoice::AsClient | TransportChoice::UdpFirst => How::Udp,
        },
    }
}

/// The upstreams with their addresses; names are looked up here, once.
fn servers(line: &Line, config: &Config) -> Result<Vec<(Token, Server)>, ConfigError> {
    let mut known: HashMap<&str, Vec<IpAddr>> = HashMap::new();
    let mut servers = Vec::new();
    for (word, target) in &config.targets {
        match target {
            Target::Server(server) => servers.push((word.clone(), server.clone())),
            Target::Named {
                host,
                port,
                tls,
                server_name,
            } => {
                if !known.contains_key(host.as_str()) {
                    let found = lookup::addresses(host, &config.resolver);
                    known.insert(host, found.map_err(|error| word.error(error))?);
                }
                let name = server_name
                    .clone()
                    .or_else(|| config.tls_server_name.clone());
                let name = name.unwrap_or_else(|| host.trim_end_matches('.').to_owned());
                let addresses = known.get(host.as_str()).map(Vec::as_slice);
                servers.extend(addresses.unwrap_or_default().iter().map(|address| {
                    let server = Server {
                        address: SocketAddr::new(*address, *port),
                        tls: *tls,
                        server_name: tls.then(|| name.clone()),
                    };
                    (word.clone(), server)
                }));
            }
        }
    }
    too_many(line, servers.len())?;
    Ok(servers)
}
