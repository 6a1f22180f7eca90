//! The guest's files before they are packed: this machine's own at their own paths, with the
//! symbolic links on the way to them, and some made up.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cpio::Writer;

/// How many files, folders and links a guest gets at most.
const MAX_ENTRIES: usize = 50_000;
/// How many links one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;

/// A file, folder or link.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Directory {
        permissions: u32,
    },
    /// A file of this machine.
    Copy {
        from: PathBuf,
    },
    Made {
        contents: Vec<u8>,
        permissions: u32,
    },
    Link {
        target: PathBuf,
    },
}

/// The guest's files, by path. A folder comes before what is in it.
#[derive(Default)]
pub(super) struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    /// An empty folder, and those it is in.
    ///
    /// # Errors
    /// There are too many entries, as in all of these.
    pub(super) fn make_directory(&mut self, path: &str, permissions: u32) -> Result<()> {
        self.parents(Path::new(path))?;
        self.put(PathBuf::from(path), Entry::Directory { permissions })
    }

    /// A file of these contents.
    ///
    /// # Errors
    /// As [`Self::make_directory`].
    pub(super) fn make_file(
        &mut self,
        path: &str,
        contents: impl Into<Vec<u8>>,
        permissions: u32,
    ) -> Result<()> {
        self.parents(Path::new(path))?;
        let contents = contents.into();
        self.put(
            PathBuf::from(path),
            Entry::Made {
                contents,
                permissions,
            },
        )
    }

    /// A file of this machine at another path.
    ///
    /// # Errors
    /// As [`Self::make_directory`].
    pub(super) fn copy_to(&mut self, from: &Path, path: &Path) -> Result<()> {
        self.parents(path)?;
        let from = from.to_owned();
        self.put(path.to_owned(), Entry::Copy { from })
    }

    /// A file of this machine, or a folder and all that is in it, at its own path.
    ///
    /// # Errors
    /// Also: it is not there, or it can't be read.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        let real = self.resolve(path)?;
        if !real.is_dir() {
            return Ok(());
        }
        let mut open = vec![real];
        while let Some(dir) = open.pop() {
            let entries = fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?;
            for entry in entries {
                let entry = entry?;
                let (path, kind) = (entry.path(), entry.file_type()?);
                if kind.is_dir() {
                    self.resolve(&path)?;
                    open.push(path);
                } else if kind.is_file() {
                    self.put(path.clone(), Entry::Copy { from: path })?;
                } else if kind.is_symlink() {
                    // It may lead nowhere, here as there.
                    let target = fs::read_link(&path)?;
                    self.put(path, Entry::Link { target })?;
                }
            }
        }
        Ok(())
    }

    /// An empty folder for a folder of this machine, which may have been reached by links.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(super) fn add_empty(&mut self, path: &Path) -> Result<()> {
        self.resolve(path).map(drop)
    }

    /// The files that are copied.
    pub(super) fn copied(&self) -> impl Iterator<Item = &Path> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Copy { from } => Some(from.as_path()),
            _ => None,
        })
    }

    /// Puts every link, folder and file on the way to a path in; returns where the way ends.
    fn resolve(&mut self, path: &Path) -> Result<PathBuf> {
        let mut rest: VecDeque<OsString> = VecDeque::new();
        prepend(&mut rest, path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == OsStr::new("..") {
                at.pop();
                continue;
            }
            let next = at.join(name);
            let facts = fs::symlink_metadata(&next)
                .with_context(|| format!("{}: {}", path.display(), next.display()))?;
            if facts.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    bail!("{}: more than {MAX_LINKS} links", path.display());
                }
                let target = fs::read_link(&next)?;
                prepend(&mut rest, &target);
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                self.put(next, Entry::Link { target })?;
                continue;
            }
            let entry = if facts.is_dir() {
                let permissions = facts.permissions().mode() & 0o7777;
                Entry::Directory { permissions }
            } else if facts.is_file() {
                Entry::Copy { from: next.clone() }
            } else {
                bail!("{}: neither a file nor a folder", next.display());
            };
            self.put(next.clone(), entry)?;
            at = next;
        }
        Ok(at)
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents {
            if parent != Path::new("/") && !self.entries.contains_key(parent) {
                self.put(parent.to_owned(), Entry::Directory { permissions: 0o755 })?;
            }
        }
        Ok(())
    }

    /// The first to come stays.
    fn put(&mut self, path: PathBuf, entry: Entry) -> Result<()> {
        if self.entries.len() >= MAX_ENTRIES {
            bail!(
                "more than {MAX_ENTRIES} files for the guest, at {}",
                path.display()
            );
        }
        self.entries.entry(path).or_insert(entry);
        Ok(())
    }

    /// Packs everything; returns the archive's size in bytes.
    ///
    /// # Errors
    /// A file can't be read, or the archive not written.
    pub(super) fn pack(&self, out: impl Write) -> Result<u64> {
        let mut writer = Writer::new(out);
        for (path, entry) in &self.entries {
            write(&mut writer, path, entry).with_context(|| format!("pack {}", path.display()))?;
        }
        Ok(writer.finish()?)
    }
}

/// Puts a path's names before the rest of a way. `/` and `.` are none.
fn prepend(rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn write<W: Write>(writer: &mut Writer<W>, path: &Path, entry: &Entry) -> Result<()> {
    let name = path.strip_prefix("/")?.as_os_str().as_bytes();
    match entry {
        Entry::Directory { permissions } => writer.directory(name, *permissions)?,
        Entry::Link { target } => writer.link(name, target.as_os_str().as_bytes())?,
        Entry::Made {
            contents,
            permissions,
        } => {
            let size = u64::try_from(contents.len())?;
            writer.file(name, *permissions, size, contents.as_slice())?;
        }
        Entry::Copy { from } => {
            let file = File::open(from)?;
            let facts = file.metadata()?;
            let permissions = facts.permissions().mode() & 0o7777;
            writer.file(name, permissions, facts.len(), file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_on_the_way_come_along_and_so_do_their_targets() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("real/deep")).unwrap();
        fs::write(at("real/deep/tool"), "x").unwrap();
        symlink("real", at("short")).unwrap();
        symlink("../deep/tool", at("real/deep/alias")).unwrap();
        let mut tree = Tree::default();
        tree.add(&at("short/deep/alias")).unwrap();
        let link = |target: &str| Entry::Link {
            target: target.into(),
        };
        assert_eq!(tree.entries.get(&at("short")), Some(&link("real")));
        let alias = tree.entries.get(&at("real/deep/alias"));
        assert_eq!(alias, Some(&link("../deep/tool")));
        let copied: Vec<&Path> = tree.copied().collect();
        assert_eq!(copied, [at("real/deep/tool")]);
    }

    #[test]
    fn a_folder_comes_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::write(at("a/b/file"), "x").unwrap();
        symlink("nowhere", at("a/b/c/broken")).unwrap();
        let mut tree = Tree::default();
        tree.add(&at("a")).unwrap();
        for name in ["a", "a/b", "a/b/c", "a/b/file", "a/b/c/broken"] {
            assert!(tree.entries.contains_key(&at(name)), "{name}");
        }
    }

    #[test]
    fn what_is_not_there_and_links_in_a_circle_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        assert!(tree.add(&dir.path().join("none")).is_err());
        symlink("circle", dir.path().join("circle")).unwrap();
        let error = tree.add(&dir.path().join("circle")).unwrap_err();
        assert!(error.to_string().contains("links"), "{error:#}");
    }
}
