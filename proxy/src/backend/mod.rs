//! One folder for each way to program the kernel, all with the same parts: *compile* (plan to
//! kernel form, pure), *read* (kernel to kernel form) and *apply* (the difference, as one
//! batch).

pub mod iptables;
