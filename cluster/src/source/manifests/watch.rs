//! A signal when something happened in a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::folder::{Identity, identity};
use super::writing::Writing;

/// After the last sign of a change nothing more must come for this long: several files are
/// often put in place together. (A file that is still being written is waited for by itself.)
const QUIET_MS: u64 = 10;
/// A folder that never comes to rest is read anyway after this long.
const LONGEST_WAIT_MS: u64 = 500;
/// More folders than this are not watched: the folder itself, the one it is in, and those
/// that its symlinked files live in.
const MAX_WATCHED_FOLDERS: usize = 64;

/// The kernel's watch over a folder, over the one it stands in (where the folder itself is
/// swapped), and over the folders that symlinked files live in.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    watched: BTreeMap<PathBuf, Option<Identity>>,
    folder: PathBuf,
    parent: PathBuf,
    parent_has_files: Arc<AtomicBool>,
    writing: Writing,
    signal: mpsc::Receiver<()>,
}

impl Watch {
    /// Starts to watch a folder, given as an absolute path.
    pub(super) fn new(folder: &Path) -> notify::Result<Self> {
        let (notice, signal) = mpsc::channel(1);
        let parent = folder.parent().unwrap_or(folder).to_owned();
        let parent_has_files = Arc::new(AtomicBool::new(false));
        let filter = Filter {
            folder: folder.to_owned(),
            parent: parent.clone(),
            parent_has_files: Arc::clone(&parent_has_files),
        };
        let writing = Writing::default();
        let noted = writing.clone();
        let watcher = notify::recommended_watcher(move |event| {
            if let Ok(event) = &event {
                noted.note(event);
            }
            if filter.matters(&event) {
                // A full channel holds a signal that nobody has taken yet: as good as two.
                let _ = notice.try_send(());
            }
        })?;
        let mut watch = Self {
            watcher,
            watched: BTreeMap::new(),
            folder: folder.to_owned(),
            parent,
            parent_has_files,
            writing,
            signal,
        };
        watch.follow(&BTreeSet::new())?;
        Ok(watch)
    }

    /// Watches these folders, too, and no others any more; says whether it watches one that
    /// it did not watch before, in which case changes may have been missed in it.
    pub(super) fn follow(&mut self, symlinked: &BTreeSet<PathBuf>) -> notify::Result<bool> {
        let has_files = symlinked.contains(&self.parent);
        self.parent_has_files.store(has_files, Ordering::Relaxed);
        let mut wanted = BTreeSet::from([self.folder.clone(), self.parent.clone()]);
        wanted.extend(symlinked.iter().take(MAX_WATCHED_FOLDERS).cloned());
        if symlinked.len() > MAX_WATCHED_FOLDERS {
            tracing::warn!(
                folder = %self.folder.display(),
                limit = MAX_WATCHED_FOLDERS,
                "manifests are symlinks into too many folders: changes in some go unnoticed"
            );
        }
        let known: Vec<PathBuf> = self.watched.keys().cloned().collect();
        for path in known {
            let same = self.watched.get(&path) == Some(&identity(&path));
            if !(same && wanted.contains(&path)) {
                self.watched.remove(&path);
                // The kernel has let go already if the folder was deleted.
                let _ = self.watcher.unwatch(&path);
            }
        }
        let mut added = false;
        for path in wanted {
            let at = identity(&path);
            if self.watched.contains_key(&path) || at.is_none() {
                continue;
            }
            self.watcher.watch(&path, RecursiveMode::NonRecursive)?;
            self.watched.insert(path, at);
            added = true;
        }
        Ok(added)
    }

    /// Which files are being written right now.
    pub(super) const fn writing(&self) -> &Writing {
        &self.writing
    }

    /// Waits until something happened and has come to rest. `false` once the watch is dead.
    pub(super) async fn changed(&mut self) -> bool {
        let signal = match self.writing.patience_ends() {
            Some(end) => timeout_at(end, self.signal.recv()).await,
            None => Ok(self.signal.recv().await),
        };
        match signal {
            Ok(Some(())) => {}
            Ok(None) => return false,
            // A file that was never closed is due.
            Err(_) => return true,
        }
        let end = Instant::now() + Duration::from_millis(LONGEST_WAIT_MS);
        loop {
            let quiet = Instant::now() + Duration::from_millis(QUIET_MS);
            match timeout_at(quiet.min(end), self.signal.recv()).await {
                Ok(Some(())) if Instant::now() < end => {}
                Ok(None) => return false,
                Ok(Some(())) | Err(_) => return true,
            }
        }
    }
}

/// Which of the kernel's events may mean a change.
struct Filter {
    folder: PathBuf,
    parent: PathBuf,
    parent_has_files: Arc<AtomicBool>,
}

impl Filter {
    fn matters(&self, event: &notify::Result<Event>) -> bool {
        let Ok(event) = event else {
            // Events were lost: look again.
            return true;
        };
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            // Our own reading is one of these.
            EventKind::Access(_) => return false,
            _ => {}
        }
        // Beside the folder lies what is none of our business.
        let beside = |path: &PathBuf| path.parent() == Some(&self.parent) && *path != self.folder;
        let all_beside = !event.paths.is_empty() && event.paths.iter().all(beside);
        !all_beside || self.parent_has_files.load(Ordering::Relaxed)
    }
}
