//! The generation id of nf_tables: it changes whenever anybody commits a change to any
//! table of the network namespace, iptables-nft and nft alike, and never otherwise.
//!
//! Source: `NFT_message::GET_GENERATION`, `enum nft_gen_attributes` of `linux/netfilter/nf_tables.h`;
//! Linux 3.18.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};

use crate::attribute;
use crate::error::NetlinkError;
use crate::nfnl::NfnlSocket;
use crate::nftables::numbers::{GENERATION_ID, SUBSYSTEM, SUBSYSTEM_NAME, message};
use crate::writer::Writer;

const REQUEST: &str = "read the nf_tables generation id";

/// A generation of the rule set. Only equality means anything: the number starts anywhere
/// and wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub(crate) u32);

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
            socket: NfnlSocket::open(SUBSYSTEM, SUBSYSTEM_NAME)?,
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
        let head = self
            .socket
            .head(message::GET_GENERATION, NLM_F_REQUEST | NLM_F_ACK, 0);
        self.writer.message(&head, |_| {});
        let mut id = None;
        self.socket.request(
            &self.writer,
            head.sequence,
            &REQUEST,
            |command, _, bytes| {
                if command == message::NEW_GENERATION {
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

pub(crate) fn parse(attributes: &[u8]) -> Result<Option<Generation>, String> {
    attribute::find(attributes, GENERATION_ID)?
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
