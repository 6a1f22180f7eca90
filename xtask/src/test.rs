//! `cargo xtask test`: everything that must hold.

mod fuzz;
mod kernel_programs;
mod kernels;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::programs::{self, cargo, command, is_installed, shown};
use crate::setup;

/// The crate whose tests need root and network namespaces. Its results come last.
const PRIVILEGED: &str = "switchyard-tests";

/// What to check.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only tests whose names contain this; no format, lint or licence checks
    filter: Option<String>,
    /// Leave out the tests that need root
    #[arg(long)]
    unprivileged: bool,
    /// Only the kernel programs' tests on other kernels, in guests
    #[arg(long, conflicts_with_all = ["filter", "unprivileged"])]
    kernels: bool,
    /// Show only what fails, and the summary
    #[arg(long, short)]
    quiet: bool,
}

/// One check and what became of it.
struct Step {
    name: &'static str,
    took: Duration,
    failed: Option<String>,
}

/// Runs every check, the later ones also where an earlier one fails.
///
/// # Errors
/// Any check that failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !options.unprivileged && !nix::unistd::geteuid().is_root() {
        bail!(
            "most tests make network namespaces and need root: run this as root, or with \
             --unprivileged to leave them out"
        );
    }
    let before = Machine::look();
    let mut steps = Vec::new();
    let mut step = |name, check: &mut dyn FnMut() -> Result<()>| {
        println!("\n== {name}");
        let start = Instant::now();
        let failed = check().err().map(|error| format!("{error:#}"));
        if let Some(error) = &failed {
            println!("== {name} FAILED: {error}");
        }
        steps.push(Step {
            name,
            took: start.elapsed(),
            failed,
        });
    };

    let mut counts = Counts::default();
    if options.kernels {
        step("build", &mut build);
        step("programs on other kernels", &mut || {
            kernels::run(&mut counts)
        });
        return summary(&steps, &counts);
    }
    step("setup", &mut setup::run);
    if options.filter.is_none() {
        step("format", &mut || {
            programs::run(cargo(&["fmt", "--all", "--check"])?)
        });
        step(
            "format of the kernel programs",
            &mut kernel_programs::format,
        );
        step("lints", &mut lints);
        step("lints of the kernel programs", &mut kernel_programs::lints);
        step("licences, bans and sources", &mut || {
            programs::run(cargo(&["deny", "check", "licenses", "bans", "sources"])?)
        });
        step(
            "licences, bans and sources of the kernel programs",
            &mut kernel_programs::licences,
        );
        step("advisories", &mut advisories);
    }
    step("build", &mut build);
    step("tests", &mut || {
        tests(
            options,
            &["--workspace", "--exclude", PRIVILEGED],
            &mut counts,
        )
    });
    if !options.unprivileged {
        step("tests in network namespaces", &mut || {
            tests(options, &["-p", PRIVILEGED], &mut counts)
        });
    }
    if options.filter.is_none() && !options.unprivileged {
        step("images", &mut image::trial::run);
        step("programs on other kernels", &mut || {
            kernels::run(&mut counts)
        });
    }
    if options.filter.is_none() {
        step("fuzz targets", &mut fuzz::run);
    }
    step("the machine is as it was", &mut || {
        before.compare(&Machine::look())
    });
    summary(&steps, &counts)
}

fn lints() -> Result<()> {
    let mut clippy = cargo(&["clippy", "--workspace", "--all-targets"])?;
    clippy.args(["--", "-D", "warnings"]);
    programs::run(clippy)
}

fn build() -> Result<()> {
    programs::run(cargo(&["build", "--workspace"])?)
}

fn summary(steps: &[Step], counts: &Counts) -> Result<()> {
    println!("\n== summary");
    for step in steps {
        let word = if step.failed.is_some() {
            "FAILED"
        } else {
            "ok"
        };
        println!(
            "{word:>6} {:>6.1} s  {}",
            step.took.as_secs_f64(),
            step.name
        );
    }
    let failed: Vec<&str> = steps
        .iter()
        .filter(|step| step.failed.is_some())
        .map(|step| step.name)
        .collect();
    println!(
        "\n{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    );
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if counts.passed == 0 {
        bail!("no test was run");
    }
    Ok(())
}

/// Known vulnerabilities, where their database is on this machine. It is never fetched here.
fn advisories() -> Result<()> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let databases = home.map(|home| home.join("advisory-dbs"));
    let is_there = databases
        .and_then(|dir| std::fs::read_dir(dir).ok())
        .is_some_and(|mut entries| {
            // A file is but the lock of an attempt to fetch one.
            entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir()))
        });
    if !is_there {
        println!(
            "no advisory database on this machine, so known vulnerabilities were NOT checked; \
             `cargo deny fetch db` gets one"
        );
        return Ok(());
    }
    programs::run(cargo(&["deny", "--offline", "check", "advisories"])?)
}

