//! UDP flows that still go where a Service no longer does.
//!
//! Connection tracking pins a UDP flow to the endpoint it was first sent to, for as long as
//! packets keep coming. When that endpoint stops serving, or a Service gets its first one, the
//! flow's entry must go, so that its next packet meets the rules again. Connections of TCP and
//! SCTP notice by themselves and are never touched.
//!
//! [`UdpFrontends`] knows what is stale, [`ConntrackCleaner`] does it, off the sync path.

mod cleaner;
mod node_port_destinations;
mod stale;

pub use cleaner::{ConntrackCleaner, PassReport};
pub use node_port_destinations::NodePortDestinations;
pub use stale::UdpFrontends;
