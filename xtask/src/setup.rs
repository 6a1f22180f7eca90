//! `cargo xtask setup`: what a fresh Debian 12 with Rust lacks.

use anyhow::{Result, bail};

use crate::programs::{self, cargo, command, is_installed, succeeds};

/// Seconds to wait for another apt to finish.
const APT_LOCK_TIMEOUT_S: u32 = 120;

/// A program, the Debian package it comes in, and what does not work without it.
struct Program {
    name: &'static str,
    package: &'static str,
    without: &'static str,
}

const PROGRAMS: [Program; 6] = [
    Program {
        name: "iptables",
        package: "iptables",
        without: "the iptables mode, its tests and the demo",
    },
    Program {
        name: "ipset",
        package: "ipset",
        without: "rejecting unknown ports of a ClusterIP in iptables mode, and tests of ipset",
    },
    Program {
        name: "nft",
        package: "nftables",
        without: "tests that look at nftables",
    },
    Program {
        name: "conntrack",
        package: "conntrack",
        without: "tests of connection tracking",
    },
    Program {
        name: "ip",
        package: "iproute2",
        without: "every test in network namespaces, the demo and the bench",
    },
    Program {
        name: "sysctl",
        package: "procps",
        without: "looking at kernel switches by hand in the demo",
    },
];

/// Installs what is missing.
///
/// # Errors
/// Something could not be got; the message says what does not work then.
pub(crate) fn run() -> Result<()> {
    let mut lacking = install_packages();
    if let Err(error) = install_cargo_deny() {
        lacking.push(format!("cargo-deny, for the check of licences ({error:#})"));
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

/// Installs packages for missing programs; returns what is missing still.
fn install_packages() -> Vec<String> {
    let missing = || {
        PROGRAMS
            .iter()
            .filter(|program| !is_installed(program.name))
    };
    let packages: Vec<&str> = missing().map(|program| program.package).collect();
    if packages.is_empty() {
        return Vec::new();
    }
    println!("setup: installing {}", packages.join(" "));
    if let Err(error) = apt_install(&packages) {
        eprintln!("setup: {error:#}");
    }
    missing()
        .map(|program| {
            let Program {
                name,
                package,
                without,
            } = program;
            format!("`{name}` (package {package}), without which there is no: {without}")
        })
        .collect()
}

fn apt_install(packages: &[&str]) -> Result<()> {
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
    // The lists of packages may be missing or old; only then they are fetched.
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}

fn install_cargo_deny() -> Result<()> {
    if succeeds(cargo(&["deny", "--version"])?) {
        return Ok(());
    }
    println!("setup: installing cargo-deny (takes some minutes)");
    programs::run(cargo(&["install", "--locked", "cargo-deny"])?)
}
