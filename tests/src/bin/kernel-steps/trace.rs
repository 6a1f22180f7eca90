//! Following all threads of a process from one system call to the next.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::call::{Call, NETLINK};
use super::registers;

/// No command of bpf(2) has this number: the kernel says EINVAL.
const NO_COMMAND: u64 = 0xffff;
/// What a shell says of a program that SIGKILL ended.
const KILLED: i32 = 137;

/// What is done at which step.
pub(crate) enum Fault {
    None,
    Kill { at: usize },
    Fail { steps: Range<usize>, error: i32 },
}

pub(crate) struct Tracer {
    report: File,
    fault: Fault,
    only: Vec<String>,
    steps: usize,
    process: Option<Pid>,
    /// Threads in a call that is to fail.
    failing: HashMap<Pid, i32>,
}

impl Tracer {
    pub(crate) fn new(report: File, fault: Fault, only: Vec<String>) -> Self {
        Self {
            report,
            fault,
            only,
            steps: 0,
            process: None,
            failing: HashMap::new(),
        }
    }

    const fn options(&self) -> Options {
        let threads = Options::PTRACE_O_TRACESYSGOOD.union(Options::PTRACE_O_TRACECLONE);
        threads.union(Options::PTRACE_O_TRACEEXEC)
    }

    /// Starts a command that stops itself before it does anything, and ends with us.
    pub(crate) fn start(&mut self, command: &mut Command) -> Result<()> {
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
        let options = self.options().union(Options::PTRACE_O_EXITKILL);
        ptrace::seize(pid, options).context("follow the command")?;
        kill(pid, Signal::SIGCONT)?;
        self.process = Some(pid);
        writeln!(self.report, "{pid}")?;
        Ok(())
    }

    /// Follows all threads of a process that runs. It goes on when we end.
    pub(crate) fn seize_running(&mut self, process: Pid) -> Result<()> {
        let mut known = Vec::new();
        loop {
            let mut found = false;
            for entry in fs::read_dir(format!("/proc/{process}/task"))? {
                let name = entry?.file_name();
                let thread = Pid::from_raw(name.to_string_lossy().parse()?);
                if known.contains(&thread) {
                    continue;
                }
                known.push(thread);
                // One that was made by a thread we follow is followed already.
                match ptrace::seize(thread, self.options()) {
                    Ok(()) => ptrace::interrupt(thread)?,
                    Err(Errno::EPERM | Errno::ESRCH) => {}
                    Err(error) => return Err(error).context("follow a thread"),
                }
                found = true;
            }
            if !found {
                break;
            }
        }
        self.process = Some(process);
        writeln!(self.report, "{process}")?;
        Ok(())
    }

    /// Goes on until the process is gone; its exit status.
    pub(crate) fn follow(&mut self) -> Result<i32> {
        let mut ended = 0;
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => return Ok(ended),
                Err(error) => return Err(error.into()),
            };
            let next = match status {
                WaitStatus::PtraceSyscall(thread) => {
                    self.call(thread).map(|()| Some((thread, None)))
                }
                WaitStatus::PtraceEvent(thread, ..) => Ok(Some((thread, None))),
                WaitStatus::Stopped(thread, signal) => Ok(Some((thread, Some(signal)))),
                WaitStatus::Exited(thread, code) => {
                    if Some(thread) == self.process {
                        ended = code;
                    }
                    Ok(None)
                }
                WaitStatus::Signaled(thread, ..) => {
                    if Some(thread) == self.process {
                        ended = KILLED;
                    }
                    Ok(None)
                }
                _ => Ok(None),
            };
            let Some((thread, signal)) = ignore_gone(next)?.flatten() else {
                continue;
            };
            ignore_gone(ptrace::syscall(thread, signal).map_err(Into::into))?;
        }
    }

    /// A thread stands before or behind a system call.
    fn call(&mut self, thread: Pid) -> Result<()> {
        if ptrace::syscall_info(thread)?.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            return self.enter(thread);
        }
        if let Some(error) = self.failing.remove(&thread) {
            registers::set_result(thread, -i64::from(error))?;
        }
        Ok(())
    }

    fn enter(&mut self, thread: Pid) -> Result<()> {
        let entry = registers::entry(thread)?;
        let Some(call) = Call::of(thread, &entry) else {
            return Ok(());
        };
        let counts_questions = matches!(self.fault, Fault::Fail { .. });
        let is_named = self.only.iter().any(|name| name == call.name);
        let is_wanted = is_named || (self.only.is_empty() && call.name != NETLINK);
        if !is_wanted
            || (call.is_question && !counts_questions)
            || (counts_questions && !call.is_bpf)
        {
            return Ok(());
        }
        self.steps += 1;
        let Call { name, path, .. } = call;
        let mut what = "";
        match &self.fault {
            Fault::Kill { at } if *at == self.steps => {
                what = " killed";
                // SIGKILL meets a thread that stands before a call before the kernel makes it.
                kill(self.process.unwrap_or(thread), Signal::SIGKILL)?;
            }
            Fault::Fail { steps, error } if steps.contains(&self.steps) => {
                what = " failed";
                registers::set_first_argument(thread, NO_COMMAND)?;
                self.failing.insert(thread, *error);
            }
            _ => {}
        }
        writeln!(self.report, "{name} {path}{what}")?;
        Ok(())
    }
}

/// A thread may be gone at any moment: then there is nothing to do with it.
fn ignore_gone<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}
