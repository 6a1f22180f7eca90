//! iptables, by `iptables-restore`: works with the nf_tables and the legacy tools.
//!
//! The chains, comments and the mark are those of the reference, so operators find what they
//! know. What is done differently:
//!
//! - Only what changes is written. A change of endpoints rewrites the chains of its Service
//!   port and touches no other; a Service that comes or goes adds or deletes its single rules
//!   in the shared chains instead of rewriting them.
//! - Refusals are put in place before what they refuse is taken out of the nat table, and
//!   taken away after the nat table can serve: at no time does a packet pass untranslated.
//! - A first sync is cut into commits of few chains for the nf_tables tools, whose time
//!   grows with the square of the chains in one commit.
//! - A restart reads what is there and writes the difference.
//!
//! Parts: [`compile`] (plan to rules), `xtables` (kernel to rule hashes, and the tool), [`apply`]
//! (the difference, as a batch).

mod apply;
mod cleanup;
mod cluster_ips;
mod compile;
mod config;
mod difference;
mod fixed;
mod names;
mod reconcile;
mod render;
#[cfg(test)]
mod simulation;
mod survey;

pub use apply::Rules;
pub use cleanup::{accept_invalid, cleanup, kept};
pub(in crate::backend) use cleanup::{cleaned_jumps, is_chain_cleaned};
pub use config::Config;

use crate::backend::xtables::Table;

/// Names of the accounting objects the rules may count in; the reference's.
pub mod nfacct_names {
    /// Forwarded packets dropped because conntrack calls them INVALID.
    pub const INVALID_DROPPED: &str = "ct_state_invalid_dropped_pkts";
    /// Packets to node ports at loopback addresses.
    pub const LOCALHOST_NODE_PORTS: &str = "localhost_nps_accepted_pkts";
    /// Both.
    pub const ALL: [&str; 2] = [INVALID_DROPPED, LOCALHOST_NODE_PORTS];
}

/// The chains that hold rules of many Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Shared {
    NatServices,
    NatNodePorts,
    FilterServices,
    FilterExternal,
    FilterNodePorts,
    Firewall,
}

impl Shared {
    const ALL: [Self; 6] = [
        Self::FilterServices,
        Self::FilterExternal,
        Self::FilterNodePorts,
        Self::Firewall,
        Self::NatNodePorts,
        Self::NatServices,
    ];

    const fn table(self) -> Table {
        match self {
            Self::NatServices | Self::NatNodePorts => Table::Nat,
            Self::FilterServices
            | Self::FilterExternal
            | Self::FilterNodePorts
            | Self::Firewall => Table::Filter,
        }
    }

    const fn chain(self) -> &'static str {
        match self {
            Self::NatServices | Self::FilterServices => names::SERVICES,
            Self::NatNodePorts | Self::FilterNodePorts => names::NODE_PORTS,
            Self::FilterExternal => names::EXTERNAL_SERVICES,
            Self::Firewall => names::PROXY_FIREWALL,
        }
    }
}
