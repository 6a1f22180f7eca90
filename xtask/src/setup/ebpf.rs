//! The toolchain of the eBPF programs: rustc's sources and `bpf-linker`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::programs::{self, cargo, command, is_installed};

/// The only version of `bpf-linker` the programs are built with: what a linker makes of them
/// decides whether the kernel's verifier takes them.
const LINKER_VERSION: &str = "0.10.3";

/// What does not work without this toolchain.
const WITHOUT: &str = "without which the eBPF programs, and so the proxy, cannot be built";

/// Installs what is missing; returns what is missing still.
pub(super) fn install() -> Vec<String> {
    let mut lacking = Vec::new();
    if let Err(error) = install_sources() {
        lacking.push(format!("the sources of `core`, {WITHOUT} ({error:#})"));
    }
    if let Err(error) = install_linker() {
        lacking.push(format!(
            "bpf-linker {LINKER_VERSION}, {WITHOUT} ({error:#})"
        ));
    }
    lacking
}

/// `core` is built from source for the eBPF target, which rustup has no ready-made `core` for.
fn install_sources() -> Result<()> {
    let sysroot = sysroot()?;
    if has_sources(&sysroot) {
        return Ok(());
    }
    let sources = sources_in(&sysroot);
    if !is_installed("rustup") {
        bail!(
            "no rustup here: install the sources of your rustc your system's way, so that {} \
             exists",
            sources.display()
        );
    }
    println!("setup: installing rust-src");
    let mut rustup = command("rustup")?;
    rustup.args(["component", "add", "rust-src"]);
    programs::run(rustup)?;
    if !has_sources(&sysroot) {
        bail!(
            "rustup added rust-src, but there is no {}",
            sources.display()
        );
    }
    Ok(())
}

/// Where the rustc that builds this workspace has its files.
fn sysroot() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = command(rustc)?;
    let said = said_by(rustc.args(["--print", "sysroot"])).context("ask rustc for its sysroot")?;
    Ok(PathBuf::from(said))
}

fn sources_in(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

fn has_sources(sysroot: &Path) -> bool {
    // The lock file too: cargo needs it to build `core`, and some packages leave it out.
    sources_in(sysroot).join("Cargo.lock").is_file()
}

fn install_linker() -> Result<()> {
    if has_linker() {
        return Ok(());
    }
    println!("setup: installing bpf-linker {LINKER_VERSION} (takes 3 minutes or more)");
    let package = format!("bpf-linker@{LINKER_VERSION}");
    programs::run(cargo(&["install", "--locked", &package])?)?;
    if !has_linker() {
        bail!(
            "cargo installed it, but `bpf-linker` on PATH is not it: put cargo's folder of \
             programs (~/.cargo/bin unless set otherwise) first on PATH"
        );
    }
    Ok(())
}

fn has_linker() -> bool {
    command("bpf-linker")
        .and_then(|mut linker| said_by(linker.arg("--version")))
        .is_ok_and(|said| is_wanted(&said))
}

/// Whether `bpf-linker --version` said the version we want.
fn is_wanted(said: &str) -> bool {
    said.split_whitespace().nth(1) == Some(LINKER_VERSION)
}

/// What a command writes, without the last line's end.
fn said_by(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("it ended with {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_version_of_the_linker_will_do() {
        assert!(is_wanted("bpf-linker 0.10.3"));
        assert!(!is_wanted("bpf-linker 0.10.30"));
        assert!(!is_wanted("bpf-linker 0.9.15"));
        assert!(!is_wanted(""));
    }

    #[test]
    fn a_sysroot_without_the_lock_file_has_no_sources() {
        let sysroot = tempfile::tempdir().unwrap();
        let library = sources_in(sysroot.path());
        std::fs::create_dir_all(&library).unwrap();
        assert!(!has_sources(sysroot.path()));
        std::fs::write(library.join("Cargo.lock"), "").unwrap();
        assert!(has_sources(sysroot.path()));
    }
}
