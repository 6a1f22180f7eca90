//! `cargo xtask vm`: a command run as root on another kernel, in a QEMU guest made from this
//! machine's own files. The guest has no network device and no disk.

pub(crate) mod apt;
mod cpio;
mod guest;
mod initramfs;
pub(crate) mod kernel;
mod libraries;
mod modules;
mod tree;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::guest::{End, Limits};
use self::initramfs::Job;
use self::kernel::Version;
use crate::programs::{find, root};

/// Our exit status when a limit ended the guest, as of timeout(1).
const STATUS_LIMIT: u8 = 124;
/// Our exit status when we failed, not the command, as of timeout(1).
const STATUS_OWN_FAILURE: u8 = 125;

/// What to run and where.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The guest's kernel: Debian 12's own, or the one of its backports
    #[arg(long, value_enum, default_value_t = Version::V6_1)]
    kernel: Version,
    /// The guest's memory, in MiB
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(256..=16_384))]
    memory_mib: u32,
    /// Seconds after which the guest is ended, its boot included
    #[arg(long, value_name = "N", default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// A file or folder the guest gets at the same path (may be given several times)
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// The command and its arguments; it reads nothing, and its output and errors are our output
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command; its exit status is ours. 124: the limit ended it. 125: it could not be run.
pub(crate) fn run(options: &Options) -> ExitCode {
    match run_to_end(options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("\nvm: {error:#}");
            ExitCode::from(STATUS_OWN_FAILURE)
        }
    }
}

fn run_to_end(options: &Options) -> Result<u8> {
    let qemu = find(guest::QEMU).context(
        "no `qemu-system-x86_64` here: `cargo xtask setup` installs it (package qemu-system-x86)",
    )?;
    let kernel = kernel::get(options.kernel)?;
    let run_dir = RunDir::make()?;
    let cwd = std::env::current_dir().context("the current folder")?;
    let job = job(options, &cwd)?;
    let initramfs = run_dir.path.join("initramfs.cpio");
    let size = initramfs::write(&initramfs, &kernel, &job)?;
    check_memory(size, options.memory_mib)?;
    let limits = Limits {
        memory_mib: options.memory_mib,
        time: Duration::from_secs(options.seconds.into()),
    };
    let guest = guest::Guest {
        qemu: &qemu,
        kernel: &kernel,
        initramfs: &initramfs,
        dir: &run_dir.path,
    };
    match guest.run(&limits)? {
        End::Command { status, times } => {
            eprintln!("vm: Linux {}, {times}, status {status}", kernel.release);
            Ok(status)
        }
        End::Limit { had_started } => {
            let what = if had_started {
                "the command did not end"
            } else {
                "the guest did not boot"
            };
            eprintln!(
                "vm: {what} within {} s (--seconds), so the guest was ended",
                options.seconds
            );
            Ok(STATUS_LIMIT)
        }
    }
}

/// The command as the guest is to run it: files by whole paths.
fn job(options: &Options, cwd: &Path) -> Result<Job> {
    let Some((name, arguments)) = options.command.split_first() else {
        bail!("no command");
    };
    let mut files: Vec<PathBuf> = options.with.iter().map(|path| cwd.join(path)).collect();
    let program = if Path::new(name).components().count() > 1 {
        let path = cwd.join(name);
        if !path.is_file() {
            bail!("there is no program {}", path.display());
        }
        Some(path)
    } else {
        // One that this machine lacks may still be one of busybox's.
        name.to_str().and_then(find)
    };
    files.extend(program.clone());
    let program = program.map_or_else(|| name.clone(), PathBuf::into_os_string);
    Ok(Job {
        words: std::iter::once(program)
            .chain(arguments.iter().cloned())
            .collect(),
        cwd: cwd.to_owned(),
        files,
    })
}

/// The guest holds its files in memory, and the archive beside them while it boots.
fn check_memory(initramfs_bytes: u64, memory_mib: u32) -> Result<()> {
    /// What kernel and command need beside the files.
    const ROOM_MIB: u64 = 160;
    let needed = initramfs_bytes.div_ceil(1 << 20) * 2 + ROOM_MIB;
    if needed > u64::from(memory_mib) {
        bail!(
            "the guest's files take {} MiB, and twice that while it boots: give it \
             --memory-mib {needed} or more, or fewer files",
            initramfs_bytes.div_ceil(1 << 20)
        );
    }
    Ok(())
}

/// Where kernels and running guests have their files.
fn vm_dir() -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::env::current_dir()?.join(dir),
        None => root()?.join("target"),
    };
    Ok(target.join("vm"))
}

/// A folder for one run, gone with it.
struct RunDir {
    path: PathBuf,
}

impl RunDir {
    const PREFIX: &str = "run-";

    fn make() -> Result<Self> {
        let all = vm_dir()?;
        Self::sweep(&all);
        let path = all.join(format!("{}{}", Self::PREFIX, std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Removes what killed runs left.
    fn sweep(all: &Path) {
        for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.strip_prefix(Self::PREFIX));
            if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                // Another run may be sweeping it too.
                drop(std::fs::remove_dir_all(entry.path()));
            }
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("vm: {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_too_small_for_its_files_is_refused_with_the_size_it_needs() {
        assert!(check_memory(100 << 20, 512).is_ok());
        let error = check_memory(200 << 20, 512).unwrap_err().to_string();
        assert!(error.contains("--memory-mib 560"), "{error}");
    }
}
