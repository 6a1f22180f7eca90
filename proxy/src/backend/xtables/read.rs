//! From what `iptables-save` prints to what each chain holds.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead};

use super::table::{Chain, Table};
use super::tool::{Tool, ToolError};

/// What a rule says, as a number: two rules that say the same have the same one however
/// they are spaced and quoted (tools of different versions differ in that).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::backend) struct RuleHash(u64);

impl RuleHash {
    /// The hash of a rule without its `-A CHAIN`.
    pub(in crate::backend) fn of(rule: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        for word in rule.split([' ', '"']).filter(|word| !word.is_empty()) {
            word.hash(&mut hasher);
        }
        Self(hasher.finish())
    }

    /// The hashes of several rules.
    pub(in crate::backend) fn all(rules: &[String]) -> Vec<Self> {
        rules.iter().map(|rule| Self::of(rule)).collect()
    }
}

/// The chains of one table and their rules, in order.
#[derive(Debug, Default)]
pub(in crate::backend) struct TableState {
    pub(in crate::backend) chains: HashMap<String, Vec<RuleHash>>,
}

impl TableState {
    /// Reads the output of `iptables-save -t TABLE`, a line at a time: at 50,000 rules the
    /// text alone has 8 MB.
    pub(in crate::backend) fn parse(text: impl BufRead) -> io::Result<Self> {
        let mut state = Self::default();
        for line in text.lines() {
            let line = line?;
            if let Some(rest) = line.strip_prefix(':') {
                let name = rest.split(' ').next().unwrap_or(rest);
                state.chains.entry(name.to_owned()).or_default();
            } else if let Some(rest) = line.strip_prefix("-A ") {
                let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
                let hash = RuleHash::of(rule);
                match state.chains.get_mut(chain) {
                    Some(rules) => rules.push(hash),
                    None => drop(state.chains.insert(chain.to_owned(), vec![hash])),
                }
            }
        }
        Ok(state)
    }

    pub(in crate::backend) fn has_chain(&self, name: &str) -> bool {
        self.chains.contains_key(name)
    }

    pub(in crate::backend) fn rules(&self, chain: &str) -> &[RuleHash] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }

    /// Whether a chain is missing or holds something else.
    pub(in crate::backend) fn differs(&self, chain: &Chain) -> bool {
        !self.has_chain(&chain.name) || self.rules(&chain.name) != RuleHash::all(&chain.rules)
    }

    pub(in crate::backend) fn has_rule(&self, chain: &str, rule: &str) -> bool {
        self.rules(chain).contains(&RuleHash::of(rule))
    }
}

/// The tables as they are read.
pub(in crate::backend) struct Tables {
    pub(in crate::backend) mangle: TableState,
    pub(in crate::backend) filter: TableState,
    pub(in crate::backend) nat: TableState,
}

impl Tables {
    /// Reads all three.
    ///
    /// # Errors
    /// When the tool can't be run or fails.
    pub(in crate::backend) fn read(tool: &Tool) -> Result<Self, ToolError> {
        Ok(Self {
            mangle: tool.save(Table::Mangle)?,
            filter: tool.save(Table::Filter)?,
            nat: tool.save(Table::Nat)?,
        })
    }

    pub(in crate::backend) const fn table(&self, table: Table) -> &TableState {
        match table {
            Table::Mangle => &self.mangle,
            Table::Filter => &self.filter,
            Table::Nat => &self.nat,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_table_is_read() {
        let text = "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
                    -A PREROUTING -m comment --comment \"a b\" -j KUBE-SERVICES\n\
                    -A KUBE-SERVICES -m nfacct --nfacct-name  x -j DROP\nCOMMIT\n";
        let state = TableState::parse(text.as_bytes()).unwrap();
        assert!(state.has_chain("KUBE-SERVICES"));
        assert!(!state.has_chain("KUBE-NODEPORTS"));
        assert!(state.has_rule(
            "PREROUTING",
            "-m comment --comment \"a b\" -j KUBE-SERVICES"
        ));
        assert!(state.has_rule("KUBE-SERVICES", "-m nfacct --nfacct-name x -j DROP"));
        assert!(!state.has_rule("KUBE-SERVICES", "-m nfacct --nfacct-name y -j DROP"));
    }
}
