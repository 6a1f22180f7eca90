//! Runs or follows a program, and ends it, or makes it fail, at one chosen step of what it does to
//! the kernel's BPF: system calls that make, change or remove something.
//!
//! strace can inject faults too, but it counts for each thread and each system call by itself, and
//! can't tell reading a map from writing it, so the same number is not the same step twice.
//!
//! A step is one call of bpf(2) that is no question, one that makes or removes a name in the file
//! system, or one that waits for running programs (membarrier); and with `--only=netlink`, what is sent
//! to the kernel by netlink. All threads count together. Writes
//! to maps through memory (mmap) are not system calls; they are before or after one.

mod call;
mod registers;
mod trace;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::sys::signal::{Signal, raise};
use nix::unistd::Pid;

use self::trace::{Fault, Tracer};

/// Ends a program, or makes one of its calls fail, at a step of what it does to the kernel's BPF.
#[derive(Parser)]
struct Arguments {
    /// Where the steps are written to, a line each, after a line with the process' id
    #[arg(long)]
    report: PathBuf,
    /// SIGKILL in place of this step, counted from 1
    #[arg(long, conflicts_with = "fail_at")]
    kill_at: Option<usize>,
    /// The number of the error in place of what `--fail-at` names
    #[arg(long, default_value_t = 12)]
    error: i32,
    /// This step fails; questions count as well
    #[arg(long)]
    fail_at: Option<usize>,
    /// So many steps from there on fail
    #[arg(long, default_value_t = 1)]
    fail_count: usize,
    /// Only calls of these names count, such as LINK_CREATE
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Follow this process
    #[arg(long, conflicts_with = "command")]
    pid: Option<i32>,
    /// Stop, and run the command once somebody lets it go on
    #[arg(long, hide = true)]
    wait: bool,
    /// The program and its arguments
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.wait {
        raise(Signal::SIGSTOP)?;
        let (program, rest) = arguments.command.split_first().context("no command")?;
        let error = Command::new(program).args(rest).exec();
        return Err(error).context(program.clone());
    }
    let fault = match (arguments.kill_at, arguments.fail_at) {
        (Some(at), _) => Fault::Kill { at },
        (None, Some(first)) => Fault::Fail {
            steps: first..first.saturating_add(arguments.fail_count),
            error: arguments.error,
        },
        (None, None) => Fault::None,
    };
    let report =
        File::create(&arguments.report).with_context(|| arguments.report.display().to_string())?;
    let mut tracer = Tracer::new(report, fault, arguments.only.clone());
    if let Some(pid) = arguments.pid {
        tracer.seize_running(Pid::from_raw(pid))?;
    } else if arguments.command.is_empty() {
        bail!("neither --pid nor a command is given");
    } else {
        let this = std::env::current_exe()?;
        let mut command = Command::new(this);
        command.arg("--wait").arg("--report").arg(&arguments.report);
        command.arg("--").args(&arguments.command);
        tracer.start(&mut command)?;
    }
    let status = tracer.follow()?;
    std::process::exit(status);
}
