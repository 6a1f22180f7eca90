//! What the kernel has of a table.

use std::collections::HashMap;
use std::sync::Arc;

use switchyard_netlink::nftables::{
    BaseChain, Data, Key, NftError, Nftables, Rule, Set, TableId, Value,
};

use super::form::Shared;

/// A table as it is.
#[derive(Debug, Default)]
pub(super) struct Present {
    pub(super) chains: HashMap<Arc<str>, PresentChain>,
    /// Named sets and maps; those of single rules go with them.
    pub(super) sets: HashMap<Arc<str>, Set>,
    pub(super) elements: HashMap<Shared, PresentElements>,
}

/// Elements of a set or map: what their keys lead to.
pub(super) type PresentElements = HashMap<Data, Option<Value>>;

/// A chain as it is.
#[derive(Debug)]
pub(super) struct PresentChain {
    pub(super) base: Option<BaseChain>,
    pub(super) rules: Vec<Rule>,
}

/// Reads a table; empty if there is none.
///
/// # Errors
/// Of the kernel; "interrupted" if it keeps changing.
pub(super) fn read(kernel: &mut Nftables, table: &TableId) -> Result<Present, NftError> {
    let mut present = Present::default();
    for listed in kernel.chains(table)? {
        let chain = PresentChain {
            base: listed.object.base,
            rules: Vec::new(),
        };
        present.chains.insert(listed.object.name, chain);
    }
    if present.chains.is_empty() {
        return Ok(present); // a table without chains does nothing, and is made anew
    }
    for listed in kernel.rules(table, None)? {
        if let Some(chain) = present.chains.get_mut(&listed.object.chain) {
            chain.rules.push(listed.object);
        }
    }
    for listed in kernel.sets(table)? {
        let set = listed.object;
        if set.anonymous {
            continue;
        }
        if let Some(shared) = Shared::named(&set.name) {
            let elements = kernel.elements(table, &set)?.into_iter();
            let of_one_key = |element: switchyard_netlink::nftables::Element| match element.key {
                Key::One(key) => Some((key, element.value)),
                _ => None,
            };
            let elements = elements.filter_map(of_one_key).collect();
            present.elements.insert(shared, elements);
        }
        present.sets.insert(Arc::clone(&set.name), set);
    }
    Ok(present)
}

impl PresentChain {
    /// Whether its rules do what these do; comments do nothing.
    pub(super) fn does(&self, rules: &[Rule]) -> bool {
        let both = self.rules.iter().zip(rules);
        self.rules.len() == rules.len()
            && both
                .into_iter()
                .all(|(there, wanted)| there.expressions == wanted.expressions)
    }
}
