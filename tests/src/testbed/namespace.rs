//! A thread that lives in a network namespace and does what it is told there.
//!
//! A socket belongs to the namespace (and to the cgroup) of the thread that made it, whoever
//! uses it afterwards. So one thread a namespace is enough, and no process is started per packet.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::cgroup::NodeCgroup;

type Job = Box<dyn FnOnce() + Send>;

/// The way into a namespace, and into the cgroup of what lives there.
#[derive(Clone)]
struct Entrance {
    namespace: Arc<File>,
    threads: Option<PathBuf>,
}

impl Entrance {
    /// Takes the calling thread in, for good.
    fn pass(&self) -> Result<()> {
        setns(self.namespace.as_ref(), CloneFlags::CLONE_NEWNET).context("setns")?;
        self.threads.as_deref().map_or(Ok(()), join_cgroup)
    }

    /// Starts a thread, waits until it is inside, and lets it do `job` there.
    fn spawn<T, F>(&self, name: &str, job: F) -> Result<JoinHandle<Option<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let entrance = self.clone();
        let (ready, entered) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = entrance.pass();
                let failed = result.is_err();
                // The one who would read it has died if this fails.
                if ready.send(result).is_err() || failed {
                    return None;
                }
                Some(job())
            })?;
        entered
            .recv()
            .context("the namespace's thread died")?
            .with_context(|| format!("enter {name}"))?;
        Ok(thread)
    }
}

/// A thread of its own in a namespace. It is not ended when this is dropped.
pub struct Resident<T>(JoinHandle<Option<T>>);

impl<T> Resident<T> {
    /// Waits until the thread's job is done, for what it returned.
    ///
    /// # Errors
    /// The job panicked.
    pub fn join(self) -> Result<T> {
        let name = self.0.thread().name().unwrap_or_default().to_owned();
        self.0
            .join()
            .ok()
            .flatten()
            .with_context(|| format!("a thread in namespace {name} panicked"))
    }
}

/// One namespace and its thread. Dropping it ends the thread, not the namespace.
pub(super) struct Namespace {
    name: String,
    entrance: Entrance,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<Option<()>>>,
}

impl Namespace {
    /// Starts a thread inside the existing namespace `name`, and inside `cgroup` if given.
    pub(super) fn enter(name: &str, cgroup: Option<&NodeCgroup>) -> Result<Self> {
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).with_context(|| format!("open {path}"))?;
        let entrance = Entrance {
            namespace: Arc::new(file),
            threads: cgroup.map(NodeCgroup::threads_file),
        };
        let (jobs, inbox) = mpsc::channel::<Job>();
        let thread = entrance.spawn(name, move || {
            for job in inbox {
                job();
            }
        })?;
        Ok(Self {
            name: name.to_owned(),
            entrance,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Starts a further thread in the namespace and its cgroup, which does `job` and ends.
    pub(super) fn spawn<T, F>(&self, job: F) -> Result<Resident<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.entrance.spawn(&self.name, job).map(Resident)
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

fn join_cgroup(threads_file: &Path) -> Result<()> {
    std::fs::write(threads_file, "0")
        .with_context(|| format!("write 0 to {}", threads_file.display()))
}
