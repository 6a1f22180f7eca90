//! The keys of a server block: what it serves, over what, where.

use std::collections::HashMap;
use std::fmt::{self, Display};

use super::{Block, ConfigError, Corefile, Line, Location, Token, zones};

/// How queries arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// DNS over UDP and TCP (RFC 1035).
    Dns,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over HTTP/3 (RFC 8484, RFC 9114).
    Https3,
    /// DNS over QUIC (RFC 9250).
    Quic,
    /// CoreDNS' own DNS over gRPC.
    Grpc,
}

impl Transport {
    const ALL: [Self; 6] = [
        Self::Dns,
        Self::Tls,
        Self::Https,
        Self::Https3,
        Self::Quic,
        Self::Grpc,
    ];

    /// The scheme that names it in a key, without `://`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Https3 => "https3",
            Self::Quic => "quic",
            Self::Grpc => "grpc",
        }
    }

    /// The port where a key has none. `dns` is the port for plain DNS, which a flag may change.
    pub fn default_port(self, dns: u16) -> u16 {
        match self {
            Self::Dns => dns,
            Self::Tls | Self::Quic => 853,
            Self::Https | Self::Https3 | Self::Grpc => 443,
        }
    }
}

impl Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme())
    }
}

/// One zone on one port, out of a key of a server block. Shown as `dns://example.org.:53`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerKey {
    /// How queries arrive. All are parsed; the server says which it serves.
    pub transport: Transport,
    /// The zone: fully qualified, lower case, `.` for the root.
    pub zone: String,
    /// The port, if the key has one. 0 leaves the choice to the kernel.
    pub port: Option<u16>,
    /// Where the key stands.
    pub at: Location,
}

impl Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.transport, self.zone)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Reads the keys of a block: `[scheme://][zone or network][:port]`. A network on no boundary of
/// the reverse tree gives several. A key that is a port alone serves the root.
///
/// # Errors
/// When a key is not of that form.
pub fn server_keys(block: &Block) -> Result<Vec<ServerKey>, ConfigError> {
    let mut keys = Vec::new();
    for key in &block.keys {
        let wrong = |problem: String| key.error(problem);
        let (transport, rest, port) = split_key(key).map_err(wrong)?;
        let zone = if rest.is_empty() { "." } else { rest };
        let zones = zones::expand(zone).map_err(wrong)?;
        let at = &key.at;
        keys.extend(zones.into_iter().map(|zone| ServerKey {
            transport,
            zone,
            port,
            at: at.clone(),
        }));
    }
    Ok(keys)
}

/// Splits a key into transport, zone as written, and port. The error is a sentence.
pub(super) fn split_key(key: &str) -> Result<(Transport, &str, Option<u16>), String> {
    let (transport, rest) = match key.split_once("://") {
        None => (Transport::Dns, key),
        Some((scheme, rest)) => {
            let known = Transport::ALL
                .into_iter()
                .find(|transport| transport.scheme() == scheme);
            let Some(transport) = known else {
                let known: Vec<_> = Transport::ALL.iter().map(|known| known.scheme()).collect();
                return Err(format!(
                    "unknown scheme `{scheme}` in `{key}`; known are: {}",
                    known.join(", ")
                ));
            };
            (transport, rest)
        }
    };
    let Some((zone, port)) = rest.rsplit_once(':') else {
        return Ok((transport, rest, None));
    };
    // The last colon of an IPv6 network is followed by its prefix length.
    if port.contains('/') {
        return Ok((transport, rest, None));
    }
    let number = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    match number.and_then(|port| port.parse().ok()) {
        Some(port) => Ok((transport, zone, Some(port))),
        None => Err(format!(
            "expected a port from 0 to 65535 after the last colon of `{key}`"
        )),
    }
}

/// Refuses a configuration that serves one zone twice on one transport and port. `dns_port` is
/// the port of keys without one. Two blocks may share a zone when both have `bind` and name no
/// address in common; what the names of interfaces stand for only the server can know.
///
/// # Errors
/// When a zone is served twice, naming both places, and when a key cannot be read.
pub fn check_duplicates(corefile: &Corefile, dns_port: u16) -> Result<(), ConfigError> {
    let mut seen: HashMap<_, Vec<(Location, usize)>> = HashMap::new();
    let binds: Vec<Vec<&Token>> = corefile.blocks.iter().map(bound).collect();
    for (index, block) in corefile.blocks.iter().enumerate() {
        for mut key in server_keys(block)? {
            let port = key
                .port
                .unwrap_or_else(|| key.transport.default_port(dns_port));
            let same = seen
                .entry((key.transport, port, key.zone.clone()))
                .or_default();
            let twice = same
                .iter()
                .find(|(_, other)| *other == index || overlap(&binds[*other], &binds[index]));
            if let Some((first, _)) = twice {
                key.port = Some(port);
                let message = format!("`{key}` is already served by the block at {first}");
                return Err(ConfigError {
                    at: Some(key.at),
                    message,
                });
            }
            same.push((key.at, index));
        }
    }
    Ok(())
}

/// What the block listens on: the arguments of its `bind`; nothing for everywhere.
fn bound(block: &Block) -> Vec<&Token> {
    let binds = block
        .directives
        .iter()
        .filter(|line| &*line.name().text == "bind");
    binds.flat_map(Line::args).collect()
}

fn overlap(one: &[&Token], other: &[&Token]) -> bool {
    one.is_empty()
        || other.is_empty()
        || one
            .iter()
            .any(|address| other.iter().any(|same| same.text == address.text))
}
