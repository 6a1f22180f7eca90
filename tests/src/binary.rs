//! Finding the built programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The program `name` (`switchyard-proxy`, `switchyard-dns`): what the environment variable
/// `SWITCHYARD_PROXY_BIN` or `SWITCHYARD_DNS_BIN` names, else the newest of the workspace's debug
/// and release builds.
///
/// # Errors
/// There is none; the message says how to build it.
pub fn find(name: &str) -> Result<PathBuf> {
    let variable = format!("{}_BIN", name.to_ascii_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(&variable) {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        bail!("{variable} names {}, which is no file", path.display());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let built = |profile: &str| {
        let path = target.join(profile).join(name);
        let time = fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .ok()?;
        Some((time, path))
    };
    let newest = [built("debug"), built("release")]
        .into_iter()
        .flatten()
        .max();
    let (_, path) = newest.with_context(|| {
        format!(
            "no {name} in {}: run `cargo build -p {name}` first",
            target.display()
        )
    })?;
    Ok(path.canonicalize()?)
}
