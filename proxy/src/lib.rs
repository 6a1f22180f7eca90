//! The service proxy, as a library for its binary and its tests.

pub mod addresses;
pub mod agent;
pub mod backend;
pub mod conntrack;
pub mod devices;
pub mod explain;
pub mod health;
mod listen;
pub mod metrics;
pub mod opt_out;
pub mod plan;
pub mod relay;
pub mod rtnetlink;
pub mod settings;
pub mod sockets;
pub mod stations;
pub mod sysctl;
pub mod version;
