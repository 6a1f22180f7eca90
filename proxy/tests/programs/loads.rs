//! The kernel takes all programs.

use aya::programs::Program;
use switchyard_proxy::backend::ebpf::object;

use crate::kernel::{DEVICE_PROGRAMS, open};

/// The kernel's own limit on what verifying a program may take, in instructions looked at.
const VERIFIED_MAX: u32 = 1_000_000;
/// Of that, programs may use this much in percent: other kernels take other paths.
const VERIFIED_PERCENT: u32 = 80;
/// Programs of the object.
const PROGRAMS: usize = 13;

#[test]
fn every_program_is_verified() {
    all_are_verified(object());
}

#[cfg(kernel_log)]
#[test]
fn every_program_that_tells_is_verified() {
    all_are_verified(switchyard_proxy::backend::ebpf::kernel_log::telling_object());
}

/// As they are usually, without what Linux 5.18 added, and with what sends packets on.
fn all_are_verified(bytes: &[u8]) {
    for (has_set_retval, forwards) in [(true, false), (false, false), (true, true)] {
        let mut object = open(bytes, has_set_retval, forwards);
        let mut count = 0;
        for (name, program) in object.programs_mut() {
            let is_at_devices = DEVICE_PROGRAMS.contains(&name);
            // One constant is looked at by these, the other by the others.
            if (is_at_devices && !has_set_retval) || (!is_at_devices && forwards) {
                continue;
            }
            let loaded = match program {
                Program::CgroupSockAddr(program) => program.load(),
                Program::CgroupSock(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                other => panic!("{name} is a {:?}", other.prog_type()),
            };
            loaded.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let verified = program.info().unwrap().verified_instruction_count();
            println!("{name}: verified by looking at {verified:?} instructions");
            let verified = verified.unwrap_or(0); // not told before Linux 5.16
            assert!(
                verified <= VERIFIED_MAX / 100 * VERIFIED_PERCENT,
                "{name}: {verified}"
            );
            count += 1;
        }
        let expected = match (has_set_retval, forwards) {
            (_, true) => DEVICE_PROGRAMS.len(),
            (true, false) => PROGRAMS,
            (false, false) => PROGRAMS - DEVICE_PROGRAMS.len(),
        };
        assert_eq!(count, expected);
    }
}
