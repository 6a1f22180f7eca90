//! A directory of manifests as the account of a cluster.
//!
//! Every `*.yaml`, `*.yml` and `*.json` in the folder counts, symlinked files included (as
//! a mounted ConfigMap has them), folders below it and names with a leading dot do not.
//! A file may hold any number of documents and lists. Changes are followed through
//! inotify; only files that changed are read again, once whoever writes them has closed
//! them, and only differences are sent. A file that can't be read or is no YAML or JSON
//! keeps its last good content.

mod catalog;
mod document;
mod folder;
mod watch;
mod writing;

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;

use tokio::sync::mpsc::Sender;

use self::catalog::Catalog;
use self::document::{Format, Item};
use self::folder::{Changed, Folder};
use self::watch::Watch;
use self::writing::Writing;
use super::SourceError;
use crate::decode::Keep;
use crate::interner::Interner;
use crate::object::Kind;
use crate::update::{Problem, Update};

/// A bigger file is refused, so that one wrong file can't eat the memory.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// What to read.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder.
    pub folder: PathBuf,
    /// The kinds to send; others are skipped.
    pub kinds: Vec<Kind>,
    /// How much of endpoints to keep.
    pub keep: Keep,
}

/// Says at once what is wrong with the folder.
///
/// # Errors
/// If it is missing, no folder, or can't be read.
pub fn validate(options: &Options) -> Result<(), SourceError> {
    let refused = |message: String| SourceError::Manifests {
        path: options.folder.display().to_string(),
        message,
    };
    let meta = fs::metadata(&options.folder);
    let meta = meta.map_err(|error| refused(format!("{error}: expected a folder")))?;
    if !meta.is_dir() {
        return Err(refused("is not a folder".to_owned()));
    }
    let list = fs::read_dir(&options.folder);
    list.map_err(|error| refused(format!("can't list it: {error}")))?;
    Ok(())
}

/// Sends what the folder says, and then every change of it, until the receiver is gone.
///
/// # Errors
/// If the folder can't be read at the start, or the kernel won't watch it; or because the
/// receiver is gone.
pub async fn run(options: Options, sender: Sender<Update>) -> Result<Infallible, SourceError> {
    validate(&options)?;
    let given = options.folder.display().to_string();
    let failed = |message: String| SourceError::Manifests {
        path: given.clone(),
        message,
    };
    let folder = std::path::absolute(&options.folder);
    let folder = folder.map_err(|error| failed(error.to_string()))?;
    let unwatched = |error: notify::Error| failed(format!("can't watch it for changes: {error}"));
    let mut watch = Watch::new(&folder).map_err(unwatched)?;
    let mut source = Source {
        folder: Folder::new(folder),
        kinds: options.kinds,
        keep: options.keep,
        catalog: Catalog::default(),
        names: Interner::default(),
        gone: None,
        sender,
    };
    for kind in &source.kinds {
        source.say(Update::ListStarted(*kind)).await?;
    }
    source.read_changes(watch.writing()).await?;
    for kind in &source.kinds {
        source.say(Update::ListDone(*kind)).await?;
    }
    loop {
        let symlinked = source.folder.symlinked_folders();
        let added = watch.follow(&symlinked).map_err(unwatched)?;
        if !added && !watch.changed().await {
            return Err(failed("the watch for changes has ended".to_owned()));
        }
        source.read_changes(watch.writing()).await?;
    }
}

struct Source {
    folder: Folder,
    kinds: Vec<Kind>,
    keep: Keep,
    catalog: Catalog,
    names: Interner,
    /// What is wrong with the folder itself, once it was said.
    gone: Option<String>,
    sender: Sender<Update>,
}

impl Source {
    /// Reads every file that changed and sends what is different.
    async fn read_changes(&mut self, writing: &Writing) -> Result<(), SourceError> {
        let changes = match self.folder.look(writing) {
            Ok(changes) => changes,
            Err(error) => return self.say_gone(error.to_string()).await,
        };
        self.gone = None;
        for change in changes {
            let (file, items) = match change {
                Changed::Gone(file) => {
                    tracing::info!(file, "manifest is gone");
                    (file, Ok(Vec::new()))
                }
                Changed::Written(file, format) => {
                    let items = self.read(&file, format);
                    tracing::info!(file, good = items.is_ok(), "read manifest");
                    (file, items)
                }
            };
            match items {
                Ok(items) => {
                    for update in self.catalog.replace(&file, items) {
                        self.say(update).await?;
                    }
                }
                Err(problem) => self.say(Update::Malformed(problem)).await?,
            }
        }
        Ok(())
    }

    fn read(&mut self, file: &str, format: Format) -> Result<Vec<Item>, Problem> {
        let path = self.folder.path().join(file);
        let unread = |message: String| Problem {
            place: file.to_owned(),
            field: String::new(),
            message,
        };
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
        if bytes > MAX_FILE_BYTES {
            let message = format!("{bytes} bytes: expected at most {MAX_FILE_BYTES}");
            return Err(unread(message));
        }
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| unread(format!("can't read it: {error}")))?;
        document::read(file, format, &text, &self.kinds, self.keep, &mut self.names)
    }

    async fn say_gone(&mut self, message: String) -> Result<(), SourceError> {
        if self.gone.as_ref() == Some(&message) {
            return Ok(());
        }
        let problem = Problem {
            place: self.folder.path().display().to_string(),
            field: String::new(),
            message: format!("can't read the folder, what it said last stays: {message}"),
        };
        self.gone = Some(message);
        self.say(Update::Malformed(problem)).await
    }

    async fn say(&self, update: Update) -> Result<(), SourceError> {
        let sent = self.sender.send(update).await;
        sent.map_err(|_| SourceError::NobodyListens)
    }
}
