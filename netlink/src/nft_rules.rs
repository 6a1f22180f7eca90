//! Which chains and rules a table of nf_tables holds, rules by handle and a fingerprint of
//! what they say: enough to find the chains that somebody else changed, without any text.
//!
//! Source: `NFT_MSG_GETCHAIN`, `NFT_MSG_GETRULE`, `enum nft_rule_attributes` and `enum nft_expr_attributes` of
//! `linux/netfilter/nf_tables.h`; Linux 3.13. Needs CAP_NET_ADMIN. The handle alone is not
//! enough: a rule put in another's place (`iptables -R`) may keep it.

use std::hash::{DefaultHasher, Hash, Hasher};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};

use crate::attribute::{self, Detail, attributes};
use crate::error::NetlinkError;
use crate::family::Family;
use crate::nfnl::NfnlSocket;
use crate::writer::Writer;

const SUBSYSTEM_NFTABLES: u8 = 10;
const MSG_NEWCHAIN: u8 = 3;
const MSG_GETCHAIN: u8 = 4;
const MSG_NEWRULE: u8 = 6;
const MSG_GETRULE: u8 = 7;
const CHAIN_TABLE: u16 = 1;
const CHAIN_HANDLE: u16 = 2;
const CHAIN_NAME: u16 = 3;
const CHAIN_USE: u16 = 6;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;

/// How often a dump that was overtaken by a change is taken anew.
const DUMP_TRIES_MAX: u32 = 5;

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
    socket: NfnlSocket,
    writer: Writer,
}

impl RuleLister {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: NfnlSocket::open(SUBSYSTEM_NFTABLES, "nf_tables")?,
            writer: Writer::new(),
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
        let request = format!("list the chains of the {family} table {table}");
        let dump = Dump {
            command: MSG_GETCHAIN,
            family,
            table,
            chain: None,
            request,
        };
        self.dump(&dump, start, |state, bytes| {
            if let Some(chain) = parse_chain(bytes, table)? {
                on_chain(state, chain);
            }
            Ok(())
        })
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
        let dump = Dump {
            command: MSG_GETRULE,
            family,
            table,
            chain,
            request,
        };
        self.dump(&dump, start, |state, bytes| {
            if let Some(rule) = parse(bytes, table)? {
                on_rule(state, rule);
            }
            Ok(())
        })
    }

    fn dump<State>(
        &mut self,
        dump: &Dump<'_>,
        mut start: impl FnMut() -> State,
        mut on_object: impl FnMut(&mut State, &[u8]) -> Result<(), Detail>,
    ) -> Result<State, NetlinkError> {
        let mut tries_left = DUMP_TRIES_MAX;
        loop {
            let mut state = start();
            tries_left -= 1;
            match self.dump_once(dump, &mut |bytes| on_object(&mut state, bytes)) {
                Ok(()) => return Ok(state),
                Err(NetlinkError::Interrupted { .. }) if tries_left > 0 => {}
                Err(error) if error.refused_code() == Some(nix::libc::ENOENT) => return Ok(start()),
                Err(error) => return Err(error),
            }
        }
    }

    fn dump_once(
        &mut self,
        dump: &Dump<'_>,
        on_object: &mut dyn FnMut(&[u8]) -> Result<(), Detail>,
    ) -> Result<(), NetlinkError> {
        self.writer.clear();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let head = self.socket.head(dump.command, flags, dump.family.number());
        self.writer.message(&head, |writer| {
            writer.text(RULE_TABLE, dump.table); // NFTA_CHAIN_TABLE is the same
            if let Some(chain) = dump.chain {
                writer.text(RULE_CHAIN, chain);
            }
        });
        self.socket.request(
            &self.writer,
            head.sequence,
            &dump.request,
            |command, _, bytes| match command {
                MSG_NEWCHAIN | MSG_NEWRULE => on_object(bytes),
                _ => Ok(()),
            },
        )
    }
}

struct Dump<'a> {
    command: u8,
    family: Family,
    table: &'a str,
    chain: Option<&'a str>,
    request: String,
}

/// `None` for a chain of another table: the kernel sends the family's all.
fn parse_chain<'a>(bytes: &'a [u8], table: &str) -> Result<Option<Chain<'a>>, Detail> {
    let (mut name, mut handle, mut uses) = (None, None, None);
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        match kind {
            CHAIN_TABLE if attribute::text(value, "NFTA_CHAIN_TABLE")? != table => return Ok(None),
            CHAIN_NAME => name = Some(attribute::text(value, "NFTA_CHAIN_NAME")?),
            CHAIN_HANDLE => handle = Some(attribute::u64_be(value, "NFTA_CHAIN_HANDLE")?),
            CHAIN_USE => uses = Some(attribute::u32_be(value, "NFTA_CHAIN_USE")?),
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
            RULE_TABLE if attribute::text(value, "NFTA_RULE_TABLE")? != table => return Ok(None),
            RULE_CHAIN => chain = Some(attribute::text(value, "NFTA_RULE_CHAIN")?),
            RULE_HANDLE => handle = Some(attribute::u64_be(value, "NFTA_RULE_HANDLE")?),
            RULE_EXPRESSIONS => hash_expressions(value, &mut fingerprint)?,
            RULE_USERDATA => value.hash(&mut fingerprint),
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
        let name = attribute::find(expression, EXPR_NAME)?.unwrap_or_default();
        let name = attribute::text(name, "NFTA_EXPR_NAME")?;
        name.hash(fingerprint);
        if !EXPRESSIONS_THAT_COUNT.contains(&name) {
            attribute::find(expression, EXPR_DATA)?.hash(fingerprint);
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
            writer.text(RULE_TABLE, "nat");
            writer.text(RULE_CHAIN, "C");
            writer.attribute(RULE_HANDLE, &handle.to_be_bytes());
            writer.nest(RULE_EXPRESSIONS, |writer| {
                writer.nest(LIST_ELEM, |writer| {
                    writer.text(EXPR_NAME, "counter");
                    writer.nest(EXPR_DATA, |writer| {
                        writer.attribute(1, &packets.to_be_bytes());
                    });
                });
                writer.nest(LIST_ELEM, |writer| {
                    writer.text(EXPR_NAME, "immediate");
                    writer.nest(EXPR_DATA, |writer| writer.u8(1, verdict));
                });
            });
            writer.attribute(RULE_USERDATA, comment);
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
