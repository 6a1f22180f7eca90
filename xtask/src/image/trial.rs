//! Trying images as a container runtime would run them: unpacked, with a root that can't be
//! written, in namespaces of their own, with no more rights than the manifests give.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::layer::digest;
use super::spec::{ALL, VERSION};
use super::{make, target_dir};
use crate::programs::{self, command, is_installed};

/// What is done in the container's place; it says what each part does.
const SCRIPT: &str = include_str!("trial.sh");

/// Makes images of the debug builds and tries them.
///
/// # Errors
/// Something is not as it must be; the output says what.
pub(crate) fn run() -> Result<()> {
    let work = Work::make()?;
    let binaries = work.path.join("binaries");
    fs::create_dir_all(&binaries)?;
    for image in &ALL {
        strip(
            &target_dir()?.join("debug").join(image.name),
            &binaries.join(image.name),
        )?;
    }
    let once = make(&binaries, &work.path.join("once"))?;
    let again = make(&binaries, &work.path.join("again"))?;
    for (one, other) in once.iter().zip(&again) {
        if digest(&fs::read(one)?) != digest(&fs::read(other)?) {
            bail!("{} is not the same when it is made again", one.display());
        }
    }
    let script = work.path.join("trial.sh");
    fs::write(&script, SCRIPT)?;
    for (image, archive) in ALL.iter().zip(&once) {
        let root = work.path.join(image.name);
        unpack(archive, &root).with_context(|| archive.display().to_string())?;
        let mut trial = command("unshare")?;
        trial
            .args([
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--propagation=private",
            ])
            .args(["sh", "-eu"])
            .args([&script, Path::new(image.name), &root])
            .current_dir(&work.path);
        programs::run(trial).with_context(|| format!("try the image of {}", image.name))?;
    }
    Ok(())
}

/// Without what debuggers want, where that can be: debug builds are ten times as large as others.
fn strip(from: &Path, to: &Path) -> Result<()> {
    if is_installed("strip") {
        let mut strip = command("strip")?;
        strip.arg("-o").args([to, from]);
        return programs::run(strip);
    }
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}

/// Unpacks an archive as runtimes do: index, manifest, config, layers, each by its digest.
fn unpack(archive: &Path, root: &Path) -> Result<()> {
    let layout = root.with_extension("layout");
    for folder in [root, &layout] {
        fs::create_dir_all(folder)?;
    }
    tar(Command::new("tar").arg("-xf").arg(archive), &layout)?;
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let entry = &index["manifests"][0];
    let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
    if name != VERSION {
        bail!("the image is called {name}: expected {VERSION}");
    }
    let manifest: Value = serde_json::from_slice(&fs::read(blob(&layout, entry)?)?)?;
    let config: Value = serde_json::from_slice(&fs::read(blob(&layout, &manifest["config"])?)?)?;
    let diff_ids = config["rootfs"]["diff_ids"]
        .as_array()
        .context("no diff_ids")?;
    let layers = manifest["layers"].as_array().context("no layers")?;
    if diff_ids.len() != layers.len() {
        bail!("{} diff_ids for {} layers", diff_ids.len(), layers.len());
    }
    for layer in layers {
        let layer = blob(&layout, layer)?;
        // The capability of a program is an extended attribute.
        let mut extract = Command::new("tar");
        extract.args(["-xzpf"]).arg(layer);
        extract.args(["--xattrs", "--xattrs-include=security.capability"]);
        tar(&mut extract, root)?;
    }
    // What comes after it is of the trial, not of the image.
    fs::remove_dir_all(layout)?;
    Ok(())
}

fn tar(tar: &mut Command, folder: &Path) -> Result<()> {
    tar.arg("-C").arg(folder);
    let status = tar.status().context("start tar")?;
    if !status.success() {
        bail!("tar ended with {status}");
    }
    Ok(())
}

/// The file of an entry, if it is what the entry says.
fn blob(layout: &Path, entry: &Value) -> Result<PathBuf> {
    let name = entry["digest"]
        .as_str()
        .context("an entry without digest")?;
    let file = layout.join("blobs").join(name.replace(':', "/"));
    let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
    if digest(&bytes) != name || entry["size"] != bytes.len() {
        bail!("{name} is something else, or of another size");
    }
    Ok(file)
}

/// A folder for one trial, gone with it.
struct Work {
    path: PathBuf,
}

impl Work {
    fn make() -> Result<Self> {
        let path = target_dir()?.join(format!("image-trial-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("image: {}: {error}", self.path.display());
        }
    }
}
