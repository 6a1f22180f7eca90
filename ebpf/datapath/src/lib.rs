//! The eBPF data path, without the kernel: how the maps are laid out, and what becomes of a
//! socket's call or of a packet.
//!
//! Everything is written over two small traits, [`Maps`] (what was programmed, and what is
//! remembered) and [`Packet`] (bytes that can be read and changed). The kernel programs in
//! `ebpf/programs` put BPF maps and socket buffers behind them, tests put tables and vectors
//! behind them: both run the same code.
//!
//! No allocation, no panics, no unbounded loops: the kernel's verifier reads this too.
//!
//! - [`layout`]: what stands in the maps, to the byte.
//! - [`service`]: one Service's block of slots.
//! - [`policy`]: which list of endpoints a client gets, or why none.
//! - [`select`]: which endpoint of a list.
//! - [`socket`]: translation at the socket: connect, sendmsg, recvmsg, getpeername.
//! - [`parse`]: what a packet is.
//! - [`flow`]: translation of packets, both ways.
//! - [`rewrite`]: changing a packet's addresses and checksums.
//! - [`icmp`]: errors about translated packets.
//! - [`maglev`]: tables that every node builds alike.
//! - `table` (feature `table`): the maps in memory, for tests.

#![no_std]

#[cfg(any(test, feature = "table"))]
extern crate std;

pub mod flow;
pub mod icmp;
pub mod layout;
pub mod maglev;
mod maps;
mod packet;
pub mod parse;
pub mod policy;
pub mod rewrite;
pub mod select;
pub mod service;
pub mod socket;
#[cfg(any(test, feature = "table"))]
pub mod table;

pub use maps::{FlowRef, Insert, Maps, Refusal};
pub use packet::{Packet, Summed};
