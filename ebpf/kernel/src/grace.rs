//! Waiting for programs that are running.

use std::io;

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const GLOBAL: libc::c_int = 1;

/// Waits until every program that runs now has ended: what was taken out of the maps before is
/// known to nobody any more. Takes some milliseconds: the kernel waits for a grace period of its
/// RCU, under which programs run (Linux 4.3).
///
/// # Errors
/// The kernel has no membarrier(2).
#[expect(unsafe_code, reason = "a system call")]
pub fn grace() -> io::Result<()> {
    // SAFETY: numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
