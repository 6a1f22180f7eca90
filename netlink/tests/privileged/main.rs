//! What the kernel really does with our messages, looked at with the usual tools. Every test
//! runs in a network namespace of its own; nothing is sent and the host's tables stay alone.

mod conntrack;
mod namespace;
mod nft_generation;
