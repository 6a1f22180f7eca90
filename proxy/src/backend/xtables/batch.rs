//! The text that `iptables-restore --noflush` is fed, and whose each line is.

use std::fmt::Write as _;

use super::counts::RuleCounts;
use super::read::Tables;
use super::table::{Chain, Jump, Table};
use crate::plan::PlanId;

/// A restore script in the making: sections of tables, each committed by itself.
#[derive(Debug, Default)]
pub(in crate::backend) struct Batch {
    text: String,
    lines: usize,
    open: Option<Table>,
    /// From which line on (counted from 1) lines belong to whom.
    owners: Vec<(usize, Option<PlanId>)>,
    rules: RuleCounts,
}

impl Batch {
    /// Lines from here on go to `table`. A section with no line is never written.
    pub(in crate::backend) fn section(&mut self, table: Table) {
        if self.open != Some(table) {
            self.commit();
            self.open = Some(table);
            self.line(&format!("*{}", table.as_str()));
        }
    }

    /// Ends the section: what it holds takes effect as one.
    pub(in crate::backend) fn commit(&mut self) {
        if self.open.take().is_some() {
            self.line("COMMIT");
        }
    }

    /// Lines from here on are written for this plan (`None`: for no one plan).
    pub(in crate::backend) fn owner(&mut self, owner: Option<&PlanId>) {
        self.owners.push((self.lines + 1, owner.cloned()));
    }

    /// Creates the chain, or empties it.
    pub(in crate::backend) fn chain(&mut self, name: &str) {
        self.line(&format!(":{name} - [0:0]"));
    }

    /// Adds a rule at the end of a chain.
    pub(in crate::backend) fn append(&mut self, chain: &str, rule: &str) {
        self.count_rule();
        self.line(&format!("-A {chain} {rule}"));
    }

    /// Adds a rule at the head of a chain.
    pub(in crate::backend) fn insert(&mut self, chain: &str, rule: &str) {
        self.count_rule();
        self.line(&format!("-I {chain} 1 {rule}"));
    }

    /// Inserts jumps that are missing, so that those of a chain come to stand in order at its
    /// head. Returns how many.
    pub(in crate::backend) fn insert_missing(&mut self, jumps: &[Jump], tables: &Tables) -> usize {
        let mut missing = 0;
        for jump in jumps.iter().rev() {
            if !tables.table(jump.table).has_rule(jump.from, &jump.rule) {
                self.section(jump.table);
                self.insert(jump.from, &jump.rule);
                missing += 1;
            }
        }
        missing
    }

    /// Deletes a rule that is there.
    pub(in crate::backend) fn delete(&mut self, chain: &str, rule: &str) {
        self.line(&format!("-D {chain} {rule}"));
    }

    /// Writes whole chains; they may jump to one another.
    pub(in crate::backend) fn write_chains<'a>(
        &mut self,
        table: Table,
        chains: impl Iterator<Item = &'a Chain> + Clone,
    ) {
        for chain in chains.clone() {
            self.section(table);
            self.chain(&chain.name);
        }
        for chain in chains {
            for rule in &chain.rules {
                self.append(&chain.name, rule);
            }
        }
    }

    /// Deletes chains that nothing else jumps to; they may jump to one another.
    pub(in crate::backend) fn delete_chains<'a>(
        &mut self,
        table: Table,
        chains: impl Iterator<Item = &'a String> + Clone,
    ) {
        for chain in chains.clone() {
            self.section(table);
            self.chain(chain);
        }
        for chain in chains {
            self.line(&format!("-X {chain}"));
        }
    }

    /// The script, all sections committed; empty if nothing was written.
    pub(in crate::backend) fn finish(mut self) -> Script {
        self.commit();
        Script {
            text: self.text,
            owners: self.owners,
            rules: self.rules,
        }
    }

    const fn count_rule(&mut self) {
        if let Some(table) = self.open {
            self.rules.add(table, 1);
        }
    }

    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
        self.lines += 1;
    }
}

/// A finished restore script.
#[derive(Debug)]
pub(in crate::backend) struct Script {
    text: String,
    owners: Vec<(usize, Option<PlanId>)>,
    rules: RuleCounts,
}

impl Script {
    pub(in crate::backend) fn text(&self) -> &str {
        &self.text
    }

    pub(in crate::backend) const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// How many rules it adds.
    pub(in crate::backend) const fn rules(&self) -> RuleCounts {
        self.rules
    }

    /// The line with this number, counted from 1.
    pub(in crate::backend) fn line(&self, number: usize) -> Option<&str> {
        self.text.lines().nth(number.checked_sub(1)?)
    }

    /// Which plan the line with this number was written for. A COMMIT is nobody's: that a
    /// tool blames it says nothing about which line before it was refused.
    pub(in crate::backend) fn owner(&self, number: usize) -> Option<&PlanId> {
        if self.line(number)? == "COMMIT" {
            return None;
        }
        let after = self.owners.partition_point(|(first, _)| *first <= number);
        self.owners.get(after.checked_sub(1)?)?.1.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use switchyard_cluster::object::{IpFamily, ObjectName, Protocol};

    use super::*;

    #[test]
    fn lines_have_owners_and_sections_commit() {
        let id = PlanId {
            service: ObjectName::new("a", "b"),
            port_name: "".into(),
            protocol: Protocol::Tcp,
            family: IpFamily::V4,
        };
        let mut batch = Batch::default();
        batch.section(Table::Filter);
        batch.append("X", "-j DROP");
        batch.section(Table::Nat);
        batch.owner(Some(&id));
        batch.chain("Y");
        batch.append("Y", "-j RETURN");
        batch.owner(None);
        batch.insert("Z", "-j Y");
        let script = batch.finish();
        let expected = "*filter\n-A X -j DROP\nCOMMIT\n*nat\n:Y - [0:0]\n-A Y -j RETURN\n\
                        -I Z 1 -j Y\nCOMMIT\n";
        assert_eq!(script.text(), expected);
        assert_eq!(script.owner(2), None);
        assert_eq!(script.owner(5), Some(&id));
        assert_eq!(script.owner(6), Some(&id));
        assert_eq!(script.owner(7), None);
        assert_eq!(script.owner(8), None);
        assert_eq!(script.rules(), RuleCounts { filter: 1, nat: 2 });
    }
}
