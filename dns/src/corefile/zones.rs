//! Zone names as a Corefile writes them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::str::FromStr;

use domain::base::Name;
use ipnet::IpNet;

use super::key::split_key;
use super::{ConfigError, Token};

/// A name made fully qualified and lower case: `Example.ORG` is `example.org.`; escapes come out
/// in one form. The error is a sentence.
///
/// # Errors
/// When it is not a domain name (RFC 1035 §3.1: labels up to 63 octets, 255 in all).
pub fn zone_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an empty name is not a zone; the root is `.`".to_owned());
    }
    let name = Name::<Vec<u8>>::from_str(text).map_err(|problem| {
        let hint = if text.is_ascii() {
            ""
        } else {
            "; write it in its ASCII form, `xn--…`"
        };
        format!("`{text}` is not a domain name: {problem}{hint}")
    })?;
    Ok(name.fmt_with_dot().to_string().to_ascii_lowercase())
}

/// The reverse zones that make up a network: `in-addr.arpa.` names on octets, `ip6.arpa.` names
/// on nibbles, one when the prefix ends on such a boundary and up to 128 or 8 when it does not.
pub fn reverse_zones(network: IpNet) -> Vec<String> {
    let boundary = match network {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    };
    let prefix = network.prefix_len().next_multiple_of(boundary);
    // The next boundary is never past the address, so subnets() never fails.
    network
        .trunc()
        .subnets(prefix)
        .into_iter()
        .flatten()
        .map(|part| reverse_zone(part, boundary))
        .collect()
}

/// The name of a network whose prefix ends on a boundary of the reverse tree.
fn reverse_zone(network: IpNet, boundary: u8) -> String {
    let labels = usize::from(network.prefix_len() / boundary);
    let (mut labels, tree): (Vec<String>, _) = match network.network() {
        IpAddr::V4(address) => (
            address
                .octets()
                .iter()
                .take(labels)
                .map(ToString::to_string)
                .collect(),
            "in-addr.arpa.",
        ),
        IpAddr::V6(address) => {
            let nibbles = address
                .octets()
                .into_iter()
                .flat_map(|octet| [octet >> 4, octet & 15]);
            (
                nibbles
                    .take(labels)
                    .map(|nibble| format!("{nibble:x}"))
                    .collect(),
                "ip6.arpa.",
            )
        }
    };
    labels.reverse();
    labels.push(tree.to_owned());
    labels.join(".")
}

/// The zone names that a word without scheme and port stands for: itself, or the reverse zones
/// of a network. The error is a sentence.
pub(super) fn expand(text: &str) -> Result<Vec<String>, String> {
    if let Ok(network) = IpNet::from_str(text) {
        return Ok(reverse_zones(network));
    }
    // A name may have a slash (RFC 2317), but not after an address.
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    if text.contains('/') && address.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "`{text}` is not a network: expected a prefix length within the address"
        ));
    }
    if text.contains(':') {
        return Err(format!(
            "`{text}` is neither a zone name nor a network such as 10.0.0.0/24 or 2001:db8::/32"
        ));
    }
    Ok(vec![zone_name(text)?])
}

/// The ZONES arguments of a plugin: names fully qualified and lower case, networks as their
/// reverse zones, each once, in the order written. Without arguments the zones of the server
/// block (`of_block`). As in the reference a scheme and a port are taken off, and an empty
/// argument (a variable that is not set) is passed over, unless it is the only one.
///
/// # Errors
/// When an argument is not a zone, or all are empty.
pub fn zones_from_args(args: &[Token], of_block: &[String]) -> Result<Vec<String>, ConfigError> {
    let Some(first) = args.first() else {
        return Ok(of_block.to_vec());
    };
    let mut seen = HashSet::new();
    let mut zones = Vec::new();
    for arg in args.iter().filter(|arg| !arg.is_empty()) {
        let (_, rest, _) = split_key(arg).map_err(|problem| arg.error(problem))?;
        for zone in expand(rest).map_err(|problem| arg.error(problem))? {
            if seen.insert(zone.clone()) {
                zones.push(zone);
            }
        }
    }
    if zones.is_empty() {
        return Err(first.error("expected a zone, found an empty word; is a variable not set?"));
    }
    Ok(zones)
}
