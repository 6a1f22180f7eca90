//! The guest's only file system: what it boots, the command, and the programs tests use.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use super::tree::Tree;
use super::{libraries, modules};
use crate::programs::find;

/// The guest's first process.
const INIT: &str = include_str!("init.sh");
/// Where it finds the command.
const COMMAND: &str = "/command";
/// Where it finds busybox.
const BUSYBOX: &str = "/busybox/busybox";

/// Programs the guest gets where this machine has them.
const PROGRAMS: [&str; 30] = [
    "bpftool",
    "conntrack",
    "ip",
    "ip6tables",
    "ip6tables-legacy",
    "ip6tables-legacy-restore",
    "ip6tables-legacy-save",
    "ip6tables-nft",
    "ip6tables-restore",
    "ip6tables-save",
    "ipset",
    "iptables",
    "iptables-legacy",
    "iptables-legacy-restore",
    "iptables-legacy-save",
    "iptables-nft",
    "iptables-restore",
    "iptables-save",
    "ipvsadm",
    "lsmod",
    "modprobe",
    "nft",
    "nsenter",
    "rmmod",
    "setpriv",
    "sh",
    "ss",
    "sysctl",
    "tc",
    "unshare",
];
/// Files and folders it gets where this machine has them: what those programs read, and the
/// plug-ins they load.
const FILES: [&str; 5] = [
    "/etc/iproute2",
    "/etc/protocols",
    "/etc/services",
    "/etc/xtables",
    "/usr/lib/x86_64-linux-gnu/xtables",
];
/// Folders it mounts on, which hides what they had.
const MOUNT_POINTS: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// Small files it would miss.
const SMALL_FILES: [(&str, &str); 4] = [
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("/etc/group", "root:x:0:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\nhosts: files dns\n"),
];
/// Variables the command gets from us, by what their names begin with.
const VARIABLES: [&str; 2] = ["SWITCHYARD_", "RUST_"];

/// What the guest is to do.
pub(super) struct Job {
    /// The command, a whole path where this machine has it, and its arguments.
    pub(super) words: Vec<OsString>,
    /// The folder it is run in.
    pub(super) cwd: PathBuf,
    /// What it needs, by whole paths; the command itself too.
    pub(super) files: Vec<PathBuf>,
}

/// Writes the archive; returns its size in bytes.
///
/// # Errors
/// A file is not there or can't be read, or the archive can't be written.
pub(super) fn write(path: &Path, kernel: &Kernel, job: &Job) -> Result<u64> {
    let mut tree = Tree::default();
    for file in &job.files {
        if let Some(hidden) = MOUNT_POINTS.iter().find(|point| file.starts_with(point)) {
            bail!("{}: the guest has a {hidden} of its own", file.display());
        }
        tree.add(file)?;
        if let Some(interpreter) = interpreter(file) {
            tree.add(&interpreter)?;
        }
    }
    tree.add_empty(&job.cwd)?;
    add_machine(&mut tree)?;
    // `/lib` may be a link, and the kernel unpacks in the order of names: where it leads to.
    let target = std::fs::canonicalize("/lib")?
        .join("modules")
        .join(&kernel.release);
    for module in modules::files(kernel)? {
        let name = module.strip_prefix(&kernel.modules)?;
        tree.copy_to(&module, &target.join(name))?;
    }
    tree.make_file(COMMAND, script(&job.words, &job.cwd), 0o644)?;
    tree.make_file("/init", INIT, 0o755)?;
    let out = File::create(path).with_context(|| format!("write {}", path.display()))?;
    tree.pack(BufWriter::with_capacity(1 << 20, out))
}

/// What every guest has.
fn add_machine(tree: &mut Tree) -> Result<()> {
    for program in PROGRAMS.iter().filter_map(|program| find(program)) {
        tree.add(&program)?;
    }
    for file in FILES.map(Path::new) {
        if file.exists() {
            tree.add(file)?;
        }
    }
    let Some(busybox) = find("busybox") else {
        bail!("no `busybox` here: `cargo xtask setup` installs it (package busybox-static)");
    };
    let programs: Vec<PathBuf> = tree
        .copied()
        .filter(|path| libraries::is_program(path))
        .map(Path::to_owned)
        .chain([busybox.clone()])
        .collect();
    for library in libraries::of(&programs)? {
        tree.add(&library)?;
    }
    // Where this machine's are links, the guest's must be, also where it has no files in them.
    for folder in ["/bin", "/lib", "/lib64", "/sbin"] {
        tree.add_empty(Path::new(folder))?;
    }
    tree.copy_to(&busybox, Path::new(BUSYBOX))?;
    for folder in MOUNT_POINTS {
        tree.make_directory(folder, 0o755)?;
    }
    tree.make_directory("/root", 0o700)?;
    // All of the guest's files are in memory, so this needs no mount.
    tree.make_directory("/tmp", 0o1777)?;
    for (path, contents) in SMALL_FILES {
        tree.make_file(path, contents, 0o644)?;
    }
    Ok(())
}

/// The program that a script names in its first line.
fn interpreter(script: &Path) -> Option<PathBuf> {
    use std::io::Read;
    /// As much of the first line as Linux reads.
    const MAX_LINE: u64 = 256;
    let mut start = Vec::new();
    let file = File::open(script).ok()?;
    file.take(MAX_LINE).read_to_end(&mut start).ok()?;
    let start = String::from_utf8_lossy(&start);
    let line = start.strip_prefix("#!")?.lines().next()?;
    line.split_whitespace().next().map(PathBuf::from)
}

/// What the guest's shell reads to run the command.
fn script(words: &[OsString], cwd: &Path) -> Vec<u8> {
    let mut script = b"cd ".to_vec();
    quote(&mut script, cwd.as_os_str());
    let variables = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        VARIABLES.iter().any(|start| name.starts_with(start))
    });
    for (name, value) in variables {
        script.extend(b" && export ");
        script.extend(name.as_bytes());
        script.push(b'=');
        quote(&mut script, &value);
    }
    script.extend(b" && exec");
    for word in words {
        script.push(b' ');
        quote(&mut script, word);
    }
    script.push(b'\n');
    script
}

/// A word that the shell takes as it is.
fn quote(script: &mut Vec<u8>, word: &OsStr) {
    script.push(b'\'');
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend(br"'\''"),
            byte => script.push(byte),
        }
    }
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_guest_as_they_are() {
        let mut quoted = Vec::new();
        quote(&mut quoted, OsStr::new("it's $HOME \"x\"\n"));
        assert_eq!(quoted, b"'it'\\''s $HOME \"x\"\n'");
        let words: Vec<OsString> = vec!["/bin/a".into(), "b c".into(), "".into()];
        let script = String::from_utf8(script(&words, Path::new("/w d"))).unwrap();
        assert!(script.starts_with("cd '/w d' && "), "{script}");
        assert!(script.ends_with(" && exec '/bin/a' 'b c' ''\n"), "{script}");
    }

    #[test]
    fn a_scripts_interpreter_is_the_first_word_after_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (text, wanted) in [
            ("#!/bin/sh -e\nexit\n", Some("/bin/sh")),
            ("#! /usr/bin/env python3\n", Some("/usr/bin/env")),
            ("exit\n", None),
            ("", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(interpreter(&path), wanted.map(PathBuf::from), "{text}");
        }
    }
}
