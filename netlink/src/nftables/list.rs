//! What the kernel lists.

use std::collections::HashSet;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};

use super::change::Rule;
use super::element::{self, Element};
use super::expression::{self, Name};
use super::numbers::{
    LIST_ELEM, SUBSYSTEM, SUBSYSTEM_NAME, chain, element as element_kind, rule, table,
};
use super::set::Set;
use super::table::{BaseChain, Chain, ChainKind, Hook, Policy, Table};
use super::userdata;
use crate::attribute::{self, Detail, attributes};
use crate::error::NetlinkError;
use crate::nfnl::NfnlSocket;
use crate::writer::Writer;

/// How often a listing that was overtaken by a change is taken anew.
const TRIES_MAX: u32 = 5;

/// Something of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listed<T> {
    /// What it is.
    pub object: T,
    /// Its handle: unique in its table at any time, another one after it was deleted and made
    /// anew.
    pub handle: u64,
}

/// A socket to list through.
#[derive(Debug)]
pub(crate) struct Lister {
    pub(crate) socket: NfnlSocket,
    writer: Writer,
}

/// What is listed.
pub(crate) struct Listing {
    /// `NFT_MSG_GET*`.
    pub(crate) command: u8,
    /// `nfgen_family`.
    pub(crate) family: u8,
    /// In words.
    pub(crate) request: String,
}

impl Lister {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: NfnlSocket::open_explained(SUBSYSTEM, SUBSYSTEM_NAME)?,
            writer: Writer::new(),
        })
    }

    /// Hands the attributes of every object to `on_object`. `names` writes which objects.
    /// `start` makes the state before the first object, and again whenever the list begins
    /// anew. What is not there has no objects.
    pub(crate) fn list<State>(
        &mut self,
        listing: &Listing,
        names: impl Fn(&mut Writer),
        mut start: impl FnMut() -> State,
        mut on_object: impl FnMut(&mut State, &[u8]) -> Result<(), Detail>,
    ) -> Result<State, NetlinkError> {
        let mut tries_left = TRIES_MAX;
        loop {
            let mut state = start();
            tries_left -= 1;
            match self.list_once(listing, &names, &mut |bytes| on_object(&mut state, bytes)) {
                Ok(()) => return Ok(state),
                Err(NetlinkError::Interrupted { .. }) if tries_left > 0 => {}
                Err(error) if error.refused_code() == Some(nix::libc::ENOENT) => return Ok(start()),
                Err(error) => return Err(error),
            }
        }
    }

    fn list_once(
        &mut self,
        listing: &Listing,
        names: &impl Fn(&mut Writer),
        on_object: &mut dyn FnMut(&[u8]) -> Result<(), Detail>,
    ) -> Result<(), NetlinkError> {
        self.writer.clear();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let head = self.socket.head(listing.command, flags, listing.family);
        self.writer.message(&head, names);
        // NFT_MSG_NEW* is the number before NFT_MSG_GET*.
        let answer = listing.command - 1;
        self.socket.request(
            &self.writer,
            head.sequence,
            &listing.request,
            |command, _, bytes| match command {
                command if command == answer => on_object(bytes),
                _ => Ok(()),
            },
        )
    }
}

pub(super) fn read_table(bytes: &[u8]) -> Result<Listed<Table>, Detail> {
    let (mut name, mut handle, mut comment) = (None, None, None);
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        match kind {
            table::NAME => name = Some(attribute::text(value, "NFTA_TABLE_NAME")?.into()),
            table::HANDLE => handle = Some(attribute::u64_be(value, "NFTA_TABLE_HANDLE")?),
            table::USERDATA => comment = comment_of(value),
            _ => {}
        }
    }
    match (name, handle) {
        (Some(name), Some(handle)) => Ok(Listed {
            object: Table { name, comment },
            handle,
        }),
        _ => Err("a table without a name or a handle".to_owned()),
    }
}

