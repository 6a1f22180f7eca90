//! What both programs need to be run and looked at.
//!
//! - [`build`]: version and commit.
//! - [`http`]: a server for small answers: health, readiness, metrics.
//! - [`manual`]: shell completions and manual pages.
//! - [`process`]: what the kernel says of our own process, for the `process_…` metrics.
//! - [`tls`]: TLS for it, with a certificate that may be exchanged.

pub mod build;
pub mod http;
pub mod manual;
pub mod process;
pub mod tls;
