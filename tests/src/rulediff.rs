//! Comparing saved rules: what differs, and which differences are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::testbed::Family;

/// Chains in which the order of rules means nothing: their rules exclude one another.
const UNORDERED: [&str; 4] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
];

/// The one rule of KUBE-SERVICES whose place matters.
const LAST: &str = "NOTE: this must be the last rule in this chain";

/// Saved rules without counters and times: the rules of each chain of each table, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedRules {
    chains: BTreeMap<(String, String), Vec<String>>,
}

/// A rule or chain that only one side has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The side that has it.
    pub only: Side,
    /// The table.
    pub table: String,
    /// The line: `-A CHAIN …`, or `:CHAIN`, or a sentence about the order.
    pub line: String,
}

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What was recorded from the reference.
    Reference,
    /// What we wrote.
    Ours,
}

/// A difference that is meant, with its reason.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// The side that has the line.
    pub only: Side,
    /// The table.
    pub table: String,
    /// The line; `*` stands for anything.
    pub line: String,
    /// The family, if it is meant for one only.
    pub family: Option<Family>,
    /// Why it is meant.
    pub reason: String,
}

impl SavedRules {
    /// Reads the output of `iptables-save`.
    pub fn parse(text: &str) -> Self {
        let mut rules = Self::default();
        let mut table = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default().to_owned();
                rules.chains.entry((table.clone(), name)).or_default();
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let name = rule.split(' ').next().unwrap_or_default().to_owned();
                // One blank too many in the reference's rules.
                let rule = rule.replace("  ", " ");
                rules
                    .chains
                    .entry((table.clone(), name))
                    .or_default()
                    .push(rule.trim_end().to_owned());
            }
        }
        rules
    }

    /// Adds a rule, which begins with the name of its chain, at the end of the chain.
    pub(crate) fn push(&mut self, table: &str, chain: &str, rule: Option<String>) {
        let key = (table.to_owned(), chain.to_owned());
        self.chains.entry(key).or_default().extend(rule);
    }

    /// All rules, as `table: rule`, in order within their chain.
    pub fn lines(&self) -> Vec<String> {
        self.chains
            .iter()
            .flat_map(|((table, _), rules)| {
                rules.iter().map(move |rule| format!("{table}: {rule}"))
            })
            .collect()
    }

    /// The chains of a table.
    pub fn chains(&self, table: &str) -> Vec<&str> {
        self.chains
            .keys()
            .filter(|(of, _)| of == table)
            .map(|(_, name)| name.as_str())
            .collect()
    }

    /// What the two sides do not have in common.
    pub fn differences(reference: &Self, ours: &Self) -> Vec<Difference> {
        let mut all = Vec::new();
        for ((only, this), that) in [(Side::Reference, reference), (Side::Ours, ours)]
            .into_iter()
            .zip([ours, reference])
        {
            for ((table, chain), rules) in &this.chains {
                let difference = |line: String| Difference {
                    only,
                    table: table.clone(),
                    line,
                };
                let key = (table.clone(), chain.clone());
                let Some(others) = that.chains.get(&key) else {
                    // A built-in chain of a table nobody uses is not always listed.
                    if chain.starts_with("KUBE-") || !rules.is_empty() {
                        all.push(difference(format!(":{chain}")));
                    }
                    continue;
                };
                let known: BTreeSet<&String> = others.iter().collect();
                all.extend(
                    rules
                        .iter()
                        .filter(|rule| !known.contains(rule))
                        .map(|rule| difference(format!("-A {rule}"))),
                );
            }
        }
        all.extend(Self::order_differences(reference, ours));
        all.sort();
        all
    }

    /// Rules both sides have, in another order.
    fn order_differences(reference: &Self, ours: &Self) -> Vec<Difference> {
        let mut all = Vec::new();
        for ((table, chain), rules) in &ours.chains {
            let Some(others) = reference.chains.get(&(table.clone(), chain.clone())) else {
                continue;
            };
            let difference = |line| Difference {
                only: Side::Ours,
                table: table.clone(),
                line,
            };
            if UNORDERED.contains(&chain.as_str()) {
                let last = rules.iter().position(|rule| rule.contains(LAST));
                if last.is_some_and(|at| at + 1 != rules.len()) {
                    all.push(difference(format!(
                        "the last rule of {chain} is not the last"
                    )));
                }
                continue;
            }
            let common = |these: &[String], those: &[String]| -> Vec<String> {
                these
                    .iter()
                    .filter(|rule| those.contains(rule))
                    .cloned()
                    .collect()
            };
            if common(rules, others) != common(others, rules) {
                all.push(difference(format!(
                    "the rules of {chain} are in another order"
                )));
            }
        }
        all
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let only = match self.only {
            Side::Reference => "only in the reference",
            Side::Ours => "only in ours",
        };
        write!(f, "{only}, {}: {}", self.table, self.line)
    }
}

/// Reads a list of differences that are meant.
pub fn load_allowed(path: &Path) -> Result<Vec<Allowed>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("differences in {}", path.display()))
}

/// The differences nobody allowed, and the allowances nobody needs (each as a sentence).
pub fn unexplained(differences: &[Difference], allowed: &[Allowed], family: Family) -> Vec<String> {
    let mut used = vec![false; allowed.len()];
    let mut wrong = Vec::new();
    for difference in differences {
        let mut explained = false;
        for (allowance, used) in allowed.iter().zip(&mut used) {
            if allowance.explains(difference, family) {
                *used = true;
                explained = true;
            }
        }
        if !explained {
            wrong.push(difference.to_string());
        }
    }
    for (allowance, used) in allowed.iter().zip(used) {
        if !used && allowance.family.is_none_or(|only| only == family) {
            wrong.push(format!(
                "nothing differs any more as allowed by `{}`",
                allowance.line
            ));
        }
    }
    wrong
}

impl Allowed {
    fn explains(&self, difference: &Difference, family: Family) -> bool {
        self.only == difference.only
            && self.table == difference.table
            && self.family.is_none_or(|only| only == family)
            && crate::cases::line_matches(&self.line, &difference.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(nat: &[&str]) -> SavedRules {
        SavedRules::parse(&format!(
            "*nat\n:KUBE-SERVICES - [1:2]\n:A - [0:0]\n{}\nCOMMIT\n",
            nat.join("\n")
        ))
    }

    #[test]
    fn order_counts_except_where_it_means_nothing() {
        let one = rules(&[
            "-A KUBE-SERVICES x",
            "-A KUBE-SERVICES y",
            "-A A x",
            "-A A y",
        ]);
        let two = rules(&[
            "-A KUBE-SERVICES y",
            "-A KUBE-SERVICES x",
            "-A A x",
            "-A A y",
        ]);
        assert!(SavedRules::differences(&one, &two).is_empty());
        let three = rules(&[
            "-A KUBE-SERVICES x",
            "-A KUBE-SERVICES y",
            "-A A y",
            "-A A x",
        ]);
        assert_eq!(SavedRules::differences(&one, &three).len(), 1);
    }

    #[test]
    fn a_missing_and_an_added_rule_are_both_found() {
        let one = rules(&["-A A x", "-A A y"]);
        let two = rules(&["-A A x", "-A A z"]);
        let found: Vec<String> = SavedRules::differences(&one, &two)
            .iter()
            .map(Difference::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "only in the reference, nat: -A A y",
                "only in ours, nat: -A A z"
            ]
        );
    }
}