/// `None` for a chain of another table: the kernel sends the family's all.
pub(super) fn read_chain(bytes: &[u8], of: &str) -> Result<Option<Listed<Chain>>, Detail> {
    let (mut name, mut handle, mut comment) = (None, None, None);
    let (mut kind_name, mut hook, mut policy) = (None, None, None);
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        match kind {
            chain::TABLE if attribute::text(value, "NFTA_CHAIN_TABLE")? != of => return Ok(None),
            chain::NAME => name = Some(attribute::text(value, "NFTA_CHAIN_NAME")?.into()),
            chain::HANDLE => handle = Some(attribute::u64_be(value, "NFTA_CHAIN_HANDLE")?),
            chain::TYPE => kind_name = Some(attribute::text(value, "NFTA_CHAIN_TYPE")?),
            chain::HOOK => hook = Some(read_hook(value)?),
            chain::POLICY => policy = Some(attribute::u32_be(value, "NFTA_CHAIN_POLICY")?),
            chain::USERDATA => comment = comment_of(value),
            _ => {}
        }
    }
    let kind =
        kind_name.and_then(|name| ChainKind::ALL.into_iter().find(|kind| kind.name() == name));
    let base = match (kind, hook, policy) {
        (Some(kind), Some((hook, priority)), Some(policy)) => Some(BaseChain {
            kind,
            hook,
            priority,
            policy: Policy::from_number(policy),
        }),
        _ => None,
    };
    match (name, handle) {
        (Some(name), Some(handle)) => Ok(Some(Listed {
            object: Chain {
                name,
                base,
                comment,
            },
            handle,
        })),
        _ => Err("a chain without a name or a handle".to_owned()),
    }
}

fn read_hook(bytes: &[u8]) -> Result<(Hook, i32), Detail> {
    let number = attribute::find(bytes, chain::HOOK_NUMBER)?.ok_or("a hook without a number")?;
    let priority =
        attribute::find(bytes, chain::HOOK_PRIORITY)?.ok_or("a hook without a priority")?;
    let hook = Hook::from_number(attribute::u32_be(number, "NFTA_HOOK_HOOKNUM")?);
    let priority = attribute::u32_be(priority, "NFTA_HOOK_PRIORITY")?;
    Ok((hook, priority.cast_signed()))
}

/// `None` for a rule of another table: kernels before 4.5 send them all.
pub(super) fn read_rule(bytes: &[u8], of: &str) -> Result<Option<Listed<Rule>>, Detail> {
    let (mut chain, mut handle, mut comment) = (None, None, None);
    let mut expressions = Vec::new();
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        match kind {
            rule::TABLE if attribute::text(value, "NFTA_RULE_TABLE")? != of => return Ok(None),
            rule::CHAIN => chain = Some(attribute::text(value, "NFTA_RULE_CHAIN")?.into()),
            rule::HANDLE => handle = Some(attribute::u64_be(value, "NFTA_RULE_HANDLE")?),
            rule::EXPRESSIONS => expressions = expression::read_all(value)?,
            rule::USERDATA => comment = comment_of(value),
            _ => {}
        }
    }
    match (chain, handle) {
        (Some(chain), Some(handle)) => Ok(Some(Listed {
            object: Rule {
                chain,
                expressions,
                comment,
            },
            handle,
        })),
        _ => Err("a rule without a chain or a handle".to_owned()),
    }
}

/// `None` for a set of another table.
pub(super) fn read_set(bytes: &[u8], of: &str) -> Result<Option<Listed<Set>>, Detail> {
    let (object, table, handle) = Set::read(bytes)?;
    Ok((table == of).then_some(Listed { object, handle }))
}

/// Elements, and where ranges of a single field end.
#[derive(Debug, Default)]
pub(super) struct Elements {
    pub(super) elements: Vec<Element>,
    pub(super) ends: Vec<super::Data>,
}

impl Elements {
    /// Whether a key is there twice, and so another missing. The kernel finds its place in a
    /// set, from one datagram to the next, by counting elements; while it moves them to a
    /// larger table, in the background after many were added, the order changes, and no flag
    /// tells.
    pub(super) fn has_repetitions(&self) -> bool {
        let mut seen = HashSet::with_capacity(self.elements.len());
        !self
            .elements
            .iter()
            .all(|element| seen.insert(&element.key))
    }

    /// Elements as they were added.
    pub(super) fn joined(self, set: &Set) -> Vec<Element> {
        if set.intervals && set.key.len() == 1 {
            element::join_ranges(self.elements, self.ends)
        } else {
            self.elements
        }
    }
}

/// One message of elements.
pub(super) fn read_elements(into: &mut Elements, bytes: &[u8]) -> Result<(), Detail> {
    let list = attribute::find(bytes, element_kind::LIST_ELEMENTS)?.unwrap_or_default();
    for attribute in attributes(list) {
        if let (LIST_ELEM, bytes) = attribute? {
            match element::read(bytes)? {
                Some(element::Listed::Element(element)) => into.elements.push(element),
                Some(element::Listed::End(key)) => into.ends.push(key),
                None => {}
            }
        }
    }
    Ok(())
}

fn comment_of(value: &[u8]) -> Option<Name> {
    userdata::comment(value, userdata::COMMENT).map(Name::from)
}
