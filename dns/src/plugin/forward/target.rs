//! What the words after FROM mean: addresses, names, and files like `/etc/resolv.conf`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

/// The ports of plain DNS and of DNS over TLS.
const DNS_PORT: u16 = 53;
const TLS_PORT: u16 = 853;

/// One word after FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A server at an address.
    Server(Server),
    /// A server with a name, still to be looked up.
    Named {
        /// The name, as written.
        host: String,
        port: u16,
        /// `tls://`.
        tls: bool,
        /// The name in the certificate, where it is another (`%name`).
        server_name: Option<String>,
    },
}

/// One upstream, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// `tls://`.
    pub(super) tls: bool,
    /// The name in the certificate: what follows `%`.
    pub(super) server_name: Option<String>,
}

/// Reads one word. A file's name stands for all servers that the file names. The error is a
/// sentence.
pub(super) fn read(word: &str) -> Result<Vec<Target>, String> {
    let (tls, rest) = match word.split_once("://") {
        None => (false, word),
        Some(("dns", rest)) => (false, rest),
        Some(("tls", rest)) => (true, rest),
        Some(("https", _)) => {
            return Err(format!(
                "`{word}`: DNS over HTTPS to upstreams is not built in; DNS over TLS is: tls://"
            ));
        }
        Some((scheme, _)) => {
            return Err(format!(
                "`{word}`: unknown scheme `{scheme}://`; known are: dns://, tls://"
            ));
        }
    };
    if !word.contains("://") && is_file(word) {
        return resolv_conf(Path::new(word));
    }
    let (host, port, zone) = host_port_zone(rest).map_err(|error| format!("`{word}` {error}"))?;
    let port = port.unwrap_or(if tls { TLS_PORT } else { DNS_PORT });
    if let Ok(address) = host.parse() {
        let (address, server_name) = match zone {
            Some(zone) if !tls => (scoped(address, zone, port)?, None),
            zone => (SocketAddr::new(address, port), zone.map(str::to_owned)),
        };
        return Ok(vec![Target::Server(Server {
            address,
            tls,
            server_name,
        })]);
    }
    if crate::corefile::zone_name(host).is_err() || host.contains('/') {
        return Err(format!(
            "`{word}` is neither an address, nor a host name, nor a file that exists"
        ));
    }
    Ok(vec![Target::Named {
        host: host.to_owned(),
        port,
        tls,
        server_name: zone.map(str::to_owned),
    }])
}

fn is_file(word: &str) -> bool {
    word.parse::<IpAddr>().is_err() && Path::new(word).is_file()
}

/// The servers of a file in the form of resolv.conf(5).
fn resolv_conf(path: &Path) -> Result<Vec<Target>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("can't read {}: {error}", path.display()))?;
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(word) = words.next() else { continue };
        let (host, zone) = word
            .split_once('%')
            .map_or((word, None), |(host, zone)| (host, Some(zone)));
        let address = host.parse().map_err(|_| {
            format!(
                "{}: `{word}` is not the address of a server",
                path.display()
            )
        })?;
        let address = match zone {
            None => SocketAddr::new(address, DNS_PORT),
            Some(zone) => scoped(address, zone, DNS_PORT)?,
        };
        servers.push(Target::Server(Server {
            address,
            tls: false,
            server_name: None,
        }));
    }
    if servers.is_empty() {
        return Err(format!("{} names no server", path.display()));
    }
    Ok(servers)
}

/// A link-local address with the interface it is on (RFC 4007 §11).
fn scoped(address: IpAddr, interface: &str, port: u16) -> Result<SocketAddr, String> {
    let IpAddr::V6(address) = address else {
        return Err(format!(
            "`{address}%{interface}`: only an IPv6 address has an interface, \
             and only tls:// a server name"
        ));
    };
    let index = interface
        .parse()
        .or_else(|_| nix::net::if_::if_nametoindex(interface))
        .map_err(|error| format!("`{address}%{interface}`: {}", error.desc()))?;
    Ok(SocketAddr::V6(SocketAddrV6::new(address, port, 0, index)))
}

/// `host`, `host:port`, `[v6]:port`, `v6`, with `%zone` before or after the port.
fn host_port_zone(text: &str) -> Result<(&str, Option<u16>, Option<&str>), String> {
    let (text, zone) = match text.split_once('%') {
        None => (text, None),
        Some((before, after)) => return zone_first(before, after),
    };
    let (host, port) = host_port(text)?;
    Ok((host, port, zone))
}

fn zone_first<'a>(
    before: &'a str,
    after: &'a str,
) -> Result<(&'a str, Option<u16>, Option<&'a str>), String> {
    // `9.9.9.9:853%name`, `9.9.9.9%name:853`, `[fe80::1%eth0]:53`.
    let (zone, port_behind) = match after.rsplit_once(':') {
        Some((zone, port)) => (zone.trim_end_matches(']'), Some(number(port)?)),
        None => (after.trim_end_matches(']'), None),
    };
    if zone.is_empty() {
        return Err("has nothing after `%`".to_owned());
    }
    let open = before.strip_prefix('[').filter(|rest| !rest.contains(']'));
    let (host, port) = match open {
        Some(host) => (host, None),
        None => host_port(before)?,
    };
    Ok((host, port.or(port_behind), Some(zone)))
}

