//! One CPU for the server under measurement, another for everything else.

use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// On which side a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A server that is measured.
    Server,
    /// What asks it, and what else is needed.
    Load,
}

/// The two CPUs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpus {
    server: usize,
    load: usize,
}

impl Cpus {
    /// The first two CPUs we may use.
    ///
    /// # Errors
    /// There is only one.
    pub(super) fn choose() -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        let mut usable = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false));
        match (usable.next(), usable.next()) {
            (Some(server), Some(load)) => Ok(Self { server, load }),
            _ => bail!("the bench needs two CPUs: one for the server, one for what asks it"),
        }
    }

    /// Keeps the calling thread, and what it starts, on one of the two.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn pin(self, role: Role) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(match role {
            Role::Server => self.server,
            Role::Load => self.load,
        })?;
        sched_setaffinity(Pid::from_raw(0), &set).context("pin to a CPU")
    }

    /// Starts a process on one of the two. The calling thread is on [`Role::Load`]'s afterwards.
    ///
    /// # Errors
    /// It can't be started.
    pub(super) fn spawn(self, role: Role, command: &mut Command) -> Result<Child> {
        // A child has its parent's mask from its first instruction on.
        self.pin(role)?;
        let child = command.spawn();
        self.pin(Role::Load)?;
        child.with_context(|| format!("start {}", command.get_program().display()))
    }
}
