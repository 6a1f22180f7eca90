//! Archives in cpio's "newc" format, which the kernel unpacks as its first file system.

use std::io::{self, Read, Write};

/// The type bits of a mode.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
/// Name and contents each begin at a multiple of this, in bytes.
const ALIGNMENT: u64 = 4;
/// What ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Writes an archive, one entry after the other. A folder goes before what is in it.
/// Everything belongs to root and has no time of change.
pub(super) struct Writer<W> {
    out: W,
    written: u64,
    entries: u32,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            entries: 0,
        }
    }

    /// A folder. `name`s have no leading slash, as in all of these.
    ///
    /// # Errors
    /// It can't be written, as in all of these; or the name is too long.
    pub(super) fn directory(&mut self, name: &[u8], permissions: u32) -> io::Result<()> {
        self.header(name, DIRECTORY | permissions, 0)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub(super) fn link(&mut self, name: &[u8], target: &[u8]) -> io::Result<()> {
        let size = u32::try_from(target.len()).map_err(io::Error::other)?;
        self.header(name, LINK | 0o777, size)?;
        self.put(target)?;
        self.align()
    }

    /// A file of `size` bytes.
    ///
    /// # Errors
    /// Also: `contents` has another size, or it is 4 GiB or more, which the format can't say.
    pub(super) fn file(
        &mut self,
        name: &[u8],
        permissions: u32,
        size: u64,
        contents: impl Read,
    ) -> io::Result<()> {
        let announced = u32::try_from(size).map_err(|_| {
            io::Error::other(format!("{size} bytes: a file must be smaller than 4 GiB"))
        })?;
        self.header(name, REGULAR | permissions, announced)?;
        // One byte more than there should be, to see that there is none.
        let copied = io::copy(&mut contents.take(size + 1), &mut self.out)?;
        if copied != size {
            return Err(io::Error::other(format!(
                "it changed while it was read: {size} bytes were there"
            )));
        }
        self.written += size;
        self.align()
    }

    /// Ends the archive; returns its size in bytes.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.header(TRAILER, 0, 0)?;
        self.out.flush()?;
        Ok(self.written)
    }

    fn header(&mut self, name: &[u8], mode: u32, size: u32) -> io::Result<()> {
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        self.entries += 1;
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        let inode = self.entries;
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.put(b"070701")?;
        for field in fields {
            self.put(format!("{field:08X}").as_bytes())?;
        }
        self.put(name)?;
        self.put(&[0])?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        while !self.written.is_multiple_of(ALIGNMENT) {
            self.put(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_header_name_and_contents_each_at_a_multiple_of_four() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.directory(b"etc", 0o755).unwrap();
        writer.file(b"etc/x", 0o644, 5, &b"hello"[..]).unwrap();
        let size = writer.finish().unwrap();
        assert_eq!(size, u64::try_from(out.len()).unwrap());
        let (directory, rest) = out.split_at(116);
        assert_eq!(
            directory,
            b"070701000000010000 41ED0000000000000000000000020000000000000000\
              0000000000000000000000000000000000000004 00000000etc\0\0\0"
                .iter()
                .copied()
                .filter(|&byte| byte != b' ')
                .collect::<Vec<_>>()
        );
        let (file, trailer) = rest.split_at(116 + 8);
        assert!(file.starts_with(b"07070100000002000081A4"), "mode 100644");
        assert_eq!(&file[54..62], b"00000005", "size");
        assert_eq!(&file[110..], b"etc/x\0hello\0\0\0");
        assert!(trailer.ends_with(b"TRAILER!!!\0\0\0\0"));
    }

    #[test]
    fn a_link_has_its_target_as_contents() {
        let mut out = Vec::new();
        Writer::new(&mut out).link(b"bin", b"usr/bin").unwrap();
        assert!(out.starts_with(b"070701000000010000A1FF"));
        assert!(out.ends_with(b"bin\0\0\0usr/bin\0"));
    }

    #[test]
    fn a_file_that_shrinks_or_grows_is_an_error() {
        let mut writer = Writer::new(io::sink());
        assert!(writer.file(b"x", 0o644, 6, &b"hello"[..]).is_err());
        assert!(writer.file(b"x", 0o644, 4, &b"hello"[..]).is_err());
    }
}