/// What cargo test counted, over all test binaries.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Adds a line `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Runs cargo test, passing its output on and counting results.
fn tests(options: &Options, packages: &[&str], counts: &mut Counts) -> Result<()> {
    let mut test = cargo(&["test", "--no-fail-fast"])?;
    test.args(packages);
    if options.quiet {
        test.arg("--quiet");
    }
    if let Some(filter) = &options.filter {
        test.arg("--").arg(filter);
    }
    count_results(test, counts)
}

/// Runs a command, passing its output on and counting the results in it.
fn count_results(mut test: Command, counts: &mut Counts) -> Result<()> {
    let shown = shown(&test);
    let mut child = test
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let output = child.stdout.take().context("no output")?;
    let mut out = std::io::stdout();
    for line in BufReader::new(output).lines() {
        let line = line?;
        counts.add(&line);
        writeln!(out, "{line}")?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// What tests must leave as they find it: network namespaces, control groups, pinned eBPF objects
/// and the machine's own packet filter.
struct Machine {
    namespaces: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    pins: BTreeSet<String>,
    rules: BTreeSet<String>,
}

impl Machine {
    fn look() -> Self {
        Self {
            namespaces: names_in(Path::new("/run/netns")),
            cgroups: own_cgroup().map(|dir| names_in(&dir)).unwrap_or_default(),
            pins: pins(),
            rules: rules(),
        }
    }

    fn compare(&self, after: &Self) -> Result<()> {
        let mut left = Vec::new();
        // What is gone of the first three was left by an earlier run that was killed, and swept.
        for (what, before, after) in [
            ("network namespace", &self.namespaces, &after.namespaces),
            ("control group", &self.cgroups, &after.cgroups),
            ("directory of pins", &self.pins, &after.pins),
        ] {
            let new = after.difference(before).filter(|name| !is_in_use(name));
            left.extend(new.map(|name| format!("{what} left: {name}")));
        }
        let (before, after) = (&self.rules, &after.rules);
        left.extend(
            after
                .difference(before)
                .map(|rule| format!("firewall rule left: {rule}")),
        );
        left.extend(
            before
                .difference(after)
                .map(|rule| format!("firewall rule gone: {rule}")),
        );
        if left.is_empty() {
            return Ok(());
        }
        bail!("{}", left.join("\n  "))
    }
}

/// Whether a name holds the id of a process that runs: it is another run's, beside ours.
fn is_in_use(name: &str) -> bool {
    let is_process = |id: &str| Path::new("/proc").join(id).exists();
    let mut numbers = name
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty());
    numbers.next().is_some_and(is_process)
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_type()
                .is_ok_and(|kind| kind.is_dir() || kind.is_file())
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Directories of testbeds on the bpf filesystem. (What else is there comes with the mount.)
fn pins() -> BTreeSet<String> {
    let mut names = names_in(Path::new("/sys/fs/bpf"));
    names.retain(|name| name.starts_with("sy"));
    names
}

/// The cgroup2 directory we are in.
fn own_cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (at, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then_some(at)
    })?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(root).join(own))
}

/// The machine's own rules, without counters; nothing where they can't be read.
fn rules() -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for words in [
        ["nft", "--stateless", "list", "ruleset"].as_slice(),
        &["iptables-legacy-save"],
        &["ip6tables-legacy-save"],
    ] {
        let Some((program, arguments)) = words.split_first() else {
            continue;
        };
        if is_installed(program)
            && let Ok(mut command) = command(program)
        {
            rules.extend(lines_of(command.args(arguments)));
        }
    }
    rules
}

fn lines_of(command: &mut Command) -> Vec<String> {
    let output = command.stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    // Chains have counters, comments have times.
    let is_rule = |line: &&str| !line.starts_with(['#', ':']);
    text.lines().filter(is_rule).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_are_added_up() {
        let mut counts = Counts::default();
        counts.add("running 3 tests");
        counts.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.02s");
        counts
            .add("test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (13, 2, 1));
    }

    #[test]
    fn what_is_left_behind_is_named() {
        let machine = |namespaces: &[&str]| Machine {
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
            cgroups: BTreeSet::new(),
            pins: BTreeSet::new(),
            rules: BTreeSet::new(),
        };
        assert!(machine(&["a"]).compare(&machine(&["a"])).is_ok());
        let left = machine(&["a"]).compare(&machine(&["a", "b"])).unwrap_err();
        assert_eq!(left.to_string(), "network namespace left: b");
        assert!(machine(&["a"]).compare(&machine(&[])).is_ok(), "swept");
        let beside = format!("sy{}-0-node1", std::process::id());
        assert!(
            machine(&[]).compare(&machine(&[&beside])).is_ok(),
            "another run's"
        );
    }
}
