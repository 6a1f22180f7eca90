//! `kubectl kustomize` and `helm template`, neither of which asks a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::objects;

/// The namespace that charts are rendered for: the one that Kustomize bases name.
pub const NAMESPACE: &str = "kube-system";

/// The objects of a Kustomize folder.
///
/// # Errors
/// There is no kubectl, or it refuses the folder: what it says.
pub fn kustomize(folder: &Path) -> Result<Vec<Value>> {
    let mut kubectl = command("kubectl")?;
    kubectl.arg("kustomize").arg(folder);
    objects::read(&said(&mut kubectl)?)
}

/// The objects of a Helm chart with these values, as `--set` takes them.
///
/// # Errors
/// There is no helm, or it refuses the chart or the values: what it says.
pub fn helm(chart: &Path, values: &[&str]) -> Result<Vec<Value>> {
    let release = chart
        .parent()
        .and_then(Path::file_name)
        .context("a chart's folder")?;
    let mut helm = command("helm")?;
    helm.arg("template")
        .arg(release)
        .arg(chart)
        .args(["--namespace", NAMESPACE]);
    for value in values {
        helm.args(["--set", value]);
    }
    objects::read(&said(&mut helm)?)
}

/// What `helm lint` finds wrong with a chart.
///
/// # Errors
/// Anything.
pub fn helm_lint(chart: &Path, values: &[&str]) -> Result<()> {
    let mut helm = command("helm")?;
    helm.args(["lint", "--strict", "--quiet"]).arg(chart);
    for value in values {
        helm.args(["--set", value]);
    }
    said(&mut helm).map(drop)
}

/// What a command prints.
///
/// # Errors
/// It can't be started, or fails: with what it said.
pub fn said(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        bail!(
            "{program}: {status}\n{text}{}",
            String::from_utf8_lossy(&stderr)
        );
    }
    Ok(text)
}

/// A program that `cargo xtask setup` fetched, with a home of its own: neither it nor we read or
/// write what the user has.
fn command(name: &str) -> Result<Command> {
    let program = find(name)?;
    let home = program.with_file_name("home");
    fs::create_dir_all(&home)?;
    let mut command = Command::new(program);
    command.env_remove("KUBECONFIG").env("HOME", home);
    Ok(command)
}

fn find(name: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let program = target.join("tools").join(name);
    if !program.is_file() {
        bail!(
            "no {name} in {}: `cargo xtask setup` fetches it",
            target.display()
        );
    }
    Ok(program)
}
