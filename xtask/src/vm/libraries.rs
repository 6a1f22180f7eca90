//! Which shared libraries programs need.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::programs::command;

/// How many programs are asked about at a time.
const BATCH: usize = 128;
/// What the files of programs and libraries begin with.
const MAGIC: &[u8; 4] = b"\x7fELF";
/// The machine that is meant, as the file says it: amd64.
const AMD64: [u8; 2] = [62, 0];
/// The kinds of files that have libraries: programs, and libraries themselves.
const KINDS: [[u8; 2]; 2] = [[2, 0], [3, 0]];

/// Whether a file is a program or a library of this machine's kind; an eBPF object is not.
pub(super) fn is_program(path: &Path) -> bool {
    let mut start = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok()
        && start.starts_with(MAGIC)
        && KINDS.iter().any(|kind| start[16..18] == *kind)
        && start[18..20] == AMD64
}

/// The libraries that these programs need, and the loader.
///
/// # Errors
/// `ldd` can't be run, or a library is not on this machine.
pub(super) fn of(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for programs in programs.chunks(BATCH) {
        let mut ldd = command("ldd")?;
        // What is linked statically makes ldd fail, and is said on stderr.
        let output = ldd
            .args(programs)
            .env("LC_ALL", "C")
            .stderr(Stdio::null())
            .output()
            .context("start `ldd`")?;
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            libraries.extend(in_line(line)?);
        }
    }
    Ok(libraries)
}

/// The library that a line of ldd's output names, if it does.
fn in_line(line: &str) -> Result<Option<PathBuf>> {
    // Lines that are not indented name the program.
    if !line.starts_with(['\t', ' ']) {
        return Ok(None);
    }
    let (name, path) = match line.split_once("=>") {
        Some((name, path)) => (name.trim(), path.trim()),
        None => (line.trim(), line.trim()),
    };
    if path == "not found" {
        bail!("a program for the guest needs the library {name}, which is not on this machine");
    }
    let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
    Ok(path.starts_with('/').then(|| PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_rest_is_passed_over() {
        let found = |line| in_line(line).unwrap();
        assert_eq!(
            found("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f5)"),
            Some("/lib/x86_64-linux-gnu/libc.so.6".into())
        );
        assert_eq!(
            found("\t/lib64/ld-linux-x86-64.so.2 (0x00007f5)"),
            Some("/lib64/ld-linux-x86-64.so.2".into())
        );
        assert_eq!(found("\tlinux-vdso.so.1 (0x00007ffd)"), None);
        assert_eq!(found("\tstatically linked"), None);
        assert_eq!(found("/usr/sbin/ip:"), None);
        let error = in_line("\tlibx.so.1 => not found").unwrap_err().to_string();
        assert!(error.contains("libx.so.1"), "{error}");
    }

    #[test]
    fn this_test_is_a_program_and_its_source_is_none() {
        assert!(is_program(&std::env::current_exe().unwrap()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(!is_program(&source));
    }
}
