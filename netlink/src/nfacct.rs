//! Named packet counters of the kernel (nfnetlink_acct), which the iptables match `nfacct`
//! counts into.
//!
//! Source: `linux/netfilter/nfnetlink_acct.h`; Linux 3.3, module `nfnetlink_acct`. Needs
//! CAP_NET_ADMIN. The objects belong to a network namespace.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use nix::libc::{EBUSY, EEXIST, EINVAL, ENOENT};

use crate::attribute::{self, Detail};
use crate::error::NetlinkError;
use crate::nfnl::NfnlSocket;
use crate::writer::Writer;

const SUBSYSTEM_ACCT: u8 = 7;
const MSG_NEW: u8 = 0;
const MSG_GET: u8 = 1;
const MSG_DEL: u8 = 3;

const NFACCT_NAME: u16 = 1;
const NFACCT_PKTS: u16 = 2;
const NFACCT_BYTES: u16 = 3;

/// Longest name, in bytes (`NFACCT_NAME_MAX` without its NUL).
pub const NAME_BYTES_MAX: usize = 31;

/// What an object has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP header included.
    pub bytes: u64,
}

/// Why an accounting object could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AcctError {
    /// Not a name the kernel takes.
    #[error(
        "{name:?} cannot name an nfacct object: 1 to {NAME_BYTES_MAX} bytes without NUL are needed"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// No such object.
    #[error("there is no nfacct object {name}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A rule counts into it.
    #[error("the nfacct object {name} is still used by a rule")]
    InUse {
        /// Its name.
        name: String,
    },
    /// The kernel has no accounting.
    #[error("this kernel has no nfacct (module nfnetlink_acct)")]
    NoAcct,
    /// Anything else.
    #[error(transparent)]
    Refused(#[from] NetlinkError),
}

/// Talks to the accounting objects of the network namespace it was opened in.
#[derive(Debug)]
pub struct Acct {
    socket: NfnlSocket,
    writer: Writer,
}

impl Acct {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, AcctError> {
        Ok(Self {
            socket: NfnlSocket::open(SUBSYSTEM_ACCT, "nfacct")?,
            writer: Writer::new(),
        })
    }

    /// Makes sure that the object is there; one that is keeps its counts. True if it is new.
    ///
    /// # Errors
    /// [`AcctError::NoAcct`], [`AcctError::BadName`].
    pub fn ensure(&mut self, name: &str) -> Result<bool, AcctError> {
        // Without NLM_F_EXCL the kernel would take it for a wish to reset or to refuse.
        match self.command(MSG_NEW, NLM_F_CREATE | NLM_F_EXCL, name, "create") {
            Ok(_) => Ok(true),
            Err(AcctError::Refused(error)) if error.refused_code() == Some(EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the object has counted.
    ///
    /// # Errors
    /// [`AcctError::Missing`], [`AcctError::NoAcct`], [`AcctError::BadName`].
    pub fn read(&mut self, name: &str) -> Result<Counts, AcctError> {
        self.command(MSG_GET, 0, name, "read")?
            .ok_or_else(|| AcctError::Missing {
                name: name.to_owned(),
            })
    }

    /// Removes the object.
    ///
    /// # Errors
    /// [`AcctError::InUse`], [`AcctError::Missing`].
    pub fn remove(&mut self, name: &str) -> Result<(), AcctError> {
        self.command(MSG_DEL, 0, name, "remove").map(|_| ())
    }

    fn command(
        &mut self,
        message: u8,
        flags: u16,
        name: &str,
        verb: &str,
    ) -> Result<Option<Counts>, AcctError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(AcctError::BadName {
                name: name.to_owned(),
            });
        }
        self.writer.clear();
        let head = self
            .socket
            .head(message, NLM_F_REQUEST | NLM_F_ACK | flags, 0);
        self.writer
            .message(&head, |writer| writer.text(NFACCT_NAME, name));
        let mut counts = None;
        let request = format_args!("{verb} the nfacct object {name}");
        self.socket
            .request(&self.writer, head.sequence, &request, |_, _, bytes| {
                if parse_name(bytes)? == Some(name) {
                    counts = Some(parse_counts(bytes)?);
                }
                Ok(())
            })
            .map_err(|error| match error.refused_code() {
                Some(ENOENT) => AcctError::Missing {
                    name: name.to_owned(),
                },
                Some(EBUSY) => AcctError::InUse {
                    name: name.to_owned(),
                },
                // nfnetlink says this where a subsystem is not there.
                Some(EINVAL) => AcctError::NoAcct,
                _ => AcctError::Refused(error),
            })?;
        Ok(counts)
    }
}

fn parse_name(bytes: &[u8]) -> Result<Option<&str>, Detail> {
    attribute::find(bytes, NFACCT_NAME)?
        .map(|value| attribute::text(value, "NFACCT_NAME"))
        .transpose()
}

fn parse_counts(bytes: &[u8]) -> Result<Counts, Detail> {
    let number = |kind, what| {
        attribute::find(bytes, kind)?
            .map(|value| attribute::u64_be(value, what))
            .transpose()?
            .ok_or_else(|| format!("no {what} in it"))
    };
    Ok(Counts {
        packets: number(NFACCT_PKTS, "NFACCT_PKTS")?,
        bytes: number(NFACCT_BYTES, "NFACCT_BYTES")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_name_and_counts() {
        let mut bytes = vec![7, 0, 1, 0, b'a', b'b', 0, 0];
        bytes.extend([12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        bytes.extend([12, 0, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(parse_name(&bytes), Ok(Some("ab")));
        let counts = Counts {
            packets: 258,
            bytes: 1 << 32,
        };
        assert_eq!(parse_counts(&bytes), Ok(counts));
        assert_eq!(
            parse_counts(&bytes[..20]),
            Err("no NFACCT_BYTES in it".to_owned())
        );
    }
}
