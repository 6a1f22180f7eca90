//! The kernel programs on other kernels than this machine's, in guests of `cargo xtask vm`: every
//! kernel's verifier takes them, and they do what they should. And IPVS and ipset there: few
//! machines that tests run on have IPVS.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Counts, PRIVILEGED, count_results};
use crate::programs::{cargo, command, find, is_installed, root, shown};
use crate::vm::kernel::{Version, fetch_missing};

/// The kernel that has programs at devices by filters (clsact), as all before 6.6.
const WITH_FILTERS: Version = Version::V6_1;
/// Cases that are run there, by parts of their names: all places, refusals, and programs that take
/// the place of others. Each start of a proxy takes 10 s or more there, for verifying.
const CASES: &str = "b-clusterip: every place|c-no-endpoints|p-restart: changes";
/// The test of filters that come and go.
const FILTERS: &str = "a_port_of_a_bridge_has_no_programs";
/// Tests of netlink families, by parts of their names: all of IPVS, which are ignored elsewhere. One
/// at a time: the kernel counts the services of all namespaces where it goes on with a list, so what
/// comes and goes in one has another list a service twice, or not at all.
const IPVS: [&str; 3] = ["ipvs::", "--include-ignored", "--test-threads=1"];
/// What is added to those on the older kernel: ipset, without the test that takes as long as all
/// others.
const IPSET: [&str; 3] = ["ipset", "--skip", "seventy_thousand"];
/// Cases that are run in ipvs mode on the older kernel, by parts of their names: every kind of address
/// and of refusal, policies, and what a change or another proxy leaves.
const IPVS_CASES: &str = "a-policies: A01|b-clusterip: every place|c-no-endpoints: C01-C06: no slice\
    |d-source-ranges: D01|e-external-policy: E15|f-internal-policy: F04|i-hairpin|j-flows: UDP stays\
    |l-addresses: an external address|p-restart: changes";
/// The file of cases that is run in ipvs mode over iptables-legacy.
const LEGACY_CASES: &str = "e-external-policy";
/// How many generated clusters are tried in ipvs mode.
const IPVS_CLUSTERS: &str = "3";
/// Parts of the names of the tests of what only ipvs mode does that look at others' state and hands; the
/// rest go to a guest of their own, so that none takes too long.
const IPVS_OTHERS: [&str; 2] = ["others::", "what_others"];
/// The test of these that is run by hand: it takes as long as two others.
const IPVS_BY_HAND: &str = "what_other_namespaces_change";
/// What test programs are to do where only what needs IPVS is run.
const IGNORED: [&str; 3] = ["--ignored", "--nocapture", "--test-threads=1"];
/// The program that tests of IPVS look at it with, and its package.
const IPVS_TOOL: &str = "ipvsadm";
/// A guest's end, in seconds; none takes half of it on two idle processors.
const GUEST_SECONDS: u32 = 600;
/// The guests' memory, in MiB: their files are in it, unstripped programs among them.
const GUEST_MEMORY_MIB: u32 = 2048;
/// The program that runs now: its file may have been replaced by the build that went before.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Programs that guests need.
const NEEDED: [(&str, &str); 2] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
];

