//! Which files of the folder changed since they were last read.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::document::Format;

/// More manifest files than this in one folder are refused, so that a wrong folder can't
/// tie up the process.
pub(super) const MAX_FILES: usize = 100_000;

/// The folder, and what its files looked like when they were last read.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    stamps: BTreeMap<String, Stamp>,
}

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Seen {
        modified: (i64, i64),
        changed: (i64, i64),
        bytes: u64,
        identity: Identity,
    },
    /// A symlink that leads nowhere, or a file that can't be looked at.
    Unseen(io::ErrorKind),
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// What happened to one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// New, or with new content.
    Written(String, Format),
    /// Not there any more.
    Gone(String),
}

impl Folder {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            stamps: BTreeMap::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Compares the folder with how it was at the last look, in the order of file names.
    ///
    /// # Errors
    /// If the folder itself can't be read: then nothing counts as changed.
    pub(super) fn look(&mut self) -> io::Result<Vec<Changed>> {
        let mut now = BTreeMap::new();
        let mut changes = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((name, format)) = manifest(&name) else {
                continue;
            };
            let Some(stamp) = stamp(&entry.path()) else {
                continue;
            };
            if now.len() >= MAX_FILES {
                let message = format!("more than {MAX_FILES} manifest files");
                return Err(io::Error::other(message));
            }
            if self.stamps.get(name) != Some(&stamp) {
                changes.push(Changed::Written(name.to_owned(), format));
            }
            now.insert(name.to_owned(), stamp);
        }
        let gone = self.stamps.keys().filter(|name| !now.contains_key(*name));
        changes.extend(gone.cloned().map(Changed::Gone));
        changes.sort_by(|one, other| one.name().cmp(other.name()));
        self.stamps = now;
        Ok(changes)
    }

    /// Folders outside this one that symlinked files live in: where their changes happen.
    pub(super) fn symlinked_folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        for name in self.stamps.keys() {
            let path = self.path.join(name);
            let is_link = path.symlink_metadata().is_ok_and(|at| at.is_symlink());
            if let Some(folder) = is_link.then(|| path.canonicalize().ok()).flatten() {
                folders.extend(folder.parent().map(Path::to_owned));
            }
        }
        folders
    }
}

impl Changed {
    fn name(&self) -> &str {
        match self {
            Self::Written(name, _) | Self::Gone(name) => name,
        }
    }
}

/// Device and inode of what a path leads to.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

fn manifest(name: &OsStr) -> Option<(&str, Format)> {
    let name = name.to_str()?;
    Some((name, Format::of(name)?))
}

/// `None` for what is there and no file.
fn stamp(path: &Path) -> Option<Stamp> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => None,
        Ok(meta) => Some(Stamp::Seen {
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            bytes: meta.len(),
            identity: (meta.dev(), meta.ino()),
        }),
        Err(error) => Some(Stamp::Unseen(error.kind())),
    }
}
