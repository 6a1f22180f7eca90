//! Constants that the agent sets when it loads the programs.

use aya_ebpf::Global;

/// The kernel lets socket programs choose the error (`bpf_set_retval`, Linux 5.18); else a
/// refused call fails with EPERM.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u8> = Global::new(0);

/// Whether [`HAS_SET_RETVAL`] was set.
#[inline(always)]
pub(crate) fn has_set_retval() -> bool {
    HAS_SET_RETVAL.load() != 0
}

/// The kernel has a clock that is read in a few nanoseconds (`bpf_ktime_get_coarse_ns`, Linux
/// 5.11): exact to a tick, which is more than time-outs of seconds need.
#[unsafe(no_mangle)]
static HAS_COARSE_CLOCK: Global<u8> = Global::new(0);

/// Whether [`HAS_COARSE_CLOCK`] was set.
#[inline(always)]
pub(crate) fn has_coarse_clock() -> bool {
    HAS_COARSE_CLOCK.load() != 0
}

/// Packets that would only be forwarded are sent on at once, past the stack.
#[unsafe(no_mangle)]
static FORWARDS: Global<u8> = Global::new(0);

/// Whether [`FORWARDS`] was set.
#[inline(always)]
pub(crate) fn forwards() -> bool {
    FORWARDS.load() != 0
}

/// How many bits KNOWN has, as a power of two; 0 where nobody keeps it.
#[unsafe(no_mangle)]
static KNOWN_BITS_LOG2: Global<u32> = Global::new(0);

/// The same.
#[inline(always)]
pub(crate) fn known_bits_log2() -> u32 {
    KNOWN_BITS_LOG2.load()
}
