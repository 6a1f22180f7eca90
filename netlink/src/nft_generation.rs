//! The generation id of nf_tables: it changes whenever anybody commits a change to any
//! table of the network namespace, iptables-nft and nft alike, and never otherwise.
//!
//! Source: `NFT_MSG_GETGEN`, `enum nft_gen_attributes` of `linux/netfilter/nf_tables.h`;
//! Linux 3.18.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};

use crate::attribute;
use crate::error::NetlinkError;
use crate::nfnl::NfnlSocket;
use crate::writer::Writer;

const SUBSYSTEM_NFTABLES: u8 = 10;
const MSG_NEWGEN: u8 = 15;
const MSG_GETGEN: u8 = 16;
const GEN_ID: u16 = 1;
const REQUEST: &str = "read the nf_tables generation id";

/// A generation of the rule set. Only equality means anything: the number starts anywhere
/// and wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

/// Reads the generation id, in the network namespace it was opened in.
///
/// To tell whether anybody else changed rules: read it after one's own write, and compare
/// later. A write by somebody else between one's own commit and that read goes unseen, so it
/// saves work between full comparisons but does not replace them.
#[derive(Debug)]
pub struct GenerationReader {
    socket: NfnlSocket,
    writer: Writer,
}

impl GenerationReader {
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

    /// The present generation: two system calls, whatever the size of the rule set.
    ///
    /// # Errors
    /// `Refused` with `EPERM` without CAP_NET_ADMIN, with `EINVAL` on a kernel without
    /// nf_tables.
    pub fn read(&mut self) -> Result<Generation, NetlinkError> {
        self.writer.clear();
        let head = self.socket.head(MSG_GETGEN, NLM_F_REQUEST | NLM_F_ACK, 0);
        self.writer.message(&head, |_| {});
        let mut id = None;
        self.socket.request(
            &self.writer,
            head.sequence,
            &REQUEST,
            |command, _, bytes| {
                if command == MSG_NEWGEN {
                    id = parse(bytes)?;
                }
                Ok(())
            },
        )?;
        id.ok_or_else(|| NetlinkError::Malformed {
            request: REQUEST.to_owned(),
            detail: "no generation id in it".to_owned(),
        })
    }
}

fn parse(attributes: &[u8]) -> Result<Option<Generation>, String> {
    attribute::find(attributes, GEN_ID)?
        .map(|value| attribute::u32_be(value, "NFTA_GEN_ID").map(Generation))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_id_among_other_attributes() {
        let bytes = [8, 0, 2, 0, 0, 0, 0, 1, 8, 0, 1, 0, 0, 0, 1, 2];
        assert_eq!(parse(&bytes), Ok(Some(Generation(258))));
        assert_eq!(parse(&bytes[..8]), Ok(None));
        assert!(parse(&[6, 0, 1, 0, 0, 1]).is_err());
    }
}
