//! Removing everything of ours, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use switchyard_kernel::Link;

use super::EbpfError;
use super::attach::files;
use super::filter;
use super::former::{directories, is_map_of_ours};
use super::pins::{Pins, Unfit};

/// Detaches every program and removes every pin of ours below `bpf_root`. True if anything
/// was there.
///
/// # Errors
/// [`EbpfError`]; what can be removed is, all the same.
pub fn cleanup(bpf_root: &Path) -> Result<bool, EbpfError> {
    let there = bpf_root
        .try_exists()
        .map_err(EbpfError::system(format!("{}", bpf_root.display())))?;
    if !there {
        return Ok(false);
    }
    let pins = Pins::existing(bpf_root);
    let mut removed = false;
    let mut first_error = None;
    let mut remove = |path: &Path, is_ours: Result<(), Unfit>| {
        let result = match is_ours {
            Ok(()) => fs::remove_file(path),
            Err(Unfit::Foreign(reason)) => {
                tracing::warn!(path = %path.display(), %reason, "not ours: left alone");
                return;
            }
            Err(Unfit::Unknown(error)) => Err(error),
        };
        match result {
            Ok(()) => removed = true,
            Err(error) => {
                let what = format!("removing {}", path.display());
                first_error.get_or_insert(EbpfError::system(what)(error));
            }
        }
    };
    for path in files(pins.links()) {
        // Where this fails, and with the pin gone, it is detached a moment later.
        let detached = Link::open(&path).map(|link| drop(link.detach()));
        remove(&path, detached.map_err(Unfit::of));
    }
    let maps = directories(bpf_root, &pins);
    for path in maps.iter().flat_map(|directory| files(directory)) {
        remove(&path, is_map_of_ours(&path));
    }
    // Where links don't hold the programs at devices, filters do.
    filter::sweep(|_| false);
    let directories = maps.iter().map(PathBuf::as_path);
    for directory in directories.chain([pins.links(), bpf_root]) {
        // Something else may be in it.
        let _ = fs::remove_dir(directory);
    }
    first_error.map_or(Ok(removed), Err)
}
