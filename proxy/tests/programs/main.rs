//! The device programs themselves, in the kernel, with bytes of packets (`BPF_PROG_TEST_RUN`).
//!
//! Every packet is also given to the data path with its maps in memory, which has the same
//! Services: both must say and make the same, to the byte. What is right is not left to that: it is
//! worked out here from scratch.
//!
//! Needs root. Nothing is attached or sent.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml allows them in tests, but not in what tests share"
)]

#[expect(dead_code, reason = "the data path's own tests use all of it")]
#[path = "../../../ebpf/datapath/tests/datapath/packets.rs"] // the same for both rooms
mod packets;
#[expect(dead_code, reason = "the data path's own tests use all of it")]
#[path = "../../../ebpf/datapath/tests/datapath/world.rs"]
mod world;

mod kernel;
mod pair;

mod errors;
mod fragments;
mod loads;
mod odd;
#[cfg(kernel_log)]
mod telling;
mod untouched;
mod whole;
