//! Rules of iptables as such, whoever wants which: the programs that write and read them, and
//! what they are fed. Works with the nf_tables and the legacy tools.

mod batch;
mod counts;
mod read;
mod removal;
#[cfg(test)]
pub(in crate::backend) mod simulation;
mod table;
mod tampering;
mod tool;

pub use counts::RuleCounts;
pub use removal::Kept;
pub use tool::{Tool, ToolError, Variant};

pub(in crate::backend) use batch::{Batch, Script};
pub(in crate::backend) use read::{RuleHash, Tables};
pub(in crate::backend) use removal::remove;
pub(in crate::backend) use table::{Chain, FixedChain, Jump, Table};
pub(in crate::backend) use tampering::Tampering;
