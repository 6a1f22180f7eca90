//! Network namespaces whose sockets are left alone: their traffic is translated at their
//! devices, or not at all where they run a proxy of their own.

use std::path::Path;

use super::EbpfError;

/// Leaves the sockets of a network namespace alone from now on. `netns` is its file, such as
/// `/run/netns/NAME` or `/proc/PID/ns/net`. False if it was so before.
///
/// # Errors
/// [`EbpfError`], if there is no such namespace or the agent has never run in ebpf mode.
pub fn add(bpf_root: &Path, netns: &Path) -> Result<bool, EbpfError> {
    let _ = (bpf_root, netns);
    Err(EbpfError::NotInThisBuild)
}

/// Takes back [`add`]. False if it was not there.
///
/// # Errors
/// As [`add`].
pub fn remove(bpf_root: &Path, netns: &Path) -> Result<bool, EbpfError> {
    let _ = (bpf_root, netns);
    Err(EbpfError::NotInThisBuild)
}

/// The cookies (`SO_NETNS_COOKIE`) of the network namespaces that are left alone, sorted;
/// with `netns` only that of this one, if it is.
///
/// # Errors
/// As [`add`].
pub fn list(bpf_root: &Path, netns: Option<&Path>) -> Result<Vec<u64>, EbpfError> {
    let _ = (bpf_root, netns);
    Err(EbpfError::NotInThisBuild)
}
