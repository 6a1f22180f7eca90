//! What the kernel says of this process's memory. A test that measures has a program of its
//! own: others in the same process would be measured, too.

use std::fs;

/// Memory of this process that is in RAM.
pub(crate) fn resident_kib() -> usize {
    status_kib("VmRSS:")
}

pub(crate) fn status_kib(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
