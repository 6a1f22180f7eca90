//! nftables, by netlink.

mod compile;
mod config;
mod fixed;
mod form;
mod names;
#[cfg(test)]
mod simulation;
mod text;

pub use config::Config;
