//! Any bytes as a query and as an upstream's reply: no panic, and what comes out is well-formed.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../check_wire.rs"]
mod check_wire;

fuzz_target!(|bytes: &[u8]| check_wire::check(bytes));
