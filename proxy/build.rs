//! Builds the kernel programs, which the agent carries in itself.
//!
//! They are a workspace of their own, for the kernel's virtual machine. Its standard library is
//! built from rustc's own sources, by the compiler that builds everything else; the linker is
//! bpf-linker. `cargo xtask setup` gets both.
//!
//! Debug builds of the agent carry them twice: as all builds do, and once more with lines for the
//! log (`cfg(kernel_log)`).

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// A finished object file to take instead of building one.
const OBJECT: &str = "SWITCHYARD_EBPF_OBJECT";
/// What separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";
/// The feature of the programs that logs.
const LOG: &str = "log";

fn main() -> ExitCode {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let ebpf = manifest.with_file_name("ebpf");
    for watched in [
        "programs/src",
        "programs/Cargo.toml",
        "programs/Cargo.lock",
        "datapath/src",
    ] {
        println!("cargo::rerun-if-changed={}", ebpf.join(watched).display());
    }
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rustc-check-cfg=cfg(kernel_log)");
    match make_all(&ebpf.join("programs"), &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!(
                "cargo::error=the kernel programs can't be built: {error}. \
                 `cargo xtask setup` installs what that needs (rust-src and bpf-linker)"
            );
            ExitCode::FAILURE
        }
    }
}

fn make_all(programs: &Path, out: &Path) -> Result<(), String> {
    if let Some(path) = env::var_os(OBJECT) {
        return copy(Path::new(&path), &out.join("programs.o"));
    }
    copy(&build(programs, out, &[])?, &out.join("programs.o"))?;
    // Not what CARGO_CFG_DEBUG_ASSERTIONS says: that is there in every profile.
    if env::var("PROFILE").as_deref() == Ok("debug") {
        let with_log = build(programs, out, &["--features", LOG])?;
        copy(&with_log, &out.join("programs-log.o"))?;
        println!("cargo::rustc-cfg=kernel_log");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = std::fs::copy(from, to);
    copied
        .map(drop)
        .map_err(|error| format!("{}: {error}", from.display()))
}

fn build(programs: &Path, out: &Path, features: &[&str]) -> Result<PathBuf, String> {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let target_dir = out.join("programs");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        // Needs Linux 5.1, like much else here.
        "-Ctarget-cpu=v3".to_owned(),
        // The maps' key and value types, and readable verifier logs.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!(
            "--remap-path-prefix={}=ebpf",
            programs.with_file_name("").display()
        ),
    ];
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(programs)
        .args([
            "build",
            "--release",
            "--locked",
            "-Z",
            "build-std=core",
            "--target",
            target,
        ])
        .args(features)
        .arg("--target-dir")
        .arg(&target_dir)
        // Building the standard library is not stable yet.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR));
    // What cargo set for this build would be taken for wishes about that one.
    for name in [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
    ] {
        command.env_remove(name);
    }
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(target_dir.join(target).join("release/switchyard-programs"));
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let tail: Vec<&str> = said.lines().rev().take(40).collect();
    for line in tail.iter().rev() {
        println!("cargo::warning={line}");
    }
    Err(format!("cargo ended with {}", output.status))
}
