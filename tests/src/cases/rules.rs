//! The rules in node1 as text.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use super::format::RulesSpec;
use crate::testbed::{Family, IptablesTool, Place, Testbed};

/// What a chain made for one Service, or one of its endpoints, is called.
const PER_SERVICE: [&str; 5] = [
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-SEP-",
];

/// `iptables-save` (or `ip6tables-save`) of node1, by the given tool.
pub fn save_rules(bed: &Testbed, tool: IptablesTool, family: Family) -> Result<String> {
    let applet = tool.applet(family, "save");
    bed.run(Place::Node1, &[tool.multi(), &applet], "")?
        .success(&applet)
}

/// The per-service chains declared in saved rules.
pub fn per_service_chains(saved: &str) -> Vec<&str> {
    saved
        .lines()
        .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
        .filter(|chain| PER_SERVICE.iter().any(|prefix| chain.starts_with(prefix)))
        .collect()
}

/// Whether a whole line matches a pattern in which `*` stands for anything.
pub fn line_matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// What the saved rules of `families` lack or have too much of.
pub(super) fn check_rules(
    bed: &Testbed,
    tool: IptablesTool,
    spec: &RulesSpec,
    families: &[Family],
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    if spec.has.is_empty() && spec.has_not.is_empty() {
        return Ok(wrong);
    }
    for family in families {
        let saved = save_rules(bed, tool, *family)?;
        let there = |pattern: &String| {
            let pattern = twin_words(pattern, *family);
            saved.lines().any(|line| line_matches(&pattern, line))
        };
        for pattern in spec.has.iter().filter(|pattern| !there(pattern)) {
            wrong.push(format!("{family}: no rule is like `{pattern}`"));
        }
        for pattern in spec.has_not.iter().filter(|pattern| there(pattern)) {
            wrong.push(format!("{family}: a rule is like `{pattern}`"));
        }
    }
    Ok(wrong)
}

/// A pattern with every IPv4 address in it (alone, with a port or a prefix length) in `family`.
fn twin_words(pattern: &str, family: Family) -> String {
    let words: Vec<String> = pattern
        .split(' ')
        .map(|word| {
            if let Ok(address) = word.parse::<IpAddr>() {
                return family.twin(address).to_string();
            }
            if let Ok(socket) = word.parse::<SocketAddr>() {
                return family.twin_socket(socket).to_string();
            }
            match word
                .strip_suffix("/32")
                .and_then(|host| host.parse::<IpAddr>().ok())
            {
                Some(host) if family == Family::IPv6 => format!("{}/128", family.twin(host)),
                _ => word.to_owned(),
            }
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        assert!(line_matches(
            "-A KUBE-SERVICES -d 10.96.1.1/32 * -j KUBE-SVC-*",
            "-A KUBE-SERVICES -d 10.96.1.1/32 -p tcp -j KUBE-SVC-X"
        ));
        assert!(!line_matches(
            "-A KUBE-SERVICES * -j DROP",
            "-A KUBE-SERVICES -d 1.2.3.4 -j REJECT"
        ));
        assert!(line_matches("abc", "abc"));
        assert!(!line_matches("abc", "abcd"));
        assert!(!line_matches("ab*b", "ab"));
    }
}
