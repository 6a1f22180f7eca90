//! The fuzz targets, each for a short time. Their kept corpus is read by ordinary tests.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::programs::{self, cargo, is_installed, root, succeeds};

/// The crates with the targets: each a workspace of its own.
const CRATES: [&str; 2] = ["dns/fuzz", "netlink/fuzz"];
/// Where what was built and found goes.
const TARGET_DIR: &str = "target/fuzz";
/// How long each target runs.
const SECONDS_PER_TARGET: u32 = 30;
/// An input that takes longer has hung.
const INPUT_LIMIT_S: u32 = 10;
/// More memory than this is a leak.
const MEMORY_LIMIT_MB: u32 = 1024;

/// Builds all targets and runs each, or says why not.
///
/// # Errors
/// A target does not build, or an input made one fail: the message names the input's file.
pub(super) fn run() -> Result<()> {
    if let Some(reason) = missing()? {
        println!("SKIPPED, nothing was fuzzed: {reason}");
        return Ok(());
    }
    CRATES.into_iter().try_for_each(all_of)
}

/// The targets of one crate.
fn all_of(of: &str) -> Result<()> {
    let listed = cargo(&["fuzz", "list", "--fuzz-dir", of])?
        .output()
        .context("list the fuzz targets")?;
    let listed = String::from_utf8(listed.stdout)?;
    let targets: Vec<&str> = listed.split_whitespace().collect();
    anyhow::ensure!(!targets.is_empty(), "no fuzz target in {of}");
    fuzz(of, "build", &[])?;
    for target in targets {
        println!("fuzzing {target} of {of} for {SECONDS_PER_TARGET} s");
        one(of, target).with_context(|| format!("fuzz target {target}"))?;
    }
    Ok(())
}

/// What stands in the way of fuzzing here.
fn missing() -> Result<Option<&'static str>> {
    if !succeeds(cargo(&["fuzz", "--version"])?) {
        return Ok(Some(
            "cargo-fuzz is not installed (`cargo xtask setup` tries to)",
        ));
    }
    if !is_installed("c++") {
        return Ok(Some(
            "libFuzzer needs a C++ compiler, and there is no `c++`",
        ));
    }
    Ok(None)
}

fn one(of: &str, target: &str) -> Result<()> {
    // Finds are kept on this machine, beside the build; the repository's corpus is only read.
    let found = root()?.join(TARGET_DIR).join("found").join(target);
    let artifacts = root()?.join(TARGET_DIR).join("failed").join(target);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let kept = root()?.join(of).join("corpus").join(target);
    let text = |path: &Path| path.display().to_string();
    fuzz(
        of,
        "run",
        &[
            target.to_owned(),
            text(&found),
            text(&kept),
            "--".to_owned(),
            format!("-max_total_time={SECONDS_PER_TARGET}"),
            format!("-timeout={INPUT_LIMIT_S}"),
            format!("-rss_limit_mb={MEMORY_LIMIT_MB}"),
            format!("-artifact_prefix={}/", text(&artifacts)),
            "-print_final_stats=1".to_owned(),
            "-print_funcs=0".to_owned(),
            "-verbosity=0".to_owned(),
        ],
    )
}

/// One command of cargo-fuzz. Safe Rust needs no sanitizer: what must not happen is a panic.
fn fuzz(of: &str, command: &str, arguments: &[String]) -> Result<()> {
    let target_dir = root()?.join(TARGET_DIR).display().to_string();
    let mut fuzz = cargo(&["fuzz", command, "--sanitizer", "none"])?;
    fuzz.args(["--fuzz-dir", of, "--target-dir", &target_dir])
        .args(arguments)
        // Coverage is counted by options that a stable compiler has but does not promise.
        .env("RUSTC_BOOTSTRAP", "1");
    programs::run(fuzz)
}
