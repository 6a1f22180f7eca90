//! The kernel's netlink families that a service proxy needs and no well-kept crate speaks.
//!
//! Sockets block; every wait is bounded. Message headers and attributes are read with the
//! rust-netlink crates; the families themselves are written here because the published ones
//! know neither ipset, IPVS nor accounting, and copy every attribute of a conntrack entry to the
//! heap, which a table of a million flows cannot afford. Of nf_tables, netlink-packet-netfilter
//! 0.4 knows tables, chains and sets, but six of the seventeen expressions that a proxy's rules
//! are made of, and no transactions.

mod attribute;
pub mod conntrack;
mod error;
mod family;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod genl;
pub mod ipset;
pub mod ipvs;
#[cfg(test)]
mod messages;
pub mod nfacct;
mod nfnl;
pub mod nft_generation;
pub mod nft_rules;
pub mod nftables;
mod protocol;
pub mod sock_diag;
mod transport;
mod writer;
pub mod xtables_info;

pub use error::NetlinkError;
pub use family::Family;
pub use protocol::Protocol;
