//! A thread that lives in a network namespace and does what it is told there.
//!
//! A socket belongs to the namespace (and to the cgroup) of the thread that made it, whoever
//! uses it afterwards. So one thread a namespace is enough, and no process is started per packet.

use std::fs::File;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::cgroup::NodeCgroup;

type Job = Box<dyn FnOnce() + Send>;

/// One namespace and its thread. Dropping it ends the thread, not the namespace.
pub(super) struct Namespace {
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Starts a thread inside the existing namespace `name`, and inside `cgroup` if given.
    pub(super) fn enter(name: &str, cgroup: Option<&NodeCgroup>) -> Result<Self> {
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).with_context(|| format!("open {path}"))?;
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, entered) = mpsc::channel();
        let threads = cgroup.map(NodeCgroup::threads_file);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = setns(&file, CloneFlags::CLONE_NEWNET)
                    .context("setns")
                    .and_then(|()| threads.map_or(Ok(()), |file| join_cgroup(&file)));
                let failed = result.is_err();
                if ready.send(result).is_err() || failed {
                    return;
                }
                for job in inbox {
                    job();
                }
            })?;
        entered
            .recv()
            .context("the namespace's thread died")?
            .with_context(|| format!("enter {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs `job` in the namespace and waits for what it returns.
    pub(super) fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            // The receiver waits below, so this fails only if the caller died.
            drop(done.send(job()));
        });
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .ok_or_else(|| anyhow!("the thread of namespace {} has ended", self.name))?;
        result
            .recv()
            .map_err(|_| anyhow!("a job in namespace {} panicked", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, has been reported to the job's caller.
            drop(thread.join());
        }
    }
}

fn join_cgroup(threads_file: &std::path::Path) -> Result<()> {
    std::fs::write(threads_file, "0")
        .with_context(|| format!("write 0 to {}", threads_file.display()))
}
