//! A Kubernetes cluster DNS server that reads CoreDNS' configuration.
//!
//! - [`corefile`]: the configuration file, parsed.
//! - [`wire`]: DNS messages in wire form: names, questions, replies, records.
//! - [`plugin`]: one folder each: config, handler, metrics, README; and the chain they form.
//! - [`server`]: sockets, and the way of a query from one through a chain and back.
//! - [`lines`]: the query log and errors, on standard output.
//! - [`feed`]: the cluster's objects, followed once for all that answer from them.

pub mod agent;
pub mod corefile;
pub mod feed;
pub mod flags;
pub mod http;
pub mod lines;
pub mod logging;
pub mod metrics;
pub mod plugin;
pub mod server;
pub mod wire;
