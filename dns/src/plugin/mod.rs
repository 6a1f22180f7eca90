//! To come.

pub mod forward;
