use std::fmt;

use super::expression::Name;
use super::numbers::numbered;
use crate::family::Family;

/// Which packets a table sees (`NFPROTO_*` of `linux/netfilter.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4 (`ip`).
    Ip,
    /// IPv6 (`ip6`).
    Ip6,
    /// Both (`inet`); in chains of type `nat` since Linux 5.2.
    Inet,
}

impl TableFamily {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Inet => 1,
        }
    }
}

impl From<Family> for TableFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ip,
            Family::V6 => Self::Ip6,
        }
    }
}

/// `ip`, `ip6` or `inet`, as nft writes it.
impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

/// Which table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: Name,
}

impl TableId {
    /// The table of this family and name.
    #[must_use]
    pub fn new(family: impl Into<TableFamily>, name: impl Into<Name>) -> Self {
        Self {
            family: family.into(),
            name: name.into(),
        }
    }
}

/// `ip kube-proxy`, as nft writes it.
impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// A table, without what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its name.
    pub name: Name,
    /// Its comment.
    pub comment: Option<Name>,
}

/// A chain, without its rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Its name.
    pub name: Name,
    /// Where packets come from; `None` if from jumps only.
    pub base: Option<BaseChain>,
    /// Its comment (Linux 5.10).
    pub comment: Option<Name>,
}

/// What makes a chain see packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// What its rules may do.
    pub kind: ChainKind,
    /// Where on a packet's way.
    pub hook: Hook,
    /// Before or after others at the same hook: the least goes first. Destination
    /// translation is usual at -100, source translation at 100, filters at 0.
    pub priority: i32,
    /// What happens to a packet at the end of the chain.
    pub policy: Policy,
}

/// What the rules of a chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Accept and refuse.
    Filter,
    /// Translate addresses; sees the first packet of a connection only.
    Nat,
    /// Change what packets are routed by.
    Route,
}

impl ChainKind {
    pub(super) const ALL: [Self; 3] = [Self::Filter, Self::Nat, Self::Route];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

numbered! {
    /// A place on a packet's way (`enum nf_inet_hooks`).
    pub enum Hook {
        /// Before it is known whether the packet is for this host.
        Prerouting = 0,
        /// To this host.
        Input = 1,
        /// Through this host.
        Forward = 2,
        /// From this host.
        Output = 3,
        /// Before it leaves.
        Postrouting = 4,
    }
}

numbered! {
    /// What happens to packets that no rule decided about.
    pub enum Policy {
        /// They are gone.
        Drop = 0,
        /// They go on.
        Accept = 1,
    }
}
