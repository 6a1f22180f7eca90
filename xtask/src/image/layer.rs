//! A layer of an image: files in a compressed tar archive that is always the same for the same
//! files.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::files::{File, Kind, complete};
use crate::programs::command;

/// What tar archives call an extended attribute of a file (as PAX record).
const CAPABILITY_RECORD: &str = "SCHILY.xattr.security.capability";

/// A layer.
pub(super) struct Layer {
    /// What made it, for the image's history.
    pub(super) name: &'static str,
    /// The digest of the archive before it was compressed.
    pub(super) diff_id: String,
    /// Compressed.
    pub(super) bytes: Vec<u8>,
}

impl Layer {
    /// The layer of these files, all of the time `epoch`.
    ///
    /// # Errors
    /// A file can't be put into the archive, or there is no gzip.
    pub(super) fn of(name: &'static str, files: &[File], epoch: u64) -> Result<Self> {
        let archive = archive(&complete(files), epoch)?;
        Ok(Self {
            name,
            diff_id: digest(&archive),
            bytes: compress(archive)?,
        })
    }
}

/// `sha256:…`.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
}

/// A tar archive of files that are root's.
pub(super) fn archive(files: &[File], epoch: u64) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for file in files {
        append(&mut tar, file, epoch).with_context(|| file.path.clone())?;
    }
    Ok(tar.into_inner()?)
}

fn append(tar: &mut Builder<Vec<u8>>, file: &File, epoch: u64) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(file.mode);
    header.set_mtime(epoch);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    if let Some(capability) = file.capability {
        tar.append_pax_extensions([(CAPABILITY_RECORD, &capability.attribute()[..])])?;
    }
    match &file.kind {
        Kind::Regular(bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(u64::try_from(bytes.len())?);
            tar.append_data(&mut header, &file.path, bytes.as_slice())?;
        }
        Kind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, &file.path, target)?;
        }
        Kind::Folder => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, format!("{}/", file.path), std::io::empty())?;
        }
    }
    Ok(())
}

/// By the gzip that every Debian has, without name and time.
fn compress(bytes: Vec<u8>) -> Result<Vec<u8>> {
    let mut gzip = command("gzip")?
        .args(["--no-name", "-9", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start gzip")?;
    let (stdin, stdout) = (gzip.stdin.take(), gzip.stdout.take());
    // It writes before it has read everything.
    let feeding = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&bytes)).transpose());
    let mut compressed = Vec::new();
    stdout
        .context("no output of gzip")?
        .read_to_end(&mut compressed)?;
    let status = gzip.wait()?;
    match feeding.join() {
        Ok(fed) => fed.context("write to gzip")?,
        Err(_) => bail!("writing to gzip failed"),
    };
    if !status.success() {
        bail!("gzip ended with {status}");
    }
    Ok(compressed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::files::Capability;

    #[test]
    fn the_same_files_make_the_same_layer_in_whatever_order() {
        let mut files = vec![
            File::new("a/b", Kind::Regular(b"text".to_vec())),
            File::new("c", Kind::Link("a/b".to_owned())),
            File::new("d", Kind::Folder),
        ];
        let one = Layer::of("test", &files, 5).unwrap();
        files.reverse();
        let other = Layer::of("test", &files, 5).unwrap();
        assert_eq!((&one.diff_id, &one.bytes), (&other.diff_id, &other.bytes));
        assert_ne!(one.diff_id, Layer::of("test", &files, 6).unwrap().diff_id);
    }

    #[test]
    fn a_capability_is_an_attribute_of_its_file_alone() {
        let able = File {
            capability: Some(Capability::NetBindService),
            ..File::new("able", Kind::Regular(Vec::new()))
        };
        let bytes = archive(&[able, File::new("plain", Kind::Regular(Vec::new()))], 0).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut with = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let records = entry.pax_extensions().unwrap();
            with.push((path, records.map(Iterator::count)));
        }
        assert_eq!(with, [("able".into(), Some(1)), ("plain".into(), None)]);
    }
}
