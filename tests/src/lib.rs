//! What the tests of Switchyard stand on: a cluster of network namespaces that
//! carries real packets ([`testbed`]), and the case tables that say what must
//! come back ([`cases`]), an API server that does as it is told ([`apiserver`]), what a DNS
//! server is started, asked and judged with ([`dns`]), and what manifests are judged by
//! ([`deploy`]).
//!
//! Nothing here knows how a backend works: the built binaries are started as an
//! operator would start them, and judged by the packets they let through.

pub mod apiserver;
pub mod binary;
pub mod cases;
pub mod deploy;
pub mod dns;
pub mod nftlist;
pub mod recorded;
pub mod rulediff;
pub mod testbed;
