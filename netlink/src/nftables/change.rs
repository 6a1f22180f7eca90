use std::fmt;

use super::element::Element;
use super::expression::{Expression, Name};
use super::numbers::{chain, element, message, rule, set, table};
use super::set::Set;
use super::table::{Chain, TableId};
use super::userdata;
use crate::writer::Writer;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The chain it is in.
    pub chain: Name,
    /// What it does, step by step.
    pub expressions: Vec<Expression>,
    /// Its comment.
    pub comment: Option<Name>,
}

impl Rule {
    /// A rule without a comment.
    #[must_use]
    pub fn new(chain: impl Into<Name>, expressions: Vec<Expression>) -> Self {
        Self {
            chain: chain.into(),
            expressions,
            comment: None,
        }
    }
}

/// One step of a transaction. Later steps see what earlier ones did; nobody else sees any
/// before all are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds the table, unless it is there.
    AddTable {
        /// Its comment, for a new one (Linux 5.10).
        comment: Option<Name>,
    },
    /// Deletes the table with all in it.
    DeleteTable,
    /// Adds a chain, unless it is there.
    AddChain(Chain),
    /// Deletes all rules of a chain.
    FlushChain(Name),
    /// Deletes an empty chain that nothing leads to.
    DeleteChain(Name),
    /// Adds a rule at the end of its chain.
    AddRule(Rule),
    /// Adds a rule at the beginning of its chain.
    InsertRule(Rule),
    /// Puts a rule in another's place.
    ReplaceRule {
        /// The other one's handle.
        handle: u64,
        /// The rule.
        rule: Rule,
    },
    /// Deletes a rule.
    DeleteRule {
        /// Its chain.
        chain: Name,
        /// Its handle.
        handle: u64,
    },
    /// Adds a set or map, unless it is there.
    AddSet(Set),
    /// Deletes all elements of a set.
    FlushSet(Name),
    /// Deletes a set that no rule names.
    DeleteSet(Name),
    /// Adds elements to a set. One that is there already stays as it is, unless it leads to
    /// something else, which the kernel refuses.
    AddElements {
        /// The set.
        set: Name,
        /// The elements, as many as are needed.
        elements: Vec<Element>,
    },
    /// Deletes elements of a set, by their keys. The kernel refuses those that are not there.
    DeleteElements {
        /// The set.
        set: Name,
        /// The elements.
        elements: Vec<Element>,
    },
}

/// `NLM_F_*` of one message besides `NLM_F_REQUEST`.
pub(super) const FLAG_CREATE: u16 = 0x400;
pub(super) const FLAG_REPLACE: u16 = 0x100;
pub(super) const FLAG_APPEND: u16 = 0x800;

impl Change {
    /// Command and flags of its messages.
    pub(super) const fn command(&self) -> (u8, u16) {
        match self {
            Self::AddTable { .. } => (message::NEW_TABLE, FLAG_CREATE),
            Self::DeleteTable => (message::DELETE_TABLE, 0),
            Self::AddChain(_) => (message::NEW_CHAIN, FLAG_CREATE),
            Self::DeleteChain(_) => (message::DELETE_CHAIN, 0),
            Self::AddRule(_) => (message::NEW_RULE, FLAG_CREATE | FLAG_APPEND),
            Self::InsertRule(_) => (message::NEW_RULE, FLAG_CREATE),
            Self::ReplaceRule { .. } => (message::NEW_RULE, FLAG_REPLACE),
            Self::FlushChain(_) | Self::DeleteRule { .. } => (message::DELETE_RULE, 0),
            Self::AddSet(_) => (message::NEW_SET, FLAG_CREATE),
            Self::DeleteSet(_) => (message::DELETE_SET, 0),
            Self::AddElements { .. } => (message::NEW_ELEMENT, FLAG_CREATE),
            Self::FlushSet(_) | Self::DeleteElements { .. } => (message::DELETE_ELEMENT, 0),
        }
    }

    /// Whether it is about elements that it names.
    pub(super) const fn is_of_elements(&self) -> bool {
        matches!(self, Self::AddElements { .. } | Self::DeleteElements { .. })
    }

