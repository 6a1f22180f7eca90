//! Removing everything of ours, and nothing else.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use switchyard_kernel::Link;

use super::EbpfError;
use super::attach::files;
use super::filter;
use super::pins::Pins;
use super::programs::SHARED;

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
    let mut remove = |path: &Path| match fs::remove_file(path) {
        Ok(()) => removed = true,
        Err(error) => {
            let what = format!("removing {}", path.display());
            first_error.get_or_insert(EbpfError::system(what)(error));
        }
    };
    for path in files(pins.links()) {
        match Link::open(&path) {
            Ok(_) => remove(&path),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "not a link of ours: left alone");
            }
        }
    }
    for path in files(pins.maps()) {
        if is_map_of_ours(&path) {
            remove(&path);
        } else {
            tracing::warn!(path = %path.display(), "not a map of ours: left alone");
        }
    }
    // Where links don't hold the programs at devices, filters do.
    filter::sweep(|_| false);
    for directory in [pins.links(), pins.maps(), bpf_root] {
        // Something else may be in it.
        let _ = fs::remove_dir(directory);
    }
    first_error.map_or(Ok(removed), Err)
}

fn is_map_of_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bare = name.split('-').next().unwrap_or_default();
    let known = SHARED.iter().any(|(shared, _)| *shared == bare);
    let opened = switchyard_kernel::open_pinned(path);
    known && opened.is_ok_and(|map| switchyard_kernel::map_shape(map.as_fd()).is_ok())
}
