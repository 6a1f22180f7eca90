//! Many entries of a hash map by one call (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Pod;

use crate::object::{address, map_shape};
use crate::syscall::{MAP_LOOKUP_BATCH, bpf, number};

/// Entries asked for at a time. The kernel gives whole buckets, so it must hold a full one.
const ENTRIES_PER_CALL: u32 = 1024;
/// Calls after which a walk ends even if the map grows as fast as it is read.
const CALLS_MAX: usize = 1 << 16;

#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Walks through a hash map. Entries that come and go meanwhile may or may not be seen; none is
/// seen twice but for a map that is written very fast.
///
/// # Errors
/// As bpf(2); EINVAL if the map's keys or values have other sizes, ENOSPC if one of its buckets
/// has more entries than a call takes.
#[expect(unsafe_code, reason = "a system call that fills buffers")]
pub fn entries<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    mut show: impl FnMut(&K, &V),
) -> io::Result<()> {
    let shape = map_shape(map)?;
    if usize::try_from(shape.key_bytes) != Ok(size_of::<K>())
        || usize::try_from(shape.value_bytes) != Ok(size_of::<V>())
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let room = usize::try_from(ENTRIES_PER_CALL).unwrap_or(0);
    let mut keys: Vec<K> = Vec::with_capacity(room);
    let mut values: Vec<V> = Vec::with_capacity(room);
    // The kernel keeps its place in the map here; for hash maps that is a number of four bytes.
    let (mut position, mut next) = ([0_u64; 8], [0_u64; 8]);
    let mut is_first = true;
    for _ in 0..CALLS_MAX {
        let mut attributes = BatchAttributes {
            in_batch: if is_first {
                0
            } else {
                address(position.as_ptr())
            },
            out_batch: address(next.as_mut_ptr()),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: ENTRIES_PER_CALL,
            map: number(map.as_raw_fd()),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: all four buffers live until the call is over; the kernel writes no more than
        // `count` keys and values of the sizes that were compared above.
        let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attributes) };
        let is_last = match &result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(_) => return result.map(drop),
        };
        let count = usize::try_from(attributes.count).unwrap_or(0).min(room);
        // SAFETY: the kernel has written so many of each, and any bytes are a value of them.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        keys.iter()
            .zip(&values)
            .for_each(|(key, value)| show(key, value));
        if is_last {
            return Ok(());
        }
        (position, is_first) = (next, false);
    }
    Ok(())
}
