//! What the server counts, as Prometheus reads it.
//!
//! The `coredns_…` metrics have the reference's names, types, labels and buckets, so that
//! dashboards and alerts go on working; those of our own are called `switchyard_dns_…`.
//!
//! - A plugin's metrics are collectors of the `prometheus` crate that it registers once a
//!   process with [`registry`].
//! - What is counted for every query ([`queries`]) has a cell for each thread, since two
//!   threads that write to one cache line wait for each other.
//! - What is rare and has no labels is a static [`Count`] in the list of [`count`].
//!
//! `docs/dns-metrics.md` lists them all; a test of the plugins' examples checks it.

pub mod count;
mod enabled;
mod process;
pub mod queries;
mod registry;
mod sample;

pub use count::Count;
pub use enabled::{EnabledPlugin, set_enabled_plugins};
pub use registry::{Definition, MetricRegistry, markdown, registry};

/// The content type of [`MetricRegistry::render`]: the text format, version 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
