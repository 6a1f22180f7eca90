//! Sockets, and the way of a query from one through a chain and back.

mod configuration;
mod guard;
mod listeners;
mod routes;
mod stream;
#[cfg(test)]
mod tests;
mod udp;

pub use configuration::Configuration;
pub(crate) use configuration::everywhere;
pub use guard::panics;
pub use listeners::{ListenAddress, ListenError, Listeners, Plan};
pub use routes::{Route, Routes};
pub use stream::StreamTimeouts;
