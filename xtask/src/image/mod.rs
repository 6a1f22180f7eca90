//! `cargo xtask image`: an OCI image of each program, made of Debian's packages and our binary.
//! No daemon is needed, and nothing runs in the image while it is made.

mod archive;
mod debian;
mod files;
mod layer;
mod spec;
pub(crate) mod trial;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::archive::Archive;
use self::layer::Layer;
use self::spec::{ALL, Image};
use crate::programs::{self, cargo, command, root};

/// How large an archive may be, in bytes: it holds the layers compressed, so this is what a node
/// downloads.
const ARCHIVE_MAX: u64 = 60_000_000;

/// What to make.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A folder with finished programs, in place of a release build
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Where the archives go: `target/image` by default
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Make images of the debug builds, run them as a container runtime would, and keep nothing
    /// (needs root)
    #[arg(long = "try", conflicts_with_all = ["binaries", "output"])]
    try_them: bool,
}

/// Makes both images and says where they are.
///
/// # Errors
/// A program that is needed is missing, packages can't be had, or an archive gets too large.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.try_them {
        return trial::run();
    }
    let binaries = match &options.binaries {
        Some(folder) => std::env::current_dir()?.join(folder),
        None => build_release()?,
    };
    let output = match &options.output {
        Some(folder) => std::env::current_dir()?.join(folder),
        None => target_dir()?.join("image"),
    };
    for file in make(&binaries, &output)? {
        println!(
            "{}: {:.1} MB",
            file.display(),
            megabytes(fs::metadata(&file)?.len())
        );
    }
    Ok(())
}

/// Makes the image of each program in `binaries`; returns the archives.
pub(crate) fn make(binaries: &Path, output: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(output).with_context(|| format!("make {}", output.display()))?;
    let epoch = epoch()?;
    let revision = said("git", &["rev-parse", "HEAD"]).unwrap_or_default();
    ALL.iter()
        .map(|image| {
            let file = output.join(format!("{}-{}.oci.tar", image.name, spec::VERSION));
            let size = make_one(image, binaries, &file, epoch, &revision)
                .with_context(|| format!("the image of {}", image.name))?;
            if size > ARCHIVE_MAX {
                bail!(
                    "{} has {:.1} MB: expected {:.0} at most",
                    file.display(),
                    megabytes(size),
                    megabytes(ARCHIVE_MAX)
                );
            }
            Ok(file)
        })
        .collect()
}

/// The base, which changes with Debian only, is a layer of its own: nodes keep it when the program
/// changes.
fn make_one(
    image: &Image,
    binaries: &Path,
    file: &Path,
    epoch: u64,
    revision: &str,
) -> Result<u64> {
    let binary = binaries.join(image.name);
    let program = fs::read(&binary).with_context(|| format!("read {}", binary.display()))?;
    let base = debian::files(image.packages, epoch)?;
    let layers = [
        Layer::of("Debian packages", &base, epoch)?,
        Layer::of("switchyard", &image.own_files(program), epoch)?,
    ];
    let archive = Archive::new(image, &layers, epoch, revision)?;
    archive.write(file, epoch)?;
    Ok(fs::metadata(file)?.len())
}

fn build_release() -> Result<PathBuf> {
    let mut build = cargo(&["build", "--release"])?;
    for image in &ALL {
        build.args(["-p", image.name]);
    }
    programs::run(build)?;
    Ok(target_dir()?.join("release"))
}

/// The time that everything in the image carries, in seconds since 1970: so that the same source
/// and packages make the same image.
fn epoch() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH: {given:?}: expected seconds since 1970"));
    }
    // Outside of a repository any time will do, as long as it is always the same.
    Ok(said("git", &["log", "-1", "--format=%ct"])
        .and_then(|text| text.parse().ok())
        .unwrap_or(0))
}

/// The line that a command prints, if it succeeds.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = command(program).ok()?.args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn target_dir() -> Result<PathBuf> {
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::env::current_dir()?.join(dir),
        None => root()?.join("target"),
    })
}

fn megabytes(bytes: u64) -> f64 {
    // Exact up to 4 TB.
    u32::try_from(bytes / 1000).map_or(f64::INFINITY, f64::from) / 1000.0
}
