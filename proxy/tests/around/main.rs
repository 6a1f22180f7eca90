//! What the agent's parts around the rules do to a kernel. Every test runs in a network
//! namespace of its own; nothing is sent and the host's settings stay alone.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of a test fails the test"
)]

mod addresses;
mod conntrack;
mod devices;
#[path = "../../../netlink/tests/privileged/namespace.rs"] // the same for both rooms
mod namespace;
mod sockets;
mod stations;