/// Runs the programs' own tests on every kernel that can be had, and some cases on the oldest. What
/// can't be run is said, and is no failure.
///
/// # Errors
/// A test failed, or did not end in time.
pub(super) fn run(counts: &mut Counts) -> Result<()> {
    for (program, package) in NEEDED {
        if !is_installed(program) {
            println!(
                "SKIPPED, the programs were run on this machine's kernel only, and nothing on one \
                 with IPVS: there is no `{program}` (`cargo xtask setup` installs it, package \
                 {package})"
            );
            return Ok(());
        }
    }
    let mut kernels = Vec::new();
    for version in Version::ALL {
        match fetch_missing(version) {
            Ok(()) => kernels.push(version),
            Err(error) => println!("SKIPPED on Linux {}: {error:#}", version.name()),
        }
    }
    if kernels.is_empty() {
        return Ok(());
    }
    if !is_installed(IPVS_TOOL) {
        println!(
            "SKIPPED, nothing is run with IPVS: there is no `{IPVS_TOOL}` (`cargo xtask setup` \
             installs it, package {IPVS_TOOL})"
        );
    }
    let programs = test_binary("switchyard-proxy", "programs")?;
    let cases = test_binary("switchyard-tests", "cases")?;
    let ebpf = test_binary("switchyard-tests", "ebpf")?;
    let ipvs = test_binary("switchyard-tests", "ipvs")?;
    let generated = test_binary("switchyard-tests", "generated")?;
    let netlink = test_binary("switchyard-netlink", "privileged")?;
    let proxy = switchyard_tests::binary::find("switchyard-proxy")?;
    let all = [
        &programs, &cases, &ebpf, &ipvs, &generated, &netlink, &proxy,
    ];
    let stripped = Stripped::of(&all.map(PathBuf::as_path))?;
    let proxy = stripped.path(&proxy)?;
    let files = [root()?.join("tests/cases"), proxy.clone()];
    let mut failed = Vec::new();
    for version in kernels {
        let mut runs = vec![guest(version, &[], &stripped.path(&programs)?, &[])?];
        if version == WITH_FILTERS {
            for (binary, test) in [(&cases, "every_case_on_ebpf"), (&ebpf, FILTERS)] {
                // One at a time: the verifier takes a while there, and a start has its limit.
                let arguments = [test, "--nocapture", "--test-threads=1"];
                let mut run = guest(version, &files, &stripped.path(binary)?, &arguments)?;
                run.env("SWITCHYARD_PROXY_BIN", &proxy);
                run.env("SWITCHYARD_CASES", CASES);
                runs.push(run);
            }
        }
        if is_installed(IPVS_TOOL) {
            runs.push(families(version, &stripped.path(&netlink)?)?);
            if version == WITH_FILTERS {
                let tests = IpvsTests {
                    cases: &stripped.path(&cases)?,
                    generated: &stripped.path(&generated)?,
                    ipvs: &stripped.path(&ipvs)?,
                };
                let mut files = files.to_vec();
                files.push(steps_program(&ipvs)?);
                runs.extend(ipvs_mode(version, &files, &proxy, &tests)?);
            }
        }
        for run in runs {
            println!("-- on Linux {}: {}", version.name(), shown(&run));
            failed.extend(count_results(run, counts).err());
        }
    }
    match failed.into_iter().next() {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// The tests of netlink families in a guest.
fn families(version: Version, binary: &Path) -> Result<Command> {
    let mut families = guest(version, &[], binary, &IPVS)?;
    if version == WITH_FILTERS {
        families.args(IPSET);
    }
    Ok(families)
}

/// Test programs that have something to run in ipvs mode.
struct IpvsTests<'a> {
    cases: &'a Path,
    generated: &'a Path,
    ipvs: &'a Path,
}

/// The program that a test has end a proxy, where cargo told the test that it is.
fn steps_program(test: &Path) -> Result<PathBuf> {
    let built = test.parent().and_then(Path::parent);
    Ok(built
        .context("a test binary without a folder")?
        .join("kernel-steps"))
}

/// Cases, generated clusters and tests of ipvs mode in guests.
fn ipvs_mode(
    version: Version,
    files: &[PathBuf],
    proxy: &Path,
    tests: &IpvsTests<'_>,
) -> Result<Vec<Command>> {
    let run = |binary: &Path, arguments: &[&str]| -> Result<Command> {
        let mut run = guest(version, files, binary, &IGNORED)?;
        run.args(arguments).env("SWITCHYARD_PROXY_BIN", proxy);
        Ok(run)
    };
    let mut cases = run(tests.cases, &["--exact", "every_case_on_ipvs"])?;
    cases.env("SWITCHYARD_CASES", IPVS_CASES);
    let mut legacy = run(tests.cases, &["every_case_on_ipvs_over_legacy"])?;
    legacy.env("SWITCHYARD_CASES", LEGACY_CASES);
    let mut generated = run(tests.generated, &["generated_clusters_on_ipvs"])?;
    generated.env("SWITCHYARD_GENERATED", IPVS_CLUSTERS);
    let mut others = run(tests.ipvs, &IPVS_OTHERS)?;
    others.args(["--skip", IPVS_BY_HAND]);
    let mut own = run(tests.ipvs, &[])?;
    for part in IPVS_OTHERS {
        own.args(["--skip", part]);
    }
    Ok(vec![cases, legacy, generated, others, own])
}

/// A command in a guest, with files.
fn guest(
    version: Version,
    files: &[PathBuf],
    program: &Path,
    arguments: &[&str],
) -> Result<Command> {
    let mut guest = command(OWN_PROGRAM)?;
    guest.args(["vm", "--kernel", version.name()]);
    guest.args(["--seconds", &GUEST_SECONDS.to_string()]);
    guest.args(["--memory-mib", &GUEST_MEMORY_MIB.to_string()]);
    for file in files {
        guest.arg("--with").arg(file);
    }
    guest.arg("--").arg(program).args(arguments);
    Ok(guest)
}

/// A built test binary.
fn test_binary(package: &str, test: &str) -> Result<PathBuf> {
    let mut build = cargo(&[
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ])?;
    // Chosen as the steps before chose: other features of the crates below would have everything
    // built once more.
    if package == PRIVILEGED {
        build.args(["--package", package]);
    } else {
        build.args(["--workspace", "--exclude", PRIVILEGED]);
    }
    build.args(["--test", test]);
    let shown = shown(&build);
    build.stderr(std::process::Stdio::inherit());
    let built = build.output().with_context(|| format!("start `{shown}`"))?;
    anyhow::ensure!(
        built.status.success(),
        "`{shown}` ended with {}",
        built.status
    );
    let path = String::from_utf8_lossy(&built.stdout)
        .lines()
        .find_map(|line| executable(line, test));
    path.with_context(|| format!("`{shown}` named no test binary"))
}

/// The executable that a message of cargo's is about, if it is this target's.
fn executable(message: &str, target: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_it = message.pointer("/target/name")? == target;
    let path = message.get("executable")?.as_str()?;
    is_it.then(|| PathBuf::from(path))
}

/// Copies of programs without what debuggers read, which guests would have to hold in memory.
struct Stripped(PathBuf);

impl Stripped {
    fn of(programs: &[&Path]) -> Result<Self> {
        let dir = root()?.join(format!("target/vm/stripped-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let stripped = Self(dir);
        for program in programs {
            let to = stripped.path(program)?;
            if find("strip").is_none() {
                std::fs::copy(program, &to)?;
                continue;
            }
            let mut strip = command("strip")?;
            strip.arg("-o").arg(&to).arg(program);
            crate::programs::run(strip)?;
        }
        Ok(stripped)
    }

    fn path(&self, program: &Path) -> Result<PathBuf> {
        let name = program.file_name().context("a program without a name")?;
        Ok(self.0.join(name))
    }
}

impl Drop for Stripped {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_a_target_is_found_in_cargos_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"name":"cases"},"executable":"/t/cases-1"}"#;
        assert_eq!(
            executable(message, "cases"),
            Some(PathBuf::from("/t/cases-1"))
        );
        assert_eq!(executable(message, "programs"), None);
        let library = r#"{"target":{"name":"cases"},"executable":null}"#;
        assert_eq!(executable(library, "cases"), None);
        assert_eq!(executable("warning: x", "cases"), None);
    }
}
