//! The service proxy, as a library for its binary and its tests.

pub mod addresses;
pub mod plan;
pub mod sysctl;
