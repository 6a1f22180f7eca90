//! The service proxy, as a library for its binary and its tests.

pub mod metrics;
pub mod plan;
