//! An array map in the process' own memory (`BPF_F_MMAPABLE`, Linux 5.5).

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

/// Bytes of one chunk that [`Mapping`] reads and writes at a time.
const WORD: usize = 8;

/// Bytes of a page of memory, a power of two: parts of a map are mapped from a multiple of it on.
#[must_use]
pub fn page_bytes() -> usize {
    let known = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    // The largest there is.
    known
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(1 << 16)
}

/// The values of an array map, in memory. Kernel programs read it at the same time: every access
/// is of whole aligned words of eight bytes.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
    bytes: NonZeroUsize,
}

#[expect(
    unsafe_code,
    reason = "a pointer to memory that belongs to this value alone"
)]
// SAFETY: the memory is only ever touched through atomics.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps an array of `bytes` bytes, a multiple of eight, for reading and writing.
    ///
    /// # Errors
    /// As mmap(2): EPERM for a map without `BPF_F_MMAPABLE`, EINVAL for one that is smaller.
    pub fn new(map: impl AsFd, bytes: usize) -> io::Result<Self> {
        Self::part(map, 0, bytes)
    }

    /// Maps `bytes` bytes, a multiple of eight, that begin `from` bytes after the array's start.
    /// The kernel counts every page of it as this process' memory at once, touched or not.
    ///
    /// # Errors
    /// As [`Mapping::new`]; EINVAL also where `from` is no multiple of [`page_bytes`].
    #[expect(unsafe_code, reason = "mmap(2)")]
    pub fn part(map: impl AsFd, from: usize, bytes: usize) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let size = NonZeroUsize::new(bytes).ok_or_else(|| invalid("an empty map"))?;
        let from = i64::try_from(from).map_err(|_| invalid("beyond any map"))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so nothing that is there is touched.
        let start = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, map, from)? };
        Ok(Self {
            start: start.cast(),
            words: bytes / WORD,
            bytes: size,
        })
    }

    /// How many words of eight bytes it has.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.words
    }

    #[expect(unsafe_code, reason = "memory shared with the kernel")]
    fn word(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.words {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self`, and aligned: pages are.
        Some(unsafe { self.start.add(index).as_ref() })
    }

    /// Reads one word; 0 beyond the end.
    #[must_use]
    pub fn load(&self, index: usize) -> u64 {
        self.word(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes one word, after everything that was written before. False beyond the end.
    pub fn store(&self, index: usize, value: u64) -> bool {
        let Some(word) = self.word(index) else {
            return false;
        };
        word.store(value, Ordering::Release);
        true
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "munmap(2)")]
    fn drop(&mut self) {
        // SAFETY: what `new` mapped; nobody has a reference into it any more. It can't fail for
        // a mapping that is there.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}
