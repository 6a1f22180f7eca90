//! Connected UDP sockets that still send where a Service no longer does.
//!
//! In ebpf mode a connected UDP socket is tied to its endpoint once, when its owner calls
//! `connect`. When that endpoint stops serving, nothing tells the owner: it would send into
//! the void for as long as it lives. [`Janitor`] destroys such sockets in whatever network
//! namespace they are, so that the owner's next (or waiting) call fails with `ECONNABORTED`
//! and it connects anew. A socket that was connected to an endpoint's own address is none of
//! its business: only what the socket programs have remembered is.

mod janitor;
mod namespaces;
mod pass;
mod queue;

use std::fmt;
use std::io;
use std::net::SocketAddr;

pub use janitor::Janitor;
pub use namespaces::{NAMESPACES_MAX, NamespaceSources};
pub use pass::{JanitorError, Pass};
pub use queue::STALE_ENDPOINTS_MAX;

/// Which UDP endpoint a socket was given when its owner asked for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GivenEndpoint {
    /// Index of the Service port.
    pub service: u32,
    /// The endpoint; never an IPv4-mapped address.
    pub address: SocketAddr,
}

/// `10.0.0.5:53 of service 7`.
impl fmt::Display for GivenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of service {}", self.address, self.service)
    }
}

/// Reads what the socket programs remember: hands over, for every UDP socket of the node that
/// was given an endpoint, its cookie (`SO_COOKIE`) and that endpoint. Sockets that are gone or
/// connected elsewhere by now do no harm, they only cost time.
pub type Recall = Box<dyn FnMut(&mut dyn FnMut(u64, GivenEndpoint)) -> io::Result<()> + Send>;
