//! Any bytes as what a netlink socket receives at once: read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchyard_netlink::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::datagram(bytes));
