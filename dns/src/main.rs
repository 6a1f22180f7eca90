//! `switchyard-dns`: see `docs/dns.md`.

fn main() {}
