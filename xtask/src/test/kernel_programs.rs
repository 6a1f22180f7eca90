//! The checks of the kernel programs, which are a workspace of their own: those of the main
//! workspace don't see them.

use anyhow::Result;

use crate::programs::{self, cargo};

const MANIFEST: &str = "ebpf/programs/Cargo.toml";
/// As the proxy's build.rs has it. Either byte order is checked alike.
const TARGET: &str = "bpfel-unknown-none";
/// Beside what the proxy's build.rs keeps: flags differ.
const TARGET_DIR: &str = "target/programs";
/// aya wants to know whose kernel the programs are for.
const FLAGS: &str = "--cfg=bpf_target_arch=\"x86_64\"";

/// How they are formatted.
///
/// # Errors
/// Something is not as rustfmt has it.
pub(super) fn format() -> Result<()> {
    programs::run(cargo(&["fmt", "--manifest-path", MANIFEST, "--check"])?)
}

/// Lints. `core` is built from source for the target, which is not stable yet.
///
/// # Errors
/// A lint found something, or rustc's sources are missing.
pub(super) fn lints() -> Result<()> {
    for features in ["", "log"] {
        lint(features)?;
    }
    Ok(())
}

fn lint(features: &str) -> Result<()> {
    let mut clippy = cargo(&["clippy", "--locked", "--manifest-path", MANIFEST])?;
    clippy
        .args(["--target-dir", TARGET_DIR, "--target", TARGET])
        .args(["--features", features])
        .args(["-Z", "build-std=core", "--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS);
    programs::run(clippy)
}

/// What they are built of.
///
/// # Errors
/// A licence, a crate or a source that deny.toml does not let in.
pub(super) fn licences() -> Result<()> {
    // Most of what deny.toml lets through is in the other workspace only.
    let mut deny = cargo(&["deny", "--manifest-path", MANIFEST, "check"])?;
    deny.args(["--allow", "unmatched-skip", "licenses", "bans", "sources"]);
    programs::run(deny)
}
