//! Files as they are in an image.

use std::collections::BTreeSet;

/// A file, link or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// From the root, without the first slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) kind: Kind,
    pub(super) capability: Option<Capability>,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Regular(Vec<u8>),
    /// A symbolic link and where it leads.
    Link(String),
    Folder,
}

/// A capability that a program has whoever starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capability {
    /// Ports below 1024.
    NetBindService,
}

impl File {
    /// A file that everybody can read, or a folder.
    pub(super) fn new(path: &str, kind: Kind) -> Self {
        let mode = match kind {
            Kind::Regular(_) => 0o644,
            Kind::Link(_) => 0o777,
            Kind::Folder => 0o755,
        };
        Self {
            path: path.trim_start_matches("./").trim_matches('/').to_owned(),
            mode,
            kind,
            capability: None,
        }
    }
}

impl Capability {
    /// As the kernel keeps it (`struct vfs_cap_data`, revision 2): permitted, and in effect from
    /// the start.
    pub(super) fn attribute(self) -> [u8; 20] {
        const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
        let Self::NetBindService = self;
        let permitted: u32 = 1 << 10;
        let mut bytes = [0; 20];
        for (at, word) in [(0, REVISION_2_EFFECTIVE), (4, permitted)] {
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    }
}

/// Adds the folders that files are in and that are not there, and sorts by path.
pub(super) fn complete(files: &[File]) -> Vec<File> {
    let there: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut missing = BTreeSet::new();
    for file in files {
        let mut path = file.path.as_str();
        while let Some((folder, _)) = path.rsplit_once('/') {
            if !there.contains(folder) {
                missing.insert(folder);
            }
            path = folder;
        }
    }
    let folders = missing
        .into_iter()
        .map(|path| File::new(path, Kind::Folder));
    let mut all: Vec<File> = files.iter().cloned().chain(folders).collect();
    all.sort_by(|one, other| one.path.cmp(&other.path));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_files_come_before_them_and_once() {
        let files = [
            File::new("usr/bin/b", Kind::Regular(Vec::new())),
            File::new("./usr/bin/a", Kind::Link("b".to_owned())),
            File::new("usr/", Kind::Folder),
        ];
        let complete = complete(&files);
        let paths: Vec<&str> = complete.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["usr", "usr/bin", "usr/bin/a", "usr/bin/b"]);
    }

    #[test]
    fn the_capability_is_written_as_setcap_writes_it() {
        // `setcap cap_net_bind_service=ep FILE; getfattr -e hex -n security.capability FILE`
        let expected = "0100000200040000000000000000000000000000";
        let bytes = Capability::NetBindService.attribute();
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, expected);
    }
}
