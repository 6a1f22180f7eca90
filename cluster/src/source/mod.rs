//! Where the account of the cluster comes from.
//!
//! Every source is one `run(options, sender)` that sends [`Update`](crate::update::Update)s in order until the
//! receiver is gone ([`SourceError::NobodyListens`]), and something cheap to call before it that says at once what is wrong
//! with the options.

pub mod api;
mod labels;
pub mod manifests;
mod selection;

pub use labels::{LabelSelector, LabelSelectorError};
pub use selection::{DnsNeeds, Selection};

/// How many updates a source may be ahead of whoever takes them. Enough that neither waits
/// for the other at each object, few enough that a big first list is not held twice.
pub const UPDATES_CAPACITY: usize = 256;

/// Why a source can't start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Whoever took the updates is gone: the usual end of a source.
    #[error("nobody takes the updates any more")]
    NobodyListens,
    /// What leads to the API server (kubeconfig, certificates, tokens) can't be used.
    #[error("{place}: {message}")]
    Access {
        /// The kubeconfig's file, the URL, or the in-cluster configuration.
        place: String,
        /// What is wrong and what was expected.
        message: String,
    },
    /// The manifests folder is missing or can't be read.
    #[error("--manifests {path}: {message}")]
    Manifests {
        /// The folder as it was given.
        path: String,
        /// What is wrong and what was expected.
        message: String,
    },
}
