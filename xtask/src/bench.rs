//! `cargo xtask bench …`.

pub(crate) mod dns;
pub(crate) mod ipvs;
pub(crate) mod path;
pub(crate) mod proxy;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::programs::{self, cargo, root};

/// The stand-in API server's program.
const API_SERVER: &str = "standin-apiserver";

/// Builds a package, or one program of it, in the release profile.
fn build_release(package: &str, program: Option<&str>) -> Result<()> {
    let mut arguments = vec!["build", "--quiet", "--release", "-p", package];
    if let Some(program) = program {
        arguments.extend(["--bin", program]);
    }
    programs::run(cargo(&arguments)?)
}

/// A program of the release build.
fn release(name: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || root().map(|root| root.join("target")),
        |dir| Ok(Path::new(&dir).to_owned()),
    )?;
    Ok(target.join("release").join(name))
}
