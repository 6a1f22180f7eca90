//! Memory of our own that is free, back to the kernel. This is for glibc, whose allocator keeps
//! much of it; with other C libraries nothing happens.

/// Free memory at the end of a heap that is kept for the next allocations; glibc's own default.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 128 << 10;

/// Has each heap give back what is free at its end whenever that is more than 128 KiB. Without,
/// glibc raises this limit up to 64 MiB once something large was freed. To be called before there
/// are other threads.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a function of the C library")]
pub fn keep_heaps_short() {
    // SAFETY: it takes no pointer and sets a number. Where it fails, things stay as they are.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES) };
}

/// Has the allocator give back all whole pages that are free, wherever they are. Who allocates
/// meanwhile may wait for it: some milliseconds for each 100 MB of heap. Says whether there was
/// something to give back.
#[cfg(target_env = "gnu")]
#[must_use]
#[expect(unsafe_code, reason = "a function of the C library")]
pub fn trim_heaps() -> bool {
    // SAFETY: it takes no pointer, moves nothing that is in use, and may run in any thread.
    unsafe { libc::malloc_trim(0) == 1 }
}

/// Nothing.
#[cfg(not(target_env = "gnu"))]
pub const fn keep_heaps_short() {}

/// Nothing.
#[cfg(not(target_env = "gnu"))]
#[must_use]
pub const fn trim_heaps() -> bool {
    false
}
