//! What only the eBPF backend does: Services at the socket, flips of whole endpoint sets, maps that
//! empty themselves, programs and maps that outlive the proxy.

mod churn;
mod cleanup;
mod clients;
mod contents;
mod devices;
mod direct;
mod failed;
mod flips;
mod former;
mod killed;
mod memory;
mod pins;
mod restart;
mod sockets;
mod stage;
mod steps;
mod telling;
