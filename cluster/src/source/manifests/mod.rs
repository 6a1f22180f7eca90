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
mod implied;
mod watch;
mod writing;

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;

use tokio::sync::mpsc::Sender;

use self::catalog::Catalog;
use self::document::{Format, Item, Wanted};
use self::folder::{Changed, Folder};
use self::implied::ImpliedNamespaces;
use self::watch::Watch;
use self::writing::Writing;
use super::{LabelSelectorError, Selection, SourceError};
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
    /// What to send; other kinds are skipped, and objects that label selectors leave out.
    /// With all Namespaces among them, those that objects live in are there even if no file
    /// gives them.
    pub selections: Vec<Selection>,
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
    wanted(&options.selections).map_err(|error| refused(error.to_string()))?;
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
    let wanted = wanted(&options.selections).map_err(|error| failed(error.to_string()))?;
    let any_namespace = |wanted: &Wanted| wanted.kind == Kind::Namespace && wanted.labels.is_none();
    let implied = wanted.iter().any(any_namespace);
    let mut source = Source {
        folder: Folder::new(folder),
        wanted,
        implied: implied.then(ImpliedNamespaces::default),
        keep: options.keep,
        catalog: Catalog::default(),
        names: Interner::default(),
        gone: None,
        sender,
    };
    for wanted in &source.wanted {
        source.say(Update::ListStarted(wanted.kind)).await?;
    }
    source.read_changes(watch.writing()).await?;
    for wanted in &source.wanted {
        source.say(Update::ListDone(wanted.kind)).await?;
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

/// Which objects to send, in the order of the selections.
fn wanted(selections: &[Selection]) -> Result<Vec<Wanted>, LabelSelectorError> {
    let read = |selection: &Selection| {
        let labels = selection.labels.as_deref().map(str::parse).transpose()?;
        Ok(Wanted {
            kind: selection.kind,
            labels,
        })
    };
    selections.iter().map(read).collect()
}

struct Source {
    folder: Folder,
    wanted: Vec<Wanted>,
    implied: Option<ImpliedNamespaces>,
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
                        self.say_with_namespaces(update).await?;
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
        document::read(
            file,
            format,
            &text,
            &self.wanted,
            self.keep,
            &mut self.names,
        )
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

    async fn say_with_namespaces(&mut self, update: Update) -> Result<(), SourceError> {
        let Some(implied) = &mut self.implied else {
            return self.say(update).await;
        };
        for update in implied.with_namespaces(update) {
            self.say(update).await?;
        }
        Ok(())
    }

    async fn say(&self, update: Update) -> Result<(), SourceError> {
        let sent = self.sender.send(update).await;
        sent.map_err(|_| SourceError::NobodyListens)
    }
}
