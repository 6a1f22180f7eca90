//! Which rules a table of nf_tables holds, each by its handle and a fingerprint of what it
//! says: enough to find the chains that somebody else changed, without any text.
//!
//! Source: `NFT_MSG_GETRULE`, `enum nft_rule_attributes` and `enum nft_expr_attributes` of
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
const MSG_NEWRULE: u8 = 6;
const MSG_GETRULE: u8 = 7;
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

/// Lists rules, in the network namespace it was opened in.
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

    /// Hands every rule of a table (`filter`, `nat`, …) to `on_rule`: chain by chain, each in
    /// its rules' order. A table that is not there has no rules. `start` is called before the
    /// first rule, and again whenever the list begins anew because somebody changed rules
    /// meanwhile: forget what came before.
    ///
    /// # Errors
    /// `Interrupted` if rules keep changing; `Refused` with `EPERM` without CAP_NET_ADMIN.
    pub fn for_each<State>(
        &mut self,
        family: Family,
        table: &str,
        mut start: impl FnMut() -> State,
        mut on_rule: impl FnMut(&mut State, Rule<'_>),
    ) -> Result<State, NetlinkError> {
        let mut tries_left = DUMP_TRIES_MAX;
        loop {
            let mut state = start();
            tries_left -= 1;
            match self.dump(family, table, &mut |rule| on_rule(&mut state, rule)) {
                Ok(()) => return Ok(state),
                Err(NetlinkError::Interrupted { .. }) if tries_left > 0 => {}
                Err(error) if error.refused_code() == Some(nix::libc::ENOENT) => return Ok(start()),
                Err(error) => return Err(error),
            }
        }
    }

    fn dump(
        &mut self,
        family: Family,
        table: &str,
        on_rule: &mut dyn FnMut(Rule<'_>),
    ) -> Result<(), NetlinkError> {
        self.writer.clear();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let head = self.socket.head(MSG_GETRULE, flags, family.number());
        self.writer
            .message(&head, |writer| writer.text(RULE_TABLE, table));
        let request = format_args!("list the rules of the {family} table {table}");
        self.socket.request(
            &self.writer,
            head.sequence,
            &request,
            |command, _, bytes| {
                if command == MSG_NEWRULE
                    && let Some(rule) = parse(bytes, table)?
                {
                    on_rule(rule);
                }
                Ok(())
            },
        )
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
    fn the_fingerprint_is_of_what_the_rule_says_not_of_what_it_counted() {
        let original = fingerprint(&rule(1, 0, 1, b"ns/svc"));
        assert_eq!(fingerprint(&rule(1, 77, 1, b"ns/svc")), original);
        assert_eq!(fingerprint(&rule(9, 0, 1, b"ns/svc")), original);
        assert_ne!(fingerprint(&rule(1, 0, 2, b"ns/svc")), original);
        assert_ne!(fingerprint(&rule(1, 0, 1, b"ns/other")), original);
    }
}
