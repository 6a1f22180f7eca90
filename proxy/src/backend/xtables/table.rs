//! What rules are made of.

/// A chain and its rules, without `-A CHAIN`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::backend) struct Chain {
    pub(in crate::backend) name: String,
    pub(in crate::backend) rules: Vec<String>,
}

/// A table, in the order in which they are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::backend) enum Table {
    Mangle,
    Filter,
    Nat,
}

impl Table {
    pub(in crate::backend) const ALL: [Self; 3] = [Self::Mangle, Self::Filter, Self::Nat];

    pub(in crate::backend) const fn as_str(self) -> &'static str {
        match self {
            Self::Mangle => "mangle",
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A chain whose content is ours alone and does not depend on Services.
pub(in crate::backend) struct FixedChain {
    pub(in crate::backend) table: Table,
    pub(in crate::backend) chain: Chain,
}

/// A jump from a chain of the kernel's into one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend) struct Jump {
    pub(in crate::backend) table: Table,
    pub(in crate::backend) from: &'static str,
    pub(in crate::backend) rule: String,
}
