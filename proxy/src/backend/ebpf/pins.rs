//! Names in the bpf file system: what outlives the agent.
//!
//! ```text
//! <bpf-root>/v1/FLOWS …        maps that are shared by all loads of one schema
//! <bpf-root>/links/connect4 …  the programs' places, whatever the schema
//! ```

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use switchyard_datapath::layout::SCHEMA;

use super::EbpfError;

/// Other names that are tried where something that is not ours has one.
const OTHER_NAMES: usize = 8;

/// Where things of this schema are pinned.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    maps: PathBuf,
    links: PathBuf,
}

impl Pins {
    /// Makes the directories, if they are not there.
    pub(super) fn open(root: &Path) -> Result<Self, EbpfError> {
        fs::create_dir_all(root)
            .map_err(EbpfError::system(format!("making {}", root.display())))?;
        Ok(Self {
            maps: directory(&root.join(format!("v{SCHEMA}")))?,
            links: directory(&root.join("links"))?,
        })
    }

    /// The directories of an agent that runs, or ran; nothing is made.
    pub(super) fn existing(root: &Path) -> Self {
        Self {
            maps: root.join(format!("v{SCHEMA}")),
            links: root.join("links"),
        }
    }

    /// The path of a map that is to have this shape: of the one that is there, or a free name.
    /// What is there and is something else is said, and left alone.
    pub(super) fn map(&self, name: &str, expected: &Expected) -> Result<PathBuf, EbpfError> {
        free_or_ours(&self.maps.join(name), |path| expected.is_met_at(path))
    }

    /// The path of a link, found in the same way.
    pub(super) fn link(&self, name: &str) -> Result<PathBuf, EbpfError> {
        free_or_ours(&self.links.join(name), |path| {
            switchyard_kernel::Link::open(path)
                .map(drop)
                .map_err(Unfit::of)
        })
    }

    /// Makes the directories again where somebody has removed them.
    pub(super) fn restore(&self) -> Result<(), EbpfError> {
        for path in [&self.maps, &self.links] {
            let made = fs::create_dir_all(path);
            made.map_err(EbpfError::system(format!("making {}", path.display())))?;
        }
        Ok(())
    }

    /// The directory of links.
    pub(super) fn links(&self) -> &Path {
        &self.links
    }

    /// The directory of maps.
    pub(super) fn maps(&self) -> &Path {
        &self.maps
    }
}

/// What a pinned map must be like, so that programs can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    pub(super) key_bytes: u32,
    pub(super) value_bytes: u32,
}

/// Why what has one of our names can't be used under it.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It is something else; what.
    Foreign(String),
    /// It could not be looked at, and may well be ours: another name would lose what it holds.
    Unknown(io::Error),
}

impl Unfit {
    /// What an error of opening a pin means.
    pub(super) fn of(error: io::Error) -> Self {
        let is_foreign = match error.raw_os_error().map(Errno::from_raw) {
            // The first is what the kernel says of things that are no BPF objects.
            Some(Errno::EACCES | Errno::EISDIR | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                true
            }
            Some(_) => false,
            None => error.kind() == io::ErrorKind::InvalidData,
        };
        if is_foreign {
            Self::Foreign(error.to_string())
        } else {
            Self::Unknown(error)
        }
    }
}

impl Expected {
    pub(super) fn is_met_at(&self, path: &Path) -> Result<(), Unfit> {
        let map = switchyard_kernel::open_pinned(path).map_err(Unfit::of)?;
        let shape = switchyard_kernel::map_shape(map.as_fd()).map_err(Unfit::of)?;
        let found = Self {
            kind: shape.kind,
            key_bytes: shape.key_bytes,
            value_bytes: shape.value_bytes,
        };
        if found == *self {
            Ok(())
        } else {
            let what = format!("it is {found:?}, expected {self:?}");
            Err(Unfit::Foreign(what))
        }
    }
}

/// A directory of ours: made, or there; under another name if something else has this one.
fn directory(path: &Path) -> Result<PathBuf, EbpfError> {
    for candidate in names(path) {
        match fs::create_dir(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if candidate.is_dir() {
                    return Ok(candidate);
                }
                say_foreign(&candidate, "it is no directory");
            }
            Err(error) => {
                return Err(EbpfError::system(format!("making {}", candidate.display()))(error));
            }
        }
    }
    Err(taken(path))
}