fn host_port(text: &str) -> Result<(&str, Option<u16>), String> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("has a `[` without a `]`")?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(number(port)?))),
            None if after.is_empty() => Ok((host, None)),
            None => Err("has something other than a port after `]`".to_owned()),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(number(port)?))),
    }
}

fn number(port: &str) -> Result<u16, String> {
    port.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("has the port `{port}`, which is no number from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn server(word: &str) -> (String, bool, Option<String>) {
        match read(word).unwrap().as_slice() {
            [Target::Server(server)] => (
                server.address.to_string(),
                server.tls,
                server.server_name.clone(),
            ),
            other => panic!("{word}: {other:?}"),
        }
    }

    #[test]
    fn addresses_with_and_without_ports_are_read() {
        for (word, address) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("dns://192.0.2.1", "192.0.2.1:53"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
            ("dns://[2001:db8::1]:5353", "[2001:db8::1]:5353"),
            ("fe80::1%1", "[fe80::1%1]:53"),
            ("[fe80::1%1]:5353", "[fe80::1%1]:5353"),
        ] {
            assert_eq!(server(word), (address.to_owned(), false, None), "{word}");
        }
    }

    #[test]
    fn tls_upstreams_have_their_port_and_perhaps_a_name() {
        for (word, address, name) in [
            ("tls://9.9.9.9", "9.9.9.9:853", None),
            ("tls://9.9.9.9:8853", "9.9.9.9:8853", None),
            (
                "tls://9.9.9.9%dns.quad9.net",
                "9.9.9.9:853",
                Some("dns.quad9.net"),
            ),
            (
                "tls://9.9.9.9%dns.quad9.net:8853",
                "9.9.9.9:8853",
                Some("dns.quad9.net"),
            ),
            (
                "tls://9.9.9.9:8853%dns.quad9.net",
                "9.9.9.9:8853",
                Some("dns.quad9.net"),
            ),
            (
                "tls://[2620:fe::fe]%dns.quad9.net",
                "[2620:fe::fe]:853",
                Some("dns.quad9.net"),
            ),
        ] {
            let expected = (address.to_owned(), true, name.map(str::to_owned));
            assert_eq!(server(word), expected, "{word}");
        }
    }

    #[test]
    fn names_are_left_to_be_looked_up() {
        for (word, host, port, tls, server_name) in [
            ("dns.example", "dns.example", 53, false, None),
            ("dns.example:5353", "dns.example", 5353, false, None),
            ("tls://dns.example.", "dns.example.", 853, true, None),
            (
                "tls://dns.example%other",
                "dns.example",
                853,
                true,
                Some("other"),
            ),
        ] {
            let expected = Target::Named {
                host: host.to_owned(),
                port,
                tls,
                server_name: server_name.map(str::to_owned),
            };
            assert_eq!(read(word).unwrap(), [expected], "{word}");
        }
    }

    #[test]
    fn a_file_stands_for_the_servers_in_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "# a comment\nsearch example\nnameserver 192.0.2.1\noptions ndots:5\n\
                    nameserver 2001:db8::1\nnameserver fe80::1%1\n";
        file.write_all(text.as_bytes()).unwrap();
        let targets = read(file.path().to_str().unwrap()).unwrap();
        let addresses: Vec<String> = targets
            .iter()
            .map(|target| match target {
                Target::Server(server) => server.address.to_string(),
                Target::Named { .. } => panic!("{target:?}"),
            })
            .collect();
        assert_eq!(
            addresses,
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"]
        );
    }

    #[test]
    fn a_file_without_servers_or_with_a_bad_one_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        assert!(read(&path).unwrap_err().ends_with("names no server"));
        file.write_all(b"nameserver dns.example\n").unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            error.ends_with("`dns.example` is not the address of a server"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_upstream_is_refused_with_its_reason() {
        for (word, reason) in [
            (
                "https://dns.example/dns-query",
                "DNS over HTTPS to upstreams is not built in",
            ),
            ("quic://9.9.9.9", "unknown scheme `quic://`"),
            (
                "/nowhere/resolv.conf",
                "neither an address, nor a host name, nor a file",
            ),
            ("192.0.2.1:99999", "has the port `99999`"),
            ("192.0.2.1:0", "has the port `0`"),
            ("[2001:db8::1", "has a `[` without a `]`"),
            ("192.0.2.1%eth0", "only an IPv6 address has an interface"),
            ("fe80::1%no-such-interface", "No such device"),
            ("tls://9.9.9.9%", "has nothing after `%`"),
            ("", "neither an address"),
        ] {
            let error = read(word).unwrap_err();
            assert!(error.contains(reason), "{word}: {error}");
        }
    }
}
