//! What the kernel says of a process and its children.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process, by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// CPU time of the process, of its children that have ended and of those that run.
    /// Counted in ticks, mostly of 10 ms.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let own = Stat::of(self.0)?;
        let running = self.children().filter_map(|pid| Stat::of(pid).ok());
        let ticks = own.ticks + running.map(|child| child.ticks).sum::<u64>();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        let per_second = u64::try_from(per_second)?.max(1);
        Ok(Duration::from_millis(ticks * 1000 / per_second))
    }

    /// CPU time of the process and all its descendants that run, to the nanosecond where the
    /// kernel counts it, else in ticks. A thread that ends takes its share with it.
    pub(crate) fn cpu_exact(self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for process in self.tree() {
            match process.scheduled() {
                Some(time) => sum += time,
                None => return self.cpu(),
            }
        }
        Ok(sum)
    }

    /// The process and all its descendants that run.
    pub(crate) fn tree(self) -> Vec<Self> {
        let mut all = vec![self];
        let mut next = 0;
        while let Some(&process) = all.get(next) {
            all.extend(process.children().map(Self));
            next += 1;
        }
        all
    }

    /// Time on a CPU of all its threads, from `schedstat`.
    fn scheduled(self) -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).ok()?;
        let mut sum = 0;
        for task in tasks {
            // A thread may end while we look.
            let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok();
            let time = stat.as_deref().and_then(|stat| stat.split(' ').next());
            sum += time.map_or(Ok(0), str::parse::<u64>).ok()?;
        }
        (sum > 0).then(|| Duration::from_nanos(sum))
    }

    /// Resident memory in KiB, now.
    pub(crate) fn rss_kib(self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most resident memory it has had, in KiB.
    pub(crate) fn peak_rss_kib(self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// How often its threads have gone to sleep: the wake-ups of an idle process.
    pub(crate) fn wakeups(self) -> Result<u64> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.0));
        let mut sum = 0;
        for task in fs::read_dir(tasks)? {
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            sum += number(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(sum)
    }

    /// Its children that run now.
    pub(crate) fn children(self) -> impl Iterator<Item = u32> {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(move |&pid| Stat::of(pid).is_ok_and(|stat| stat.parent == self.0))
    }

    fn status(self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        number(&status, field).with_context(|| format!("no {field}"))
    }
}

fn number(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The fields of `/proc/PID/stat` we read.
struct Stat {
    parent: u32,
    /// Of the process and of its children that have ended.
    ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat"))?).context("odd stat")
    }

    /// The name, in parentheses, may hold anything; the numbers begin after it.
    fn parse(text: &str) -> Option<Self> {
        let (_, numbers) = text.rsplit_once(')')?;
        let field = |at: usize| numbers.split_whitespace().nth(at - 3);
        // utime, stime, cutime, cstime
        let ticks = (14..=17).map(|at| field(at)?.parse::<u64>().ok());
        Some(Self {
            parent: field(4)?.parse().ok()?,
            ticks: ticks.sum::<Option<u64>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_an_odd_name() {
        let text = "42 (a ) b) S 7 1 1 0 -1 0 0 0 0 0 11 22 33 44 20 0 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 110));
    }

    #[test]
    fn our_own_process_can_be_read() {
        let own = Process(std::process::id());
        assert!(own.rss_kib().unwrap() > 100);
        assert!(own.peak_rss_kib().unwrap() > 100);
        own.cpu().unwrap();
        assert!(own.cpu_exact().unwrap() > Duration::ZERO);
        own.wakeups().unwrap();
    }
}
