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
