//! What the kernel counts for the whole process and the `prometheus` crate leaves out, under
//! the names the Go client of Prometheus gives it.

use std::fs;

/// Bytes of the process's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NetworkBytes {
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// Reads `/proc/self/net/netstat`; `None` where it can't be read.
pub(super) fn network_bytes() -> Option<NetworkBytes> {
    parse_netstat(&fs::read_to_string("/proc/self/net/netstat").ok()?)
}

/// The soft limit of the address space in bytes; `None` where it can't be read, `u64::MAX`
/// where there is none.
pub(super) fn address_space_limit() -> Option<u64> {
    parse_limits(&fs::read_to_string("/proc/self/limits").ok()?)
}

/// The file has pairs of lines, one of names and one of values, each begun by a group's name.
fn parse_netstat(text: &str) -> Option<NetworkBytes> {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if !names.starts_with("IpExt:") {
            continue;
        }
        let field = |wanted: &str| {
            let at = names.split_whitespace().position(|name| name == wanted)?;
            values.split_whitespace().nth(at)?.parse().ok()
        };
        return Some(NetworkBytes {
            received: field("InOctets")?,
            sent: field("OutOctets")?,
        });
    }
    None
}

fn parse_limits(text: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_found_by_name() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\n\
                    IpExt: 7 81 92\n";
        let bytes = parse_netstat(text).unwrap();
        assert_eq!((bytes.received, bytes.sent), (81, 92));
        assert_eq!(parse_netstat("TcpExt: A\nTcpExt: 1\n"), None);
    }

    #[test]
    fn limit_is_read_with_and_without_a_number() {
        let line = |value: &str| format!("Limit Soft Hard\nMax address space  {value} unlimited\n");
        assert_eq!(parse_limits(&line("unlimited")), Some(u64::MAX));
        assert_eq!(parse_limits(&line("4096")), Some(4096));
        assert_eq!(parse_limits("nothing"), None);
    }
}
