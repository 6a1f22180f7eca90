//! The service proxy, as a library for its binary and its tests.

pub mod backend;
pub mod plan;
pub mod settings;
