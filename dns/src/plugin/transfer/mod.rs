//! `transfer`: zones for secondaries, by AXFR (RFC 5936), and NOTIFY (RFC 1996). See the
//! README.

mod config;
mod handler;
mod notify;

#[cfg(test)]
mod tests;

pub(super) use config::setup;
