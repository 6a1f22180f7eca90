//! What the tests of Switchyard stand on: a cluster of network namespaces that
//! carries real packets ([`testbed`]), and the case tables that say what must
//! come back ([`cases`]), and an API server that does as it is told ([`apiserver`]).
//!
//! Nothing here knows how a backend works: the built binaries are started as an
//! operator would start them, and judged by the packets they let through.

pub mod apiserver;
pub mod cases;
pub mod recorded;
pub mod rulediff;
pub mod testbed;