    /// The elements that its messages carry.
    pub(super) fn elements(&self) -> &[Element] {
        match self {
            Self::AddElements { elements, .. } | Self::DeleteElements { elements, .. } => elements,
            _ => &[],
        }
    }

    /// The attributes of a message of it, but for elements. `id` is any number that no other
    /// change of the transaction has.
    pub(super) fn write(&self, writer: &mut Writer, table: &TableId, id: u32) {
        // NFTA_TABLE_NAME and NFTA_*_TABLE are the same.
        writer.text(table::NAME, &table.name);
        match self {
            Self::AddTable { comment } => {
                writer.u32_be(table::FLAGS, 0);
                userdata::write_comment(writer, table::USERDATA, comment.as_deref());
            }
            Self::DeleteTable => {}
            Self::AddChain(chain) => write_chain(writer, chain),
            Self::DeleteChain(name) => writer.text(chain::NAME, name),
            Self::FlushChain(chain) => writer.text(rule::CHAIN, chain),
            Self::AddRule(rule) | Self::InsertRule(rule) => write_rule(writer, rule, None),
            Self::ReplaceRule { handle, rule } => write_rule(writer, rule, Some(*handle)),
            Self::DeleteRule { chain, handle } => {
                writer.text(rule::CHAIN, chain);
                writer.attribute(rule::HANDLE, &handle.to_be_bytes());
            }
            Self::AddSet(set) => set.write(writer, id),
            Self::DeleteSet(name) => writer.text(set::NAME, name),
            Self::FlushSet(set)
            | Self::AddElements { set, .. }
            | Self::DeleteElements { set, .. } => writer.text(element::LIST_SET, set),
        }
    }
}

fn write_chain(writer: &mut Writer, added: &Chain) {
    writer.text(chain::NAME, &added.name);
    if let Some(base) = &added.base {
        writer.text(chain::TYPE, base.kind.name());
        writer.nest(chain::HOOK, |writer| {
            writer.u32_be(chain::HOOK_NUMBER, base.hook.number());
            writer.u32_be(chain::HOOK_PRIORITY, base.priority.cast_unsigned());
        });
        writer.u32_be(chain::POLICY, base.policy.number());
    }
    userdata::write_comment(writer, chain::USERDATA, added.comment.as_deref());
}

fn write_rule(writer: &mut Writer, added: &Rule, handle: Option<u64>) {
    writer.text(rule::CHAIN, &added.chain);
    if let Some(handle) = handle {
        writer.attribute(rule::HANDLE, &handle.to_be_bytes());
    }
    userdata::write_comment(writer, rule::USERDATA, added.comment.as_deref());
    writer.nest(rule::EXPRESSIONS, |writer| {
        for expression in &added.expressions {
            expression.write(writer);
        }
    });
}

/// What it does, in words.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable { .. } => f.write_str("add the table"),
            Self::DeleteTable => f.write_str("delete the table"),
            Self::AddChain(chain) => write!(f, "add the chain {}", chain.name),
            Self::FlushChain(chain) => write!(f, "delete the rules of the chain {chain}"),
            Self::DeleteChain(chain) => write!(f, "delete the chain {chain}"),
            Self::AddRule(rule) | Self::InsertRule(rule) => {
                write!(f, "add a rule to the chain {}", rule.chain)
            }
            Self::ReplaceRule { handle, rule } => {
                write!(f, "replace rule {handle} of the chain {}", rule.chain)
            }
            Self::DeleteRule { chain, handle } => {
                write!(f, "delete rule {handle} of the chain {chain}")
            }
            Self::AddSet(set) if set.maps_to.is_some() => write!(f, "add the map {}", set.name),
            Self::AddSet(set) => write!(f, "add the set {}", set.name),
            Self::FlushSet(set) => write!(f, "delete the elements of the set {set}"),
            Self::DeleteSet(set) => write!(f, "delete the set {set}"),
            Self::AddElements { set, elements } => {
                write!(f, "add {} elements to the set {set}", elements.len())
            }
            Self::DeleteElements { set, elements } => {
                write!(f, "delete {} elements of the set {set}", elements.len())
            }
        }
    }
}
