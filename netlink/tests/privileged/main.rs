//! What the kernel really does with our messages, looked at with the usual tools. Every test
//! runs in a network namespace of its own; nothing is sent and the host's tables stay alone.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of a test fails the test"
)]

mod conntrack;
mod ipset;
mod ipset_ports;
mod ipvs;
mod namespace;
mod nfacct;
mod nft_generation;
mod nft_rules;
mod nftables;
mod rights;
mod sock_diag;
mod xtables_info;
