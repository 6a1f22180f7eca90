//! What `nft -j list ruleset` says, in the form in which rules are compared.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::rulediff::SavedRules;
use crate::testbed::{Family, Place, Testbed};

/// The table of the proxy, in each family.
pub const TABLE: &str = "kube-proxy";

/// The proxy's table of one family: each chain with its rules in order; each set, with an `@` before
/// its name, with what it is and its elements, sorted. Handles, counters and times left are left out.
///
/// # Errors
/// It is not what nft says.
pub fn parse(text: &str, family: Family) -> Result<SavedRules> {
    let listing: Value = serde_json::from_str(text).context("the listing of nft")?;
    let objects = listing["nftables"].as_array().context("no objects")?;
    let mut rules = SavedRules::default();
    for object in objects {
        let Some((kind, object)) = object.as_object().and_then(|one| one.iter().next()) else {
            continue;
        };
        let of_table = object["table"] == TABLE && object["family"] == word(family);
        if of_table {
            add(&mut rules, kind, object);
        }
    }
    Ok(rules)
}

/// The proxy's table of one family in node1.
///
/// # Errors
/// There is no nft, or it fails.
pub fn list(bed: &Testbed, family: Family) -> Result<SavedRules> {
    let listing = bed
        .run(Place::Node1, &["nft", "-j", "list", "ruleset"], "")?
        .success("nft list")?;
    parse(&listing, family)
}

/// The family as nft calls it.
pub const fn word(family: Family) -> &'static str {
    match family {
        Family::IPv4 => "ip",
        Family::IPv6 => "ip6",
    }
}

fn add(rules: &mut SavedRules, kind: &str, object: &Value) {
    let name = |field: &str| object[field].as_str().unwrap_or_default();
    let comment = || match object["comment"].as_str() {
        Some(comment) => format!(" comment \"{comment}\""),
        None => String::new(),
    };
    match kind {
        "chain" => {
            let base = object["hook"].as_str().map(|hook| {
                let (kind, priority) = (name("type"), &object["prio"]);
                let policy = name("policy");
                format!("{} {kind} {hook} {priority} {policy}", name("name"))
            });
            rules.push(TABLE, name("name"), base);
        }
        "rule" => {
            let rule = format!("{} {}{}", name("chain"), object["expr"], comment());
            rules.push(TABLE, name("chain"), Some(rule));
        }
        "set" | "map" => {
            let shown = format!("@{}", name("name"));
            let what: Vec<String> = ["type", "map", "flags", "timeout", "size"]
                .into_iter()
                .filter(|field| !object[*field].is_null())
                .map(|field| format!("{field} {}", object[field]))
                .collect();
            let line = format!("{shown} {}{}", what.join(" "), comment());
            rules.push(TABLE, &shown, Some(line));
            let mut elements: Vec<String> = object["elem"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|element| format!("{shown} {element}"))
                .collect();
            elements.sort();
            for element in elements {
                rules.push(TABLE, &shown, Some(element));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_the_table_are_told_from_others() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1"}},
            {"chain": {"family": "ip", "table": "kube-proxy", "name": "c", "handle": 1}},
            {"chain": {"family": "ip", "table": "other", "name": "d", "handle": 1}},
            {"rule": {"family": "ip", "table": "kube-proxy", "chain": "c", "handle": 2,
                "comment": "why", "expr": [{"drop": null}]}},
            {"set": {"family": "ip", "table": "kube-proxy", "name": "s", "type": "ipv4_addr",
                "handle": 3, "elem": ["192.0.2.2", "192.0.2.1"]}}]}"#;
        let lines = parse(text, Family::IPv4).unwrap().lines();
        assert_eq!(
            lines,
            [
                "kube-proxy: @s type \"ipv4_addr\"",
                "kube-proxy: @s \"192.0.2.1\"",
                "kube-proxy: @s \"192.0.2.2\"",
                "kube-proxy: c [{\"drop\":null}] comment \"why\"",
            ]
        );
        assert!(parse(text, Family::IPv6).unwrap().lines().is_empty());
    }
}
