use std::ops::{AddAssign, SubAssign};

use super::table::Table;

/// How many rules, in each of the two tables that hold any of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounts {
    /// In the filter table.
    pub filter: usize,
    /// In the nat table.
    pub nat: usize,
}

impl RuleCounts {
    /// In both.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.filter + self.nat
    }

    pub(in crate::backend) const fn add(&mut self, table: Table, rules: usize) {
        match table {
            Table::Filter => self.filter += rules,
            Table::Nat => self.nat += rules,
            Table::Mangle => {} // few, and never counted by the reference
        }
    }
}

impl AddAssign for RuleCounts {
    fn add_assign(&mut self, other: Self) {
        self.filter += other.filter;
        self.nat += other.nat;
    }
}

impl SubAssign for RuleCounts {
    fn sub_assign(&mut self, other: Self) {
        self.filter -= other.filter;
        self.nat -= other.nat;
    }
}
