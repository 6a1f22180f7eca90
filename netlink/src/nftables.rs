//! Tables, chains, rules, sets and maps of nf_tables, changed in transactions and listed,
//! without any text.
//!
//! Source: `linux/netfilter/nf_tables.h`, nfnetlink subsystem 10. Needs CAP_NET_ADMIN in the
//! network namespace. Types of fields and comments are kept the way nft keeps them, so that
//! `nft list ruleset` shows everything as if nft had made it.
//!
//! Linux 5.13 and later know all of it, which is what kube-proxy needs, too. What is newer than
//! 4.18 says so where it is documented; an earlier kernel refuses such a change, mostly with
//! `EINVAL` or `EOPNOTSUPP`, or leaves a comment out. [`Nftables::check`] asks a kernel.
//!
//! A transaction takes time and memory by its bytes, about 90 ms for each MB (Linux 6.18):
//! 50,000 chains with 150,000 rules and a verdict map to them are 56 MB and 5 s, one map of
//! 150,000 endpoints is 6.6 MB and 0.6 s. What the kernel finds by going through all of its like
//! costs the square: the sets of one table, anonymous ones above all (4,000 took 1.5 s, 2,000 a
//! quarter of it), and elements and rules while they are listed (150,000 elements: 3 s).
//!
//! ```no_run
//! use switchyard_netlink::Family;
//! use switchyard_netlink::nftables::{
//!     BaseChain, Chain, ChainKind, Change, Data, Element, Expression, Field, FieldType, Find,
//!     Hook, MapsTo, Nftables, Policy, Register, Rule, Set, TableId, Value, Verdict,
//! };
//!
//! # fn main() -> Result<(), switchyard_netlink::nftables::NftError> {
//! let table = TableId::new(Family::V4, "example");
//! let base = BaseChain {
//!     kind: ChainKind::Filter,
//!     hook: Hook::Input,
//!     priority: 0,
//!     policy: Policy::Accept,
//! };
//! let chain = Chain { name: "input".into(), base: Some(base), comment: None };
//! let key = Data::of(Field::Address([192, 0, 2, 1].into()));
//! Nftables::open()?.apply(
//!     &table,
//!     &[
//!         Change::AddTable { comment: None },
//!         Change::AddChain(chain),
//!         Change::AddSet(Set::map("verdicts", &[FieldType::Ipv4Address], MapsTo::Verdict)),
//!         Change::AddElements {
//!             set: "verdicts".into(),
//!             elements: vec![Element::leading_to(key, Value::Verdict(Verdict::Drop))],
//!         },
//!         // ip daddr vmap @verdicts
//!         Change::AddRule(Rule::new(
//!             "input",
//!             vec![
//!                 Expression::destination_address(Family::V4, Register::FIRST),
//!                 Expression::Lookup {
//!                     set: "verdicts".into(),
//!                     key: Register::FIRST,
//!                     find: Find::Verdict,
//!                 },
//!             ],
//!         )),
//!     ],
//! )?;
//! # Ok(())
//! # }
//! ```

#[cfg(any(test, fuzzing))]
pub(crate) mod any_bytes;
mod batch;
mod change;
mod data;
mod element;
mod error;
mod expression;
pub(crate) mod list;
pub(crate) mod numbers;
mod place;
#[cfg(test)]
mod properties;
mod set;
mod table;
mod userdata;
mod verdict;

pub use batch::split;
pub use change::{Change, Rule};
pub use data::{Data, Field, FieldType, Register};
pub use element::{Element, Key};
pub use error::{NftError, REFUSALS_MAX, Refusal};
pub use expression::{
    Comparison, ConnectionKey, Direction, Expression, FibFlags, FibResult, Find, LogTarget,
    MetaKey, Name, NatFlags, NatKind, NumberKind, PayloadBase, Rejection, UpdateOperation,
    address_type, connection_state,
};
pub use list::Listed;
pub use set::{MapsTo, Set, Timeout};
pub use table::{BaseChain, Chain, ChainKind, Hook, Policy, Table, TableFamily, TableId};
pub use userdata::COMMENT_BYTES_MAX;
pub use verdict::{Value, Verdict};

use std::time::Duration;

use crate::error::NetlinkError;
use crate::nfnl::Answer;
use crate::nft_generation::{self, Generation};
use crate::writer::Writer;
use batch::{Batch, Terms};
use list::{Elements, Lister, Listing};
use numbers::{element as element_kind, message, rule};

