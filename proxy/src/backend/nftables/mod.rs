//! nftables, by netlink: one table in each IP family, with maps from VIPs and node ports to the
//! chains of their Services.
//!
//! Table, chains, sets and maps have the reference's names, so operators find what they know.
//! What is done differently:
//!
//! - Messages are built here: there is no `nft` process, and nothing is listed when something
//!   changes. A change writes elements, and at most the chains of its Service.
//! - A Service that has a ClusterIP, few endpoints and nothing else has no chain: it is in maps
//!   that all share. With every rule that comes, the kernel looks through all rules of the
//!   table again; with an element of such a map it does not.
//! - No set belongs to a single rule. The kernel goes through all sets of a table for each new
//!   one; with one for each Service, 5,000 took it 6.6 s.
//! - Somebody else's change is noticed by the generation of the rule set; then, and every now
//!   and then, the table is read and compared.
//!
//! Parts: [`compile`] (plan to chains and elements), [`fixed`] (what is always there),
//! [`lower`] and [`expressions`] (the same in the kernel's terms), [`read`], [`compare`], [`table`] (what changed)
//! and [`tables`] (writing).

mod batch;
mod cleanup;
mod compare;
mod compile;
mod config;
mod error;
mod expressions;
mod fixed;
mod form;
mod handover;
mod lower;
#[cfg(test)]
mod model;
mod names;
mod probe;
mod read;
#[cfg(test)]
mod simulation;
mod table;
mod tables;
mod text;

pub use cleanup::cleanup;
pub use config::Config;
pub use error::NftablesModeError;
pub use handover::{keep_connections, release_connections};
pub use probe::{Features, probe};
pub use tables::Tables;
