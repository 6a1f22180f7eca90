//! `cargo xtask setup`: what a fresh Debian 12 with Rust lacks.

mod cluster_tools;
mod ebpf;
mod needed;
mod services;

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use self::needed::{FOR_BENCH, FOR_LOOKING, FOR_TESTS, FOR_VM, Program};
use self::services::{NoStart, disable, has_service};
use crate::programs::{self, cargo, command, is_installed, succeeds};
use crate::vm::kernel::{self, Version};

/// Seconds to wait for another apt to finish.
const APT_LOCK_TIMEOUT_S: u32 = 120;

/// How much is set up.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also what `cargo xtask bench dns` needs: dnsperf, nsd, knot
    #[arg(long)]
    bench: bool,
}

/// `cargo xtask setup`.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with(options: &Options) -> Result<()> {
    if options.bench { for_bench() } else { run() }
}

/// Installs what the build, tests and demo need and is missing.
///
/// # Errors
/// Something could not be got; the message says what does not work then.
pub(crate) fn run() -> Result<()> {
    install(&FOR_TESTS.iter().collect::<Vec<_>>())
}

/// As [`run`], and what only the DNS bench needs.
///
/// # Errors
/// As [`run`].
pub(crate) fn for_bench() -> Result<()> {
    install(&FOR_TESTS.iter().chain(&FOR_BENCH).collect::<Vec<_>>())
}

fn install(programs: &[&Program]) -> Result<()> {
    let mut lacking = install_packages(programs);
    lacking.extend(ebpf::install());
    lacking.extend(cluster_tools::install());
    // Not lacking either: without these no check fails.
    for optional in [&FOR_LOOKING[..], &FOR_VM] {
        for missing in install_packages(&optional.iter().collect::<Vec<_>>()) {
            eprintln!("setup: no {missing}; the rest works");
        }
    }
    fetch_kernels();
    if let Err(error) = install_cargo("deny", "some minutes") {
        lacking.push(format!("cargo-deny, for the check of licences ({error:#})"));
    }
    // Not lacking: what needs it says that it is left out.
    if let Err(error) = install_cargo("fuzz", "a minute or two") {
        eprintln!("setup: no cargo-fuzz, so the tests will leave fuzzing out ({error:#})");
    }
    for (component, arguments) in [
        ("rustfmt", ["fmt", "--version"]),
        ("clippy", ["clippy", "--version"]),
    ] {
        if !succeeds(cargo(&arguments)?) {
            lacking.push(format!(
                "{component}, for `cargo xtask test` (`rustup component add {component}`)"
            ));
        }
    }
    if lacking.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    bail!("setup could not get:\n  - {}", lacking.join("\n  - "))
}

/// Fetches the kernels of `cargo xtask vm`; where one can't be had, that is said.
fn fetch_kernels() {
    for version in Version::ALL {
        if let Err(error) = kernel::fetch_missing(version) {
            eprintln!(
                "setup: no kernel {0}, so there is no `cargo xtask vm --kernel {0}`; the rest \
                 works ({error:#})",
                version.name()
            );
        }
    }
}

/// Installs packages for missing programs; returns what is missing still.
fn install_packages(programs: &[&Program]) -> Vec<String> {
    let missing = || {
        programs
            .iter()
            .filter(|program| !is_installed(program.name))
    };
    let packages: BTreeSet<&str> = missing().map(|program| program.package).collect();
    if packages.is_empty() {
        return Vec::new();
    }
    let packages: Vec<&str> = packages.into_iter().collect();
    let services: Vec<&str> = missing().filter_map(|program| program.service).collect();
    println!("setup: installing {}", packages.join(" "));
    if !services.is_empty() {
        println!(
            "setup: the services of {} are not started, and are disabled for the next boot; \
             their packages add a system user each",
            services.join(", ")
        );
    }
    if let Err(error) = apt_install(&packages, &services) {
        eprintln!("setup: {error:#}");
    }
    missing()
        .map(|program| {
            format!(
                "`{}` (package {}), without which there is no: {}",
                program.name, program.package, program.without
            )
        })
        .collect()
}

/// Installs packages; those of `services` without starting them.
fn apt_install(packages: &[&str], services: &[&str]) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "not root: run `apt-get install {}` as root",
            packages.join(" ")
        );
    }
    if !is_installed("apt-get") {
        bail!(
            "no apt-get here: install {} your system's way",
            packages.join(", ")
        );
    }
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut apt = command("apt-get")?;
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-y", "-o"])
            .arg(format!("DPkg::Lock::Timeout={APT_LOCK_TIMEOUT_S}"))
            .args(arguments);
        programs::run(apt)
    };
    let install: Vec<&str> = ["install", "--no-install-recommends"]
        .iter()
        .chain(packages)
        .copied()
        .collect();
    let _no_start = NoStart::begin()?;
    // The lists of packages may be missing or old; only then they are fetched.
    let installed = apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)));
    // Also after a failure: some may have been installed.
    let there: Vec<&str> = services
        .iter()
        .copied()
        .filter(|service| has_service(service))
        .collect();
    installed.and(disable(&there))
}

/// Installs a subcommand of cargo, unless it is there.
fn install_cargo(subcommand: &str, takes: &str) -> Result<()> {
    if succeeds(cargo(&[subcommand, "--version"])?) {
        return Ok(());
    }
    println!("setup: installing cargo-{subcommand} (takes {takes})");
    let package = format!("cargo-{subcommand}");
    programs::run(cargo(&["install", "--locked", &package])?)
}
