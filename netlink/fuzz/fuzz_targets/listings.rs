//! Any bytes as an object in the listings of the other families: read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchyard_netlink::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::listings(bytes));
