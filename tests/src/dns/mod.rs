//! Black-box tests of `switchyard-dns`: the server started as an operator would start it
//! ([`DnsServer`]), asked by a client that shares no code with it ([`Client`], [`Query`],
//! [`Reply`]), the case files of `tests/cases/dns` ([`load_dir`]), and an upstream that says what
//! it is told ([`Upstream`]).

mod api;
mod cases;
mod client;
mod cluster;
mod expect;
pub mod oracle;
mod query;
mod reply;
mod server;
mod upstream;

pub use self::api::ApiServer;
pub use self::cases::{ServerCases, load_dir};
pub use self::client::{Client, TcpStreamClient};
pub use self::cluster::{Cluster, namespace_object};
pub use self::expect::{Expected, report};
pub use self::query::{Edns, Query, encode_name};
pub use self::reply::{Opt, Record, Reply};
pub use self::server::{DnsServer, Ports, Setup};
pub use self::upstream::{Script, Upstream};
