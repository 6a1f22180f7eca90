use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::{ListenAddress, Plan, Route, Routes, StreamTimeouts};
use crate::corefile::{Block, ConfigError, Corefile, ServerKey, Transport, server_keys};
use crate::metrics::EnabledPlugin;
use crate::plugin::{BlockSettings, Chain, Environment, Plugin, registry};
use crate::wire::Name;

/// The port of plain DNS where neither key nor flag names one.
const DNS_PORT: u16 = 53;

/// A Corefile, set up: what to listen on and what to do with what comes.
pub struct Configuration {
    /// By address.
    pub plans: HashMap<ListenAddress, Plan>,
    /// Every plugin of every block.
    pub plugins: Vec<Arc<dyn Plugin>>,
    /// Those of blocks that have `ready`.
    pub ready_plugins: Vec<Arc<dyn Plugin>>,
    /// What each block with `prometheus` has, by server and zone.
    pub enabled_plugins: Vec<EnabledPlugin>,
    /// What is served where, as the log says it: `.:53`, `.:53 on 127.0.0.1`.
    pub banner: Vec<String>,
    /// A block has `debug`.
    pub debug: bool,
}

struct Part {
    routes: Vec<Route>,
    tls: Option<Arc<rustls::ServerConfig>>,
    timeouts: StreamTimeouts,
}

impl Configuration {
    /// Sets up all blocks. Nothing runs yet: see [`Plugin::start`].
    ///
    /// # Errors
    /// With file and line of what can't be done.
    pub fn new(corefile: &Corefile, environment: &Environment) -> Result<Self, ConfigError> {
        let dns_port = match environment.dns_port {
            0 => DNS_PORT,
            port => port,
        };
        crate::corefile::check_duplicates(corefile, dns_port)?;
        let mut parts: HashMap<ListenAddress, Part> = HashMap::new();
        let mut new = Self {
            plans: HashMap::new(),
            plugins: Vec::new(),
            ready_plugins: Vec::new(),
            enabled_plugins: Vec::new(),
            banner: Vec::new(),
            debug: false,
        };
        for block in &corefile.blocks {
            let keys = server_keys(block)?;
            let mut settings = settings(block, &keys, environment.folder.clone(), dns_port);
            let plugins = registry::set_up(&block.directives, &mut settings, environment)?;
            let chain = Chain::new(plugins.clone());
            for key in &keys {
                add(&mut parts, key, &settings, &chain, dns_port)?;
            }
            new.describe(&settings, &keys, &plugins, dns_port);
            new.plugins.extend(plugins);
        }
        let plans = parts.into_iter().map(|(address, part)| {
            let plan = Plan {
                routes: Routes::new(part.routes),
                tls: part.tls,
                timeouts: part.timeouts,
            };
            (address, plan)
        });
        new.plans = plans.collect();
        Ok(new)
    }

    fn describe(
        &mut self,
        settings: &BlockSettings,
        keys: &[ServerKey],
        plugins: &[Arc<dyn Plugin>],
        dns_port: u16,
    ) {
        self.debug |= settings.debug;
        if settings.directives.iter().any(|name| name == "ready") {
            self.ready_plugins.extend_from_slice(plugins);
        }
        for key in keys {
            let scheme = match key.transport {
                Transport::Dns => String::new(),
                other => format!("{other}://"),
            };
            let port = key
                .port
                .unwrap_or_else(|| key.transport.default_port(dns_port));
            let what = format!("{scheme}{}:{port}", key.zone);
            if settings.bind.is_empty() {
                self.banner.push(what.clone());
                self.enable(settings, key, None, plugins, dns_port);
            }
            for address in &settings.bind {
                self.banner.push(format!("{what} on {address}"));
                self.enable(settings, key, Some(*address), plugins, dns_port);
            }
        }
    }

    fn enable(
        &mut self,
        settings: &BlockSettings,
        key: &ServerKey,
        address: Option<IpAddr>,
        plugins: &[Arc<dyn Plugin>],
        dns_port: u16,
    ) {
        if !settings.metrics {
            return;
        }
        let names = plugins.iter().map(|plugin| plugin.name());
        let enabled = names.chain(["prometheus"]).map(|name| EnabledPlugin {
            server: server_label(key, address, dns_port),
            zone: key.zone.clone(),
            name,
        });
        self.enabled_plugins.extend(enabled);
    }
}

fn settings(block: &Block, keys: &[ServerKey], root: PathBuf, dns_port: u16) -> BlockSettings {
    let label = keys.first().map(|key| server_label(key, None, dns_port));
    BlockSettings {
        zones: keys.iter().map(|key| key.zone.clone()).collect(),
        server: label.unwrap_or_default().into(),
        directives: block
            .directives
            .iter()
            .map(|line| line.name().text.to_string())
            .collect(),
        root,
        bind: Vec::new(),
        tls: None,
        timeouts: StreamTimeouts::default(),
        debug: false,
        metrics: false,
    }
}

/// `dns://:53`, `tls://127.0.0.1:853`: as the reference labels servers.
fn server_label(key: &ServerKey, address: Option<IpAddr>, dns_port: u16) -> String {
    let port = key
        .port
        .unwrap_or_else(|| key.transport.default_port(dns_port));
    let scheme = key.transport.scheme();
    match address {
        None => format!("{scheme}://:{port}"),
        Some(address) => format!("{scheme}://{}", SocketAddr::new(address, port)),
    }
}

fn add(
    parts: &mut HashMap<ListenAddress, Part>,
    key: &ServerKey,
    settings: &BlockSettings,
    chain: &Arc<Chain>,
    dns_port: u16,
) -> Result<(), ConfigError> {
    let refuse = |message: String| ConfigError {
        at: Some(key.at.clone()),
        message,
    };
    let tls = match key.transport {
        Transport::Dns => false,
        Transport::Tls => true,
        other => {
            return Err(refuse(format!(
                "`{key}`: {} is not served; expected dns:// or tls://",
                other.scheme()
            )));
        }
    };
    if tls && settings.tls.is_none() {
        return Err(refuse(format!(
            "`{key}` needs a certificate: expected a line `tls CERT KEY` in its block"
        )));
    }
    let zone = Name::from_text(&key.zone).map_err(|error| refuse(error.to_string()))?;
    let port = key
        .port
        .unwrap_or_else(|| key.transport.default_port(dns_port));
    let bound = !settings.bind.is_empty();
    let addresses = if bound {
        settings.bind.clone()
    } else {
        vec![everywhere()]
    };
    for address in addresses {
        let listen = ListenAddress {
            address: SocketAddr::new(address, port),
            tls,
        };
        let server = server_label(key, bound.then_some(address), dns_port).into();
        let part = parts.entry(listen).or_insert_with(|| Part {
            routes: Vec::new(),
            tls: settings.tls.clone(),
            timeouts: settings.timeouts,
        });
        let route = Route::new(&zone, Arc::clone(chain), &server);
        part.routes.push(if settings.metrics {
            route.counted()
        } else {
            route
        });
    }
    Ok(())
}

/// All addresses of both families, or of IPv4 where the system has no IPv6.
pub(crate) fn everywhere() -> IpAddr {
    let probe = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    match probe {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}
