//! Files of Debian packages, and of these what a program needs.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::files::{File, Kind};
use crate::programs::{self, command, is_installed};
use crate::vm::apt;

/// Where public authorities' certificates are in their package, and where programs look for them.
const CERTIFICATES: &str = "usr/share/ca-certificates/mozilla/";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// The files of these packages and of those they need, of Debian 12 as this machine's apt gets it.
///
/// # Errors
/// There is no mmdebstrap, or it fails.
pub(super) fn files(packages: &[&str], epoch: u64) -> Result<Vec<File>> {
    if !is_installed("mmdebstrap") {
        bail!("no `mmdebstrap` here: `cargo xtask setup` installs it");
    }
    let work = super::target_dir()?.join(format!("image-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let done = extract(packages, epoch, &work).and_then(|()| read(&work.join("files.tar")));
    fs::remove_dir_all(&work)?;
    done
}

/// Unpacks packages without running anything of them (`--variant=extract`).
fn extract(packages: &[&str], epoch: u64, work: &Path) -> Result<()> {
    let mut extract = command("mmdebstrap")?;
    extract
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("LC_ALL", "C")
        .args(["--quiet", "--variant=extract"])
        .arg(format!("--include={}", packages.join(",")));
    for setting in settings()? {
        let mut option = OsString::from("--aptopt=");
        option.push(setting);
        extract.arg(option);
    }
    extract
        .args([apt::BASE_SUITE, "files.tar"])
        .current_dir(work);
    extract.args(apt::files_with_base_suite()?);
    programs::run(extract)
}

/// What this machine's apt is told of how to get there: proxies, time-outs and the like.
fn settings() -> Result<Vec<String>> {
    let output = command("apt-config")?.arg("dump").output()?;
    let text = String::from_utf8(output.stdout).context("apt-config dump")?;
    let is_way = |line: &&str| {
        [
            "Acquire::http::",
            "Acquire::https::",
            "Acquire::ftp::",
            "Acquire::Retries",
        ]
        .iter()
        .any(|start| line.starts_with(start))
    };
    Ok(text.lines().filter(is_way).map(str::to_owned).collect())
}

/// The files of a tar archive that are kept.
fn read(archive: &Path) -> Result<Vec<File>> {
    let mut archive = tar::Archive::new(fs::File::open(archive)?);
    let mut files = Vec::new();
    let mut certificates = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let path = path.trim_start_matches("./");
        if path.starts_with(CERTIFICATES) && entry.header().entry_type().is_file() {
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            certificates.push((path.to_owned(), text));
        } else if is_kept(path) {
            files.extend(file(path, &mut entry)?);
        }
    }
    if certificates.is_empty() {
        bail!("the packages have no {CERTIFICATES}");
    }
    certificates.sort();
    let bundle = certificates
        .into_iter()
        .flat_map(|(_, text)| text)
        .collect();
    files.push(File::new(BUNDLE, Kind::Regular(bundle)));
    Ok(files)
}

/// A file or link; folders come with what is in them.
fn file(path: &str, entry: &mut tar::Entry<'_, fs::File>) -> Result<Option<File>> {
    let kind = match entry.header().entry_type() {
        kind if kind.is_file() => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            Kind::Regular(bytes)
        }
        kind if kind.is_symlink() => {
            let target = entry
                .link_name()?
                .with_context(|| format!("{path}: a link to nothing"))?;
            Kind::Link(target.to_string_lossy().into_owned())
        }
        kind if kind.is_dir() => return Ok(None),
        kind => bail!("{path}: {kind:?}: expected a file, a link or a folder"),
    };
    let mode = entry.header().mode()? & 0o777;
    Ok(Some(File {
        mode,
        ..File::new(path, kind)
    }))
}

/// Libraries, the programs we call, what /etc tells them, and licences. No shell, no package
/// manager, no other program.
fn is_kept(path: &str) -> bool {
    let is_library =
        path.starts_with("lib/") || path.starts_with("lib64/") || path.starts_with("usr/lib/");
    if is_library {
        let is_part = path.contains(".so") || path == "usr/lib/os-release";
        let is_other = [
            "/gconv/",
            "/ossl-modules/",
            "/engines-3/",
            "/audit/",
            "libssl",
            "libcrypto",
        ]
        .iter()
        .any(|part| path.contains(part));
        return is_part && !is_other;
    }
    let is_licence = path.starts_with("usr/share/doc/") && path.ends_with("/copyright")
        || path.starts_with("usr/share/common-licenses/");
    let is_program = [
        "usr/sbin/xtables-nft-multi",
        "usr/sbin/xtables-legacy-multi",
    ]
    .contains(&path);
    let is_told = [
        "etc/debian_version",
        "etc/ethertypes",
        "etc/ld.so.conf",
        "etc/os-release",
        "etc/protocols",
        "etc/services",
    ]
    .contains(&path)
        || path.starts_with("etc/ld.so.conf.d/");
    is_licence || is_program || is_told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_licences_are_kept_and_programs_are_not() {
        for path in [
            "lib/x86_64-linux-gnu/libc.so.6",
            "lib64/ld-linux-x86-64.so.2",
            "usr/lib/x86_64-linux-gnu/xtables/libxt_comment.so",
            "usr/lib/x86_64-linux-gnu/libxtables.so.12.7.0",
            "usr/lib/os-release",
            "usr/sbin/xtables-nft-multi",
            "usr/share/doc/libc6/copyright",
            "etc/protocols",
        ] {
            assert!(is_kept(path), "{path}");
        }
        for path in [
            "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
            "usr/lib/x86_64-linux-gnu/libssl.so.3",
            "usr/lib/x86_64-linux-gnu/perl-base/POSIX.pm",
            "usr/bin/openssl",
            "usr/sbin/iptables-apply",
            "usr/share/doc/libc6/changelog.gz",
            "etc/apt/sources.list",
            "var/lib/dpkg/status",
        ] {
            assert!(!is_kept(path), "{path}");
        }
    }
}
