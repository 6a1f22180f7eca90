//! Which files somebody is still writing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RemoveKind};
use tokio::time::Instant;

/// A file that was written to and not closed is read anyway this long after the last write:
/// not every program closes what it writes.
const LONGEST_WRITE: Duration = Duration::from_secs(5);
/// More files than this in the middle of being written are not told apart from others.
const MAX_FILES: usize = 10_000;

/// Files that were written to and not closed since. A `kubectl get … > file.yaml` empties
/// the file and fills it seconds later: what it says in between is not what anybody means.
#[derive(Clone, Debug, Default)]
pub(super) struct Writing {
    since: Arc<Mutex<HashMap<PathBuf, Instant>>>,
}

impl Writing {
    /// Takes in what the kernel reports.
    pub(super) fn note(&self, event: &Event) {
        let mut since = self.lock();
        for path in &event.paths {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) if since.len() < MAX_FILES => {
                    since.insert(path.clone(), Instant::now());
                }
                // A link to a finished file is created, too, but is not empty.
                EventKind::Create(CreateKind::File)
                    if since.len() < MAX_FILES && is_empty_file(path) =>
                {
                    since.insert(path.clone(), Instant::now());
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(_))
                | EventKind::Remove(RemoveKind::File | RemoveKind::Any) => {
                    since.remove(path);
                }
                _ => {}
            }
        }
    }

    /// Whether this file, or the one a symlink of this name leads to, is being written.
    pub(super) fn is_written(&self, path: &Path) -> bool {
        let since = self.lock();
        if since.is_empty() {
            return false;
        }
        if since.contains_key(path) {
            return true;
        }
        path.canonicalize()
            .is_ok_and(|target| since.contains_key(&target))
    }

    /// Counts files that were last written to long ago as finished.
    pub(super) fn lose_patience(&self) {
        let mut since = self.lock();
        since.retain(|_, at| at.elapsed() < LONGEST_WRITE);
    }

    /// When the first of them is read although it was not closed.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        let since = self.lock();
        since.values().min().map(|at| *at + LONGEST_WRITE)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_empty_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0)
}
