//! The programs and rights a run needs, checked before anything is built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::place::Family;

/// Which of the two iptables tools the proxy under test finds in its `PATH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IptablesTool {
    /// iptables on nf_tables (`xtables-nft-multi`).
    Nft,
    /// iptables on x_tables (`xtables-legacy-multi`).
    Legacy,
}

const IPTABLES_COMMANDS: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

const SBIN: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

impl IptablesTool {
    /// Both tools.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// The word for reports: `iptables-nft` or `iptables-legacy`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }

    /// The program that is all of the tool's commands in one.
    pub fn multi(self) -> &'static str {
        match self {
            Self::Nft => "xtables-nft-multi",
            Self::Legacy => "xtables-legacy-multi",
        }
    }

    /// The first argument of [`Self::multi`] for a family's `save` or `restore`; `""` for the plain command.
    pub fn applet(self, family: Family, verb: &str) -> String {
        let command = match family {
            Family::IPv4 => "iptables",
            Family::IPv6 => "ip6tables",
        };
        if verb.is_empty() {
            command.to_owned()
        } else {
            format!("{command}-{verb}")
        }
    }

    /// Fills `dir` with links so that a `PATH` made of `dir` alone finds this tool under the usual
    /// names. The host's own choice of alternative stays as it is.
    pub fn link_into(self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let target = find_tool(self.multi())?;
        for command in IPTABLES_COMMANDS {
            symlink(&target, dir.join(command))
                .with_context(|| format!("link {command} into {}", dir.display()))?;
        }
        for other in ["ipset", "modprobe", "nft", "conntrack", "sysctl"] {
            if let Ok(target) = find_tool(other) {
                symlink(&target, dir.join(other))?;
            }
        }
        Ok(())
    }
}

/// Fails unless the process is root.
pub fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "this test needs root (it makes network namespaces): run it by `cargo xtask test`, or with sudo"
    );
}

/// Fails unless every one of `names` is installed.
pub fn require_tools(names: &[&str]) -> Result<()> {
    for name in names {
        find_tool(name)?;
    }
    Ok(())
}

fn find_tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(SBIN)
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
        .with_context(|| {
            format!("the program `{name}` is not installed; `cargo xtask setup` installs it")
        })
}
