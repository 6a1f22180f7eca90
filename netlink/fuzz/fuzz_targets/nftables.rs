//! Any bytes as an object of nf_tables in a listing: read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchyard_netlink::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::nftables(bytes));
