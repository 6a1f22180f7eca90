//! The rules in node1 as text.

use anyhow::Result;

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
