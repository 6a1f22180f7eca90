//! Black-box tests of `switchyard-dns`: the server started as an operator would start it
//! ([`DnsServer`]), asked by a client that shares no code with it ([`Client`], [`Query`],
//! [`Reply`]).

mod client;
mod query;
mod reply;
mod server;

pub use self::client::{Client, TcpStreamClient};
pub use self::query::{Edns, Query, encode_name};
pub use self::reply::{Opt, Record, Reply};
pub use self::server::{DnsServer, Ports, Setup};
