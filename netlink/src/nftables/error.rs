use std::fmt;

use crate::error::{NetlinkError, errno_in_words};

/// Refusals that are kept of one transaction.
pub const REFUSALS_MAX: usize = 64;

/// Why a transaction was not carried out. None of its changes was made, then, except where
/// [`NftError::Netlink`] says that the answer is missing.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The kernel refused some changes, and so all.
    #[error("the nftables table {table} stays as it was: {}", in_words(refusals, *more))]
    Refused {
        /// The table.
        table: String,
        /// The refused changes, in order; those that later ones depend on come first.
        refusals: Vec<Refusal>,
        /// How many more there were, at least.
        more: usize,
    },
    /// Somebody else changed the rule set meanwhile (`ERESTART`).
    #[error("the nftables table {table} stays as it was: somebody else changed rules meanwhile")]
    Overtaken {
        /// The table.
        table: String,
    },
    /// Too much for one transaction.
    #[error(
        "the nftables table {table} stays as it was: the changes take {bytes} bytes, at most \
         {bytes_max} can be sent at once"
    )]
    TooLarge {
        /// The table.
        table: String,
        /// What they take.
        bytes: usize,
        /// What they may take.
        bytes_max: usize,
    },
    /// Anything else.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl NftError {
    /// The errno of the first refused change.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { refusals, .. } => refusals.first().map(|refusal| refusal.code),
            Self::Overtaken { .. } => Some(nix::libc::ERESTART),
            Self::Netlink(error) => error.refused_code(),
            Self::TooLarge { .. } => None,
        }
    }
}

/// A change that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its place among the changes; `None` where the kernel refused the whole.
    pub change: Option<usize>,
    /// What was to be done.
    pub request: String,
    /// Which of the change's elements, or of the rule's expressions, from 0 on. Kernels say
    /// it since 5.14 or so.
    pub item: Option<usize>,
    /// The attribute of the message (`NFTA_*`), where the kernel says.
    pub attribute: Option<&'static str>,
    /// The kernel's own words, where it has any.
    pub message: Option<String>,
    /// The errno, positive.
    pub code: i32,
}

/// What was to be done, where in it, and why not.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.request)?;
        if let Some(attribute) = self.attribute {
            write!(f, ", at {attribute}")?;
        }
        if let Some(item) = self.item {
            write!(f, " {}", item + 1)?;
        }
        write!(f, ": {}", errno_in_words(self.code))?;
        match &self.message {
            Some(message) => write!(f, ", \"{message}\""),
            None => Ok(()),
        }
    }
}

fn in_words(refusals: &[Refusal], more: usize) -> String {
    let first = refusals.first().map(Refusal::to_string).unwrap_or_default();
    match refusals.len().saturating_sub(1) + more {
        0 => first,
        others => format!("{first} (and {others} more changes were refused)"),
    }
}