/// Most bytes of one transaction. The kernel takes it in one piece, which the send buffer must
/// have room for (`SO_SNDBUFFORCE`, almost 2 GiB at most), and needs several times as much
/// memory until it is made. One of 502 MB was made in 37 s.
pub const TRANSACTION_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Pauses between listings of a hash table that the kernel is moving to a larger one.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(640);

/// Changes and lists the tables of the network namespace it was opened in.
#[derive(Debug)]
pub struct Nftables {
    lister: Lister,
}

/// What a transaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// How many bytes were sent.
    pub bytes: usize,
    /// The generation that it made. Whoever reads another one later
    /// ([`nft_generation::GenerationReader`]) knows that somebody else changed something since.
    /// `None` if the first change deletes a table or all of a chain's rules or a set's elements,
    /// or if nothing was to be done.
    pub generation: Option<Generation>,
}

impl Nftables {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`crate::NetlinkError::Open`].
    pub fn open() -> Result<Self, NftError> {
        Ok(Self {
            lister: Lister::open()?,
        })
    }

    /// Makes all changes to a table, or none, in one step; no changes are none sent. Takes
    /// [`TRANSACTION_BYTES_MAX`] bytes at most; [`split`] helps with more.
    ///
    /// # Errors
    /// [`NftError::Refused`] names every change that the kernel refuses, as far as those
    /// before it can be left out; [`NftError::TooLarge`] before anything is sent.
    pub fn apply(&mut self, table: &TableId, changes: &[Change]) -> Result<Applied, NftError> {
        self.apply_if(table, changes, None)
    }

    /// The same, but only if nobody changed anything in the network namespace since
    /// `expected` was read (Linux 4.18; earlier kernels do not look).
    ///
    /// # Errors
    /// As [`Self::apply`]; [`NftError::Overtaken`] if somebody did.
    pub fn apply_if(
        &mut self,
        table: &TableId,
        changes: &[Change],
        expected: Option<Generation>,
    ) -> Result<Applied, NftError> {
        let only_check = false;
        let terms = Terms {
            expected,
            only_check,
        };
        self.send(table, changes, terms)
    }

    /// Lets the kernel look whether it would make these changes, and makes none: tells
    /// whether a kernel knows all that is used, for one.
    ///
    /// # Errors
    /// As [`Self::apply`]. Some refusals come only with the changes themselves: of memory,
    /// and of chains that make a hook too deep.
    pub fn check(&mut self, table: &TableId, changes: &[Change]) -> Result<(), NftError> {
        let terms = Terms {
            expected: None,
            only_check: true,
        };
        self.send(table, changes, terms).map(|_| ())
    }

    fn send(
        &mut self,
        table: &TableId,
        changes: &[Change],
        terms: Terms,
    ) -> Result<Applied, NftError> {
        let socket = &mut self.lister.socket;
        let batch = Batch::of(table, changes, terms, |count| socket.take_sequences(count));
        if batch.messages.is_empty() {
            return Ok(Applied {
                bytes: 0,
                generation: None,
            });
        }
        let bytes = batch.writer.len();
        let too_large = || NftError::TooLarge {
            table: table.to_string(),
            bytes,
            bytes_max: TRANSACTION_BYTES_MAX,
        };
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(too_large());
        }
        let mut answers = Answers::default();
        let request = format!("change the nftables table {table}");
        let done = socket.exchange_batch(&batch.writer, batch.span, &request, &mut |answer| {
            answers.take(answer, &batch, changes)
        });
        if answers.overtaken {
            return Err(NftError::Overtaken {
                table: table.to_string(),
            });
        }
        if !answers.refusals.is_empty() {
            return Err(NftError::Refused {
                table: table.to_string(),
                refusals: answers.refusals,
                more: answers.more,
            });
        }
        done?;
        Ok(Applied {
            bytes,
            generation: answers.generation,
        })
    }

    /// The tables of a family.
    ///
    /// # Errors
    /// Of the kernel only, as for all lists: `Interrupted` if things keep changing, `Refused`
    /// with `EPERM` without CAP_NET_ADMIN.
    pub fn tables(&mut self, family: TableFamily) -> Result<Vec<Listed<Table>>, NftError> {
        let listing = Listing {
            command: message::GET_TABLE,
            family: family.number(),
            request: format!("list the {family} tables"),
        };
        let read = |tables: &mut Vec<_>, bytes: &[u8]| {
            tables.push(list::read_table(bytes)?);
            Ok(())
        };
        Ok(self.lister.list(&listing, |_| {}, Vec::new, read)?)
    }

    /// The chains of a table; none if there is no such table.
    ///
    /// # Errors
    /// As [`Self::tables`].
    pub fn chains(&mut self, table: &TableId) -> Result<Vec<Listed<Chain>>, NftError> {
        let listing = listing(message::GET_CHAIN, table, "chains");
        let read = |chains: &mut Vec<_>, bytes: &[u8]| {
            chains.extend(list::read_chain(bytes, &table.name)?);
            Ok(())
        };
        let name = |writer: &mut Writer| writer.text(rule::TABLE, &table.name);
        Ok(self.lister.list(&listing, name, Vec::new, read)?)
    }

    /// The rules of a chain, or of all chains of a table, in order; none if there is no such.
    ///
    /// # Errors
    /// As [`Self::tables`].
    pub fn rules(
        &mut self,
        table: &TableId,
        chain: Option<&str>,
    ) -> Result<Vec<Listed<Rule>>, NftError> {
        let listing = listing(message::GET_RULE, table, "rules");
        let names = |writer: &mut Writer| {
            writer.text(rule::TABLE, &table.name);
            if let Some(chain) = chain {
                writer.text(rule::CHAIN, chain);
            }
        };
        let read = |rules: &mut Vec<_>, bytes: &[u8]| {
            rules.extend(list::read_rule(bytes, &table.name)?);
            Ok(())
        };
        Ok(self.lister.list(&listing, names, Vec::new, read)?)
    }

    /// The sets and maps of a table, anonymous ones, too, without their elements; none if
    /// there is no such table.
    ///
    /// # Errors
    /// As [`Self::tables`].
    pub fn sets(&mut self, table: &TableId) -> Result<Vec<Listed<Set>>, NftError> {
        let listing = listing(message::GET_SET, table, "sets");
        let read = |sets: &mut Vec<_>, bytes: &[u8]| {
            sets.extend(list::read_set(bytes, &table.name)?);
            Ok(())
        };
        let name = |writer: &mut Writer| writer.text(rule::TABLE, &table.name);
        Ok(self.lister.list(&listing, name, Vec::new, read)?)
    }

    /// The elements of a set, in no particular order; none if there is no such set.
    ///
    /// # Errors
    /// As [`Self::tables`].
    pub fn elements(&mut self, table: &TableId, set: &Set) -> Result<Vec<Element>, NftError> {
        let listing = Listing {
            command: message::GET_ELEMENT,
            family: table.family.number(),
            request: format!(
                "list the elements of the set {} of the table {table}",
                set.name
            ),
        };
        let mut pause = Some(PAUSE_MIN);
        loop {
            let names = |writer: &mut Writer| {
                writer.text(element_kind::LIST_TABLE, &table.name);
                writer.text(element_kind::LIST_SET, &set.name);
            };
            let read = self
                .lister
                .list(&listing, names, Elements::default, list::read_elements)?;
            if !read.has_repetitions() {
                return Ok(read.joined(set));
            }
            let Some(now) = pause.take() else {
                let request = listing.request;
                return Err(NetlinkError::Interrupted { request }.into());
            };
            std::thread::sleep(now);
            pause = Some(now * 2).filter(|next| *next <= PAUSE_MAX);
        }
    }
}

fn listing(command: u8, table: &TableId, what: &str) -> Listing {
    Listing {
        command,
        family: table.family.number(),
        request: format!("list the {what} of the table {table}"),
    }
}

/// What the kernel said to a transaction.
#[derive(Debug, Default)]
struct Answers {
    refusals: Vec<Refusal>,
    more: usize,
    overtaken: bool,
    generation: Option<Generation>,
}

impl Answers {
    fn take(
        &mut self,
        answer: Answer<'_>,
        batch: &Batch,
        changes: &[Change],
    ) -> Result<(), String> {
        match answer {
            Answer::Object {
                command: message::NEW_GENERATION,
                attributes,
                ..
            } => self.generation = nft_generation::parse(attributes)?,
            Answer::Object { .. } => {}
            Answer::Refused {
                sequence,
                code: nix::libc::ERESTART,
                ..
            } if sequence == batch.span.first => self.overtaken = true,
            Answer::Refused {
                sequence,
                code,
                original,
            } if self.refusals.len() < REFUSALS_MAX => {
                self.refusals
                    .push(place::refusal(batch, changes, sequence, code, original));
            }
            Answer::Refused { .. } => self.more += 1,
        }
        Ok(())
    }
}
