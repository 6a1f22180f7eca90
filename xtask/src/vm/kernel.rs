//! The guest's kernels: Debian 12's kernels for machines in a cloud, unpacked below `target/` and
//! never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use super::{RunDir, vm_dir};
use crate::programs::{self, command};

/// The package that depends on the newest kernel of a suite.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// What the names of the kernels' own packages begin with; the rest is the release.
const PACKAGE_PREFIX: &str = "linux-image-";

/// A kernel to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Version {
    /// Debian 12's own: the oldest that Switchyard supports
    #[value(name = "6.1")]
    V6_1,
    /// Of Debian 12's backports
    #[value(name = "6.12")]
    V6_12,
}

impl Version {
    /// All there are.
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// As one gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "bookworm-backports",
        }
    }
}

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// What is booted.
    pub(super) image: PathBuf,
    /// The folder `lib/modules/RELEASE`, with the modules' indexes.
    pub(super) modules: PathBuf,
}

/// A kernel, fetched and unpacked unless it was before. Removing `target/vm/VERSION` has it
/// fetched anew.
///
/// # Errors
/// It can't be had: this machine's apt has no source of Debian 12, or none answers; or this is
/// no amd64.
pub(super) fn get(version: Version) -> Result<Kernel> {
    let dir = vm_dir()?.join(version.name());
    if !dir.exists() {
        fetch(version, &dir)
            .with_context(|| format!("get Debian 12's kernel {}", version.name()))?;
    }
    unpacked_in(&dir).with_context(|| {
        format!(
            "{} is no unpacked kernel: remove it to have it fetched anew",
            dir.display()
        )
    })
}

/// Fetches kernels that are not there yet.
///
/// # Errors
/// As [`get`].
pub(crate) fn fetch_missing(version: Version) -> Result<()> {
    get(version).map(drop)
}

fn fetch(version: Version, dir: &Path) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("guests are amd64, and so must this machine be, whose programs they run");
    }
    println!(
        "vm: fetching Debian 12's kernel {} (once; about 30 MB)",
        version.name()
    );
    // Whole or not at all, and beside another run that fetches it too.
    let new = RunDir::make()?;
    fetch_into(version, &new.path)?;
    match fs::rename(new.path.join("root"), dir) {
        // Another run was faster.
        Err(_) if dir.exists() => Ok(()),
        renamed => Ok(renamed?),
    }
}

fn fetch_into(version: Version, new: &Path) -> Result<()> {
    let apt = Apt::with_suite(&new.join("apt"), version.suite())?;
    let depends = apt.field(META_PACKAGE, "Depends")?;
    let package = kernel_package(&depends)?;
    let archive = apt.download(package)?;
    let root = new.join("root");
    let mut unpack = command("dpkg-deb")?;
    unpack.arg("-x").arg(archive).arg(&root);
    programs::run(unpack)?;
    // Newer packages say `usr/lib`, which is the same place once installed.
    if !root.join("lib").exists() {
        fs::rename(root.join("usr/lib"), root.join("lib"))?;
    }
    let release = package.strip_prefix(PACKAGE_PREFIX).unwrap_or(package);
    index_modules(&root, release)
}

/// The kernel's own package among what the meta package depends on.
fn kernel_package(depends: &str) -> Result<&str> {
    depends
        .split(',')
        .filter_map(|each| each.split_whitespace().next())
        .find(|name| name.starts_with(PACKAGE_PREFIX))
        .with_context(|| {
            format!("{META_PACKAGE} depends on `{depends}`, where a kernel was expected")
        })
}

/// Unpacks packed modules, which is slow in the guest, and writes what modprobe reads: packages
/// leave that to the machine they are installed on.
fn index_modules(root: &Path, release: &str) -> Result<()> {
    let mut packed = Vec::new();
    let mut open = vec![root.join("lib/modules").join(release)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "xz") {
                packed.push(path);
            }
        }
    }
    if !packed.is_empty() {
        let mut unpack = command("xz")?;
        unpack.args(["--decompress", "--"]).args(packed);
        unpack
            .status()
            .context("start `xz` (package xz-utils)")
            .and_then(|status| match status.success() {
                true => Ok(()),
                false => bail!("`xz` ended with {status}"),
            })?;
    }
    let mut index = command("depmod")?;
    index.arg("-b").arg(root).arg(release);
    programs::run(index).context("list the modules (package kmod)")
}

fn unpacked_in(dir: &Path) -> Result<Kernel> {
    let releases = dir.join("lib/modules");
    let modules = fs::read_dir(&releases)
        .with_context(|| format!("read {}", releases.display()))?
        .next()
        .with_context(|| format!("nothing in {}", releases.display()))??
        .path();
    let release = modules
        .file_name()
        .and_then(|name| name.to_str())
        .context("a release that is no text")?
        .to_owned();
    let image = dir.join("boot").join(format!("vmlinuz-{release}"));
    if !image.is_file() {
        bail!("no {}", image.display());
    }
    Ok(Kernel {
        release,
        image,
        modules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_package_is_found_in_what_the_meta_package_depends_on() {
        assert_eq!(
            kernel_package("linux-image-6.1.0-9-cloud-amd64 (= 6.1.27-1)").unwrap(),
            "linux-image-6.1.0-9-cloud-amd64"
        );
        assert_eq!(
            kernel_package("kmod, linux-image-6.12.9+deb12-cloud-amd64 (= 1), x").unwrap(),
            "linux-image-6.12.9+deb12-cloud-amd64"
        );
        assert!(kernel_package("kmod (= 2)").is_err());
    }

    #[test]
    fn a_folder_without_an_image_is_no_kernel() {
        let dir = tempfile::tempdir().unwrap();
        assert!(unpacked_in(dir.path()).is_err());
        fs::create_dir_all(dir.path().join("lib/modules/6.1.0-9")).unwrap();
        assert!(unpacked_in(dir.path()).is_err());
        fs::create_dir(dir.path().join("boot")).unwrap();
        fs::write(dir.path().join("boot/vmlinuz-6.1.0-9"), "").unwrap();
        assert_eq!(unpacked_in(dir.path()).unwrap().release, "6.1.0-9");
    }
}
