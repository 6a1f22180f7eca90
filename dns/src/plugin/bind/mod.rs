//! `bind`: the addresses a server block listens on. See the README.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;

use super::{Plugin, Setup};
use crate::corefile::{ConfigError, Line, Token};

/// `bind ADDRESS|INTERFACE… { except ADDRESS|INTERFACE… }`
///
/// # Errors
/// Something that is neither an address nor an interface, or nothing left to listen on.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let interfaces = interfaces().map_err(ConfigError::without_place)?;
    let mut all = Vec::new();
    for line in setup.lines {
        for address in addresses(line, &interfaces)? {
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
    setup.block.bind = all;
    Ok(Vec::new())
}

/// Each interface's addresses. Link-local IPv6 ones are left out: they mean nothing without
/// the interface they belong to.
fn interfaces() -> Result<HashMap<String, Vec<IpAddr>>, String> {
    let listed = getifaddrs().map_err(|error| format!("listing the interfaces: {error}"))?;
    let mut interfaces = HashMap::<String, Vec<IpAddr>>::new();
    for entry in listed {
        let addresses = interfaces.entry(entry.interface_name).or_default();
        let address = entry.address.as_ref().and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        match address {
            Some(IpAddr::V6(v6)) if v6.is_unicast_link_local() => {}
            other => addresses.extend(other),
        }
    }
    Ok(interfaces)
}

fn addresses(
    line: &Line,
    interfaces: &HashMap<String, Vec<IpAddr>>,
) -> Result<Vec<IpAddr>, ConfigError> {
    let read = |tokens: &[Token]| -> Result<Vec<IpAddr>, ConfigError> {
        let mut addresses = Vec::new();
        for token in tokens {
            if let Ok(address) = token.parse::<IpAddr>() {
                addresses.push(address);
            } else if let Some(of_interface) = interfaces.get(&**token) {
                addresses.extend(of_interface);
            } else {
                return Err(token.error(format!(
                    "`{token}` is neither an address nor an interface of this machine"
                )));
            }
        }
        Ok(addresses)
    };
    if line.args().is_empty() {
        return Err(line.error("`bind` takes addresses or interfaces, but has no argument"));
    }
    let mut addresses = read(line.args())?;
    for option in line.options() {
        if &**option.name() != "except" {
            return Err(option.unknown_option(&["except"]));
        }
        if option.args().is_empty() {
            return Err(option.error("`except` takes addresses or interfaces, but has no argument"));
        }
        let except = read(option.args())?;
        addresses.retain(|address| !except.contains(address));
    }
    if addresses.is_empty() {
        return Err(line.error("there is no address left to listen on"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::corefile;

    fn bound(lines: &str) -> Result<String, String> {
        let text = format!(". {{\n{lines}\n}}");
        let corefile = corefile::parse(&text, "Corefile", Path::new("")).expect("it parses");
        let two = [
            ("eth0", vec!["10.0.0.1", "fd00::1"]),
            ("lo", vec!["127.0.0.1", "::1"]),
            ("down", vec![]),
        ];
        let interfaces = two.into_iter().map(|(name, addresses)| {
            let parsed = addresses.into_iter().map(|text| text.parse().expect("one"));
            (name.to_owned(), parsed.collect())
        });
        let interfaces = interfaces.collect();
        let addresses = addresses(&corefile.blocks[0].directives[0], &interfaces);
        let addresses = addresses.map_err(|error| error.to_string())?;
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        Ok(texts.join(" "))
    }

    #[test]
    fn addresses_and_interfaces_are_taken_and_left_out() {
        for (lines, expected) in [
            ("bind 127.0.0.1 ::1", "127.0.0.1 ::1"),
            ("bind eth0 192.0.2.1", "10.0.0.1 fd00::1 192.0.2.1"),
            ("bind lo eth0 {\nexcept ::1 eth0\n}", "127.0.0.1"),
        ] {
            assert_eq!(bound(lines).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_address_of_ours_is_refused_with_its_line() {
        for (lines, expected) in [
            (
                "bind",
                "Corefile:2: `bind` takes addresses or interfaces, but has no argument",
            ),
            (
                "bind eth1",
                "Corefile:2: `eth1` is neither an address nor an interface of this machine",
            ),
            (
                "bind down",
                "Corefile:2: there is no address left to listen on",
            ),
            (
                "bind lo {\nexcept\n}",
                "Corefile:3: `except` takes addresses or interfaces, but has no argument",
            ),
            (
                "bind lo {\nonly ::1\n}",
                "Corefile:3: unknown option `only`; known are: except",
            ),
            (
                "bind lo {\nexcept lo\n}",
                "Corefile:2: there is no address left to listen on",
            ),
        ] {
            assert_eq!(bound(lines), Err(expected.to_owned()));
        }
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let interfaces = interfaces().expect("they can be listed");
        assert!(interfaces["lo"].contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
