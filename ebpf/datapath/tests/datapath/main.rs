//! What the kernel programs decide and do to packets, with the maps in memory.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

mod packets;
mod world;

mod both;
mod checksums;
mod collisions;
mod direct;
mod flows;
mod fragments;
mod icmp;
mod kept;
mod maglev;
mod masquerade;
mod parse;
mod policy;
mod refused;
mod rewrite;
mod slots;
mod socket;
mod socket_memory;
