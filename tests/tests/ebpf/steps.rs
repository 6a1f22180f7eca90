//! A proxy that is killed, or whose calls fail, at a chosen step of what it does to the kernel's BPF:
//! see the program `kernel-steps`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use switchyard_tests::testbed::{Proxy, wait_for};

use super::stage::{POLL, SOON, Stage};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kernel-steps");
/// More steps than there are.
const ALL: usize = 1_000_000;
/// Kinds of steps whose traces outlive the process.
const LASTING: [&str; 6] = [
    "LINK_CREATE",
    "LINK_UPDATE",
    "OBJ_PIN",
    "rmdir",
    "unlink",
    "unlinkat",
];
/// Set to anything: every step is tried, which takes minutes.
const EVERY_STEP: &str = "SWITCHYARD_EVERY_STEP";

/// What is done to which step, as arguments of `kernel-steps`.
#[derive(Clone, Debug, Default)]
pub(super) struct Fault(Vec<String>);

impl Fault {
    /// Steps are only written down.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// The process gets SIGKILL in place of this step (from 1).
    pub(super) fn kill_at(step: usize) -> Self {
        Self(vec![format!("--kill-at={step}")])
    }

    /// Steps and questions are only written down.
    pub(super) fn none_of_all() -> Self {
        Self::fail_at(ALL, 0)
    }

    /// This step, questions included, fails with this error.
    pub(super) fn fail_at(step: usize, error: i32) -> Self {
        Self(vec![
            format!("--fail-at={step}"),
            format!("--error={error}"),
        ])
    }

    /// Only calls of these names count, and from the one after `before` on they all fail.
    pub(super) fn fail_all(names: &str, before: usize, error: i32) -> Self {
        Self::fail_some(names, before, ALL, error)
    }

    /// Only calls of these names count, and so many after the first `before` fail.
    pub(super) fn fail_some(names: &str, before: usize, count: usize, error: i32) -> Self {
        let Self(mut arguments) = Self::fail_at(before + 1, error);
        arguments.extend([format!("--only={names}"), format!("--fail-count={count}")]);
        Self(arguments)
    }
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Such as `LINK_CREATE`.
    pub(super) name: String,
    /// The path it is about, or nothing; then what was done to it.
    pub(super) rest: String,
}

/// A `kernel-steps` that runs or follows a proxy, and what it has written.
pub(super) struct Report(PathBuf);

impl Report {
    /// The steps until now, in their order.
    pub(super) fn steps(&self) -> Result<Vec<Step>> {
        let text = fs::read_to_string(&self.0)?;
        let lines = text.lines().skip(1).map(|line| {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            Step {
                name: name.to_owned(),
                rest: rest.to_owned(),
            }
        });
        Ok(lines.collect())
    }

    /// The number of the process that is followed; none before it is.
    fn process(&self) -> Option<String> {
        let text = fs::read_to_string(&self.0).ok()?;
        let (process, _) = text.split_once('\n')?;
        Some(process.to_owned())
    }

    /// What the last steps were, for a message.
    pub(super) fn tail(&self) -> String {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(4)..].join("; ")
    }

    /// Ends a proxy that runs under a fault, and waits until it is gone.
    pub(super) fn end(&self, mut proxy: Proxy) -> Result<()> {
        proxy.kill()?;
        self.wait_for_end()
    }

    fn wait_for_end(&self) -> Result<()> {
        let process = self.process().context("nothing was followed")?;
        let path = Path::new("/proc").join(process);
        wait_for("the proxy's end", SOON, POLL, || Ok(!path.exists()))
    }
}

fn report(stage: &Stage) -> PathBuf {
    stage.bed.work_dir().join("steps")
}

/// Starts a proxy with `flags` under a fault, and does not wait for anything.
pub(super) fn spawn(stage: &Stage, fault: &Fault, flags: &[&str]) -> Result<(Proxy, Report)> {
    let path = report(stage);
    fs::write(&path, "")?;
    let mut options = stage.options()?;
    options
        .flags
        .extend(flags.iter().map(|flag| (*flag).to_owned()));
    options.under = [PROGRAM.to_owned(), format!("--report={}", path.display())]
        .into_iter()
        .chain(fault.0.clone())
        .chain(["--".to_owned()])
        .collect();
    Ok((Proxy::spawn(&stage.bed, options)?, Report(path)))
}

/// Runs a proxy with `flags` until it is killed at this step, or until `goal` is reached; true if
/// it was killed. Either way it runs no more.
pub(super) fn run_until_killed(
    stage: &Stage,
    step: Option<usize>,
    flags: &[&str],
    mut goal: impl FnMut(&Proxy) -> Result<bool>,
) -> Result<(bool, Report)> {
    let fault = step.map_or_else(Fault::none, Fault::kill_at);
    let (mut proxy, report) = spawn(stage, &fault, flags)?;
    let mut is_killed = false;
    wait_for("the step, or the goal", SOON, POLL, || {
        is_killed = proxy.has_ended()?.is_some();
        Ok(is_killed || goal(&proxy)?)
    })
    .with_context(|| proxy.log_tail(20))?;
    report.end(proxy)?;
    Ok((is_killed, report))
}

/// Something that follows a proxy which runs already.
pub(super) struct Follower {
    child: Child,
    report: Report,
}

impl Follower {
    pub(super) fn start(stage: &Stage, proxy: &Proxy, fault: &Fault) -> Result<Self> {
        let path = report(stage);
        fs::write(&path, "")?;
        let child = Command::new(PROGRAM)
            .arg("--report")
            .arg(&path)
            .args(&fault.0)
            .arg("--pid")
            .arg(proxy.pid().to_string())
            .stdin(Stdio::null())
            .spawn()?;
        let mut follower = Self {
            child,
            report: Report(path),
        };
        wait_for(
            "following the proxy",
            SOON,
            Duration::from_millis(1),
            || {
                if let Some(status) = follower.child.try_wait()? {
                    bail!("kernel-steps ended with {status}");
                }
                Ok(follower.report.process().is_some())
            },
        )?;
        Ok(follower)
    }

    /// The steps until now, in their order.
    pub(super) fn steps(&self) -> Result<Vec<Step>> {
        self.report.steps()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // What it follows goes on.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The steps that are tried where there are many: of what attaches, names or removes the first, one in
/// the middle and the last, of each other kind the one in the middle. With `SWITCHYARD_EVERY_STEP` in
/// the environment: every one.
pub(super) fn chosen(steps: &[Step]) -> Vec<usize> {
    if std::env::var_os(EVERY_STEP).is_some() {
        return all(steps);
    }
    let mut kinds: HashMap<&str, Vec<usize>> = HashMap::new();
    for (step, number) in steps.iter().zip(1..) {
        kinds.entry(&step.name).or_default().push(number);
    }
    let mut chosen = BTreeSet::new();
    for (name, numbers) in kinds {
        let last = numbers.len() - 1;
        chosen.insert(numbers[last / 2]);
        if LASTING.contains(&name) {
            chosen.extend([numbers[0], numbers[last]]);
        }
    }
    chosen.into_iter().collect()
}

/// Every step.
pub(super) fn all(steps: &[Step]) -> Vec<usize> {
    (1..=steps.len()).collect()
}
