//! Which chains and rules a table of nf_tables holds, rules by handle and a fingerprint of
//! what they say: enough to find the chains that somebody else changed, without any text.
//!
//! Source: `NFT_MSG_GETCHAIN`, `NFT_MSG_GETRULE`, `enum nft_rule_attributes` and `enum nft_expr_attributes` of
//! `linux/netfilter/nf_tables.h`; Linux 3.13. Needs CAP_NET_ADMIN. The handle alone is not
//! enough: a rule put in another's place (`iptables -R`) may keep it.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::attribute::{self, Detail, attributes};
use crate::error::NetlinkError;
use crate::family::Family;
use crate::nftables::list::{Lister, Listing};
use crate::nftables::numbers::{
    LIST_ELEM, chain as chain_attribute, message, rule as rule_attribute,
};

/// Expressions that change by themselves, by traffic, and so are no part of what a rule says.
const EXPRESSIONS_THAT_COUNT: [&str; 3] = ["counter", "last", "quota"];

/// A rule, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    /// The chain it is in.
    pub chain: &'a str,
    /// Its handle, at any time unique in its table.
    pub handle: u64,
    /// Differs, but for chance, if the rule says something else; counters do not matter. To
    /// be compared within one run of the program only.
    pub fingerprint: u64,
}

/// A chain, without its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its handle, another one after it was deleted and made anew.
    pub handle: u64,
    /// How many rules it has, plus how many rules jump to it.
    pub uses: u32,
}

/// Lists chains and rules, in the network namespace it was opened in.
#[derive(Debug)]
pub struct RuleLister {
    lister: Lister,
}

impl RuleLister {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            lister: Lister::open()?,
        })
    }

    /// Hands every chain of a table (`filter`, `nat`, …) to `on_chain`. A table that is not
    /// there has none. 17,000 chains took 20 ms, where their 44,000 rules took 350 ms or more.
    ///
    /// `start` is called before the first chain, and again whenever the list begins anew
    /// because somebody changed something meanwhile.
    ///
    /// # Errors
    /// `Interrupted` if things keep changing; `Refused` with `EPERM` without CAP_NET_ADMIN.
    pub fn for_each_chain<State>(
        &mut self,
        family: Family,
        table: &str,
        start: impl FnMut() -> State,
        mut on_chain: impl FnMut(&mut State, Chain<'_>),
    ) -> Result<State, NetlinkError> {
        let listing = Listing {
            command: message::GET_CHAIN,
            family: family.number(),
            request: format!("list the chains of the {family} table {table}"),
        };
        self.lister.list(
            &listing,
            |writer| writer.text(chain_attribute::TABLE, table),
            start,
            |state, bytes| {
                if let Some(chain) = parse_chain(bytes, table)? {
                    on_chain(state, chain);
                }
                Ok(())
            },
        )
    }

    /// Hands every rule of one chain, or of a whole table, to `on_rule` in order. What is not
    /// there has no rules. `start` is as in [`Self::for_each_chain`].
    ///
    /// The kernel begins at the first rule again for each 32 KiB it sends: 65,000 rules in one
    /// chain took more than two seconds. Chain by chain, most tables are quicker.
    ///
    /// # Errors
    /// As [`Self::for_each_chain`].
    pub fn for_each_rule<State>(
        &mut self,
        family: Family,
        table: &str,
        chain: Option<&str>,
        start: impl FnMut() -> State,
        mut on_rule: impl FnMut(&mut State, Rule<'_>),
    ) -> Result<State, NetlinkError> {
        let request = match chain {
            Some(chain) => format!("list the rules of chain {chain} of the {family} table {table}"),
            None => format!("list the rules of the {family} table {table}"),
        };
        let listing = Listing {
            command: message::GET_RULE,
            family: family.number(),
            request,
        };
        self.lister.list(
            &listing,
            |writer| {
                writer.text(rule_attribute::TABLE, table);
                if let Some(chain) = chain {
                    writer.text(rule_attribute::CHAIN, chain);
                }
            },
            start,
            |state, bytes| {
                if let Some(rule) = parse(bytes, table)? {
                    on_rule(state, rule);
                }
                Ok(())
            },
        )
    }
}

/// `None` for a chain of another table: the kernel sends the family's all.
fn parse_chain<'a>(bytes: &'a [u8], table: &str) -> Result<Option<Chain<'a>>, Detail> {
    let (mut name, mut handle, mut uses) = (None, None, None);
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        match kind {
            chain_attribute::TABLE if attribute::text(value, "NFTA_CHAIN_TABLE")? != table => {
                return Ok(None);
            }
            chain_attribute::NAME => name = Some(attribute::text(value, "NFTA_CHAIN_NAME")?),
            chain_attribute::HANDLE => {
                handle = Some(attribute::u64_be(value, "NFTA_CHAIN_HANDLE")?);
            }
            chain_attribute::USE => uses = Some(attribute::u32_be(value, "NFTA_CHAIN_USE")?),
            _ => {}
        }
    }
    match (name, handle, uses) {
        (Some(name), Some(handle), Some(uses)) => Ok(Some(Chain { name, handle, uses })),
        _ => Err("a chain without a name, a handle or a use count".to_owned()),
    }
}