fn free_or_ours(
    path: &Path,
    is_ours: impl Fn(&Path) -> Result<(), Unfit>,
) -> Result<PathBuf, EbpfError> {
    for candidate in names(path) {
        // A symbolic link, whatever it leads to, is something that is there.
        if fs::symlink_metadata(&candidate).is_err() {
            return Ok(candidate);
        }
        match is_ours(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Unfit::Foreign(reason)) => say_foreign(&candidate, &reason),
            Err(Unfit::Unknown(error)) => {
                let what = format!("opening {}", candidate.display());
                return Err(EbpfError::system(what)(error));
            }
        }
    }
    Err(taken(path))
}

/// The name itself, then the name with numbers behind it.
fn names(path: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    let numbered = (2..=OTHER_NAMES + 1).map(|number| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{name}-{number}"))
    });
    std::iter::once(path.to_path_buf()).chain(numbered)
}

fn say_foreign(path: &Path, reason: &str) {
    tracing::warn!(
        path = %path.display(), %reason,
        "something that is not ours has this name: left alone, another name is used"
    );
}

fn taken(path: &Path) -> EbpfError {
    EbpfError::PinsTaken {
        path: path.to_path_buf(),
        tries: OTHER_NAMES,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_is_made_or_taken_over_but_never_in_place_of_something_else() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        assert_eq!(directory(&at("v1")).unwrap(), at("v1"));
        assert_eq!(directory(&at("v1")).unwrap(), at("v1"));
        fs::write(at("file"), "theirs").unwrap();
        symlink(at("nowhere"), at("file-2")).unwrap();
        assert_eq!(directory(&at("file")).unwrap(), at("file-3"));
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "theirs");
        assert!(!at("nowhere").exists());
        // Nothing can be made below a file.
        let error = directory(&at("file").join("v1")).unwrap_err();
        assert!(error.to_string().contains("file/v1"), "{error}");
    }

    #[test]
    fn a_name_is_free_or_ours_or_another_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let is_ours = |path: &Path| match fs::read_to_string(path) {
            Ok(text) if text == "ours" => Ok(()),
            Ok(text) if text == "shut" => Err(Unfit::of(Errno::ENOMEM.into())),
            other => Err(Unfit::Foreign(format!("{other:?}"))),
        };
        let found = || free_or_ours(&at("FLOWS"), is_ours);
        assert_eq!(found().unwrap(), at("FLOWS"));
        fs::write(at("FLOWS"), "ours").unwrap();
        assert_eq!(found().unwrap(), at("FLOWS"));
        fs::write(at("FLOWS"), "theirs").unwrap();
        fs::create_dir(at("FLOWS-2")).unwrap();
        symlink(at("nowhere"), at("FLOWS-3")).unwrap();
        assert_eq!(found().unwrap(), at("FLOWS-4"));
        fs::write(at("FLOWS-4"), "ours").unwrap();
        assert_eq!(found().unwrap(), at("FLOWS-4"));
        fs::write(at("FLOWS-4"), "shut").unwrap();
        let error = found().unwrap_err();
        assert!(error.to_string().contains("FLOWS-4"), "{error}");
        for number in 4..=9 {
            fs::write(at(&format!("FLOWS-{number}")), "theirs").unwrap();
        }
        let error = found().unwrap_err();
        assert!(matches!(&error, EbpfError::PinsTaken { path, tries: 8 } if *path == at("FLOWS")));
        assert!(error.to_string().contains("FLOWS"), "{error}");
    }

    #[test]
    fn what_can_not_be_opened_for_now_is_not_taken_for_foreign() {
        let of = |error: Errno| Unfit::of(error.into());
        for error in [
            Errno::EACCES,
            Errno::ENOENT,
            Errno::ELOOP,
            Errno::EISDIR,
            Errno::ENOTDIR,
        ] {
            assert!(matches!(of(error), Unfit::Foreign(_)), "{error}");
        }
        for error in [Errno::ENOMEM, Errno::EMFILE, Errno::EPERM, Errno::EINTR] {
            assert!(matches!(of(error), Unfit::Unknown(_)), "{error}");
        }
    }

    #[test]
    fn what_an_agent_left_is_named_without_making_anything() {
        let root = tempfile::tempdir().unwrap();
        let pins = Pins::existing(&root.path().join("none"));
        assert!(
            pins.maps().ends_with(format!("none/v{SCHEMA}")) && pins.links().ends_with("links")
        );
        assert!(!root.path().join("none").exists());
        let opened = Pins::open(&root.path().join("some/more")).unwrap();
        assert!(opened.maps().is_dir() && opened.links().is_dir());
    }
}
