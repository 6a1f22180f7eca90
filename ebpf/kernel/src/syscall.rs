//! bpf(2) itself (`linux/bpf.h`).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

pub(crate) const OBJ_PIN: libc::c_long = 6;
pub(crate) const OBJ_GET: libc::c_long = 7;
pub(crate) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
pub(crate) const MAP_LOOKUP_BATCH: libc::c_long = 24;
pub(crate) const LINK_CREATE: libc::c_long = 28;
pub(crate) const LINK_UPDATE: libc::c_long = 29;
pub(crate) const LINK_DETACH: libc::c_long = 34;

/// Calls bpf(2) with the part of `union bpf_attr` that a command reads. The kernel takes the
/// rest for zero.
///
/// # Safety
/// `T` is `repr(C)`, is laid out as the command has it, and every address in it is valid for
/// what the command does there.
#[expect(unsafe_code, reason = "a system call")]
pub(crate) unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the contract of this function.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// The descriptor that a command returned.
///
/// # Safety
/// `result` is what a command returned that makes a descriptor, and nobody else owns it.
#[expect(unsafe_code, reason = "takes a descriptor over from the kernel")]
pub(crate) unsafe fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the contract of this function.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A descriptor as the attributes have it.
pub(crate) fn number(descriptor: RawFd) -> u32 {
    u32::try_from(descriptor).unwrap_or(u32::MAX)
}