/// `None` for a rule of another table: kernels before 4.5 send them all.
fn parse<'a>(bytes: &'a [u8], table: &str) -> Result<Option<Rule<'a>>, Detail> {
    let (mut chain, mut handle) = (None, None);
    let mut fingerprint = DefaultHasher::new();
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        match kind {
            rule_attribute::TABLE if attribute::text(value, "NFTA_RULE_TABLE")? != table => {
                return Ok(None);
            }
            rule_attribute::CHAIN => chain = Some(attribute::text(value, "NFTA_RULE_CHAIN")?),
            rule_attribute::HANDLE => handle = Some(attribute::u64_be(value, "NFTA_RULE_HANDLE")?),
            rule_attribute::EXPRESSIONS => hash_expressions(value, &mut fingerprint)?,
            rule_attribute::USERDATA => value.hash(&mut fingerprint),
            _ => {}
        }
    }
    match (chain, handle) {
        (Some(chain), Some(handle)) => {
            let fingerprint = fingerprint.finish();
            Ok(Some(Rule {
                chain,
                handle,
                fingerprint,
            }))
        }
        _ => Err("a rule without a chain or a handle".to_owned()),
    }
}

fn hash_expressions(bytes: &[u8], fingerprint: &mut DefaultHasher) -> Result<(), Detail> {
    for element in attributes(bytes) {
        let (LIST_ELEM, expression) = element? else {
            continue;
        };
        let name =
            attribute::find(expression, rule_attribute::EXPRESSION_NAME)?.unwrap_or_default();
        let name = attribute::text(name, "NFTA_EXPR_NAME")?;
        name.hash(fingerprint);
        if !EXPRESSIONS_THAT_COUNT.contains(&name) {
            attribute::find(expression, rule_attribute::EXPRESSION_DATA)?.hash(fingerprint);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::{MessageHead, Writer};

    fn rule(handle: u64, packets: u64, verdict: u8, comment: &[u8]) -> Vec<u8> {
        let head = MessageHead {
            subsystem: 10,
            command: 6,
            flags: 0,
            sequence: 0,
            family: 2,
        };
        let mut writer = Writer::new();
        writer.message(&head, |writer| {
            writer.text(rule_attribute::TABLE, "nat");
            writer.text(rule_attribute::CHAIN, "C");
            writer.attribute(rule_attribute::HANDLE, &handle.to_be_bytes());
            writer.nest(rule_attribute::EXPRESSIONS, |writer| {
                writer.nest(LIST_ELEM, |writer| {
                    writer.text(rule_attribute::EXPRESSION_NAME, "counter");
                    writer.nest(rule_attribute::EXPRESSION_DATA, |writer| {
                        writer.attribute(1, &packets.to_be_bytes());
                    });
                });
                writer.nest(LIST_ELEM, |writer| {
                    writer.text(rule_attribute::EXPRESSION_NAME, "immediate");
                    writer.nest(rule_attribute::EXPRESSION_DATA, |writer| {
                        writer.u8(1, verdict);
                    });
                });
            });
            writer.attribute(rule_attribute::USERDATA, comment);
        });
        writer.bytes().unwrap()[20..].to_vec()
    }

    fn fingerprint(bytes: &[u8]) -> u64 {
        parse(bytes, "nat").unwrap().unwrap().fingerprint
    }

    #[test]
    fn reads_chain_and_handle_and_passes_other_tables_over() {
        let bytes = rule(258, 0, 1, b"");
        let read = parse(&bytes, "nat").unwrap().unwrap();
        assert_eq!((read.chain, read.handle), ("C", 258));
        assert_eq!(parse(&bytes, "filter"), Ok(None));
        assert!(parse(&bytes[..16], "nat").is_err());
    }

    #[test]
    fn reads_a_chain() {
        let mut bytes = vec![8, 0, 1, 0, b'n', b'a', b't', 0];
        bytes.extend([12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        bytes.extend([6, 0, 3, 0, b'C', 0, 0, 0, 8, 0, 6, 0, 0, 0, 0, 4]);
        let chain = Chain {
            name: "C",
            handle: 9,
            uses: 4,
        };
        assert_eq!(parse_chain(&bytes, "nat"), Ok(Some(chain)));
        assert_eq!(parse_chain(&bytes, "filter"), Ok(None));
        assert!(parse_chain(&bytes[..20], "nat").is_err());
    }

    #[test]
    fn the_fingerprint_is_of_what_the_rule_says_not_of_what_it_counted() {
        let original = fingerprint(&rule(1, 0, 1, b"ns/svc"));
        assert_eq!(fingerprint(&rule(1, 77, 1, b"ns/svc")), original);
        assert_eq!(fingerprint(&rule(9, 0, 1, b"ns/svc")), original);
        assert_ne!(fingerprint(&rule(1, 0, 2, b"ns/svc")), original);
        assert_ne!(fingerprint(&rule(1, 0, 1, b"ns/other")), original);
    }
}
