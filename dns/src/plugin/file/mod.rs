//! `file`: zones from RFC 1035 zone files. See the README.

mod config;
mod handler;
mod lookup;
mod read;
mod zone;

#[cfg(test)]
mod tests;

pub(super) use config::setup;
